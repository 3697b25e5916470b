//! A recorded file needs no server.

use std::process::Command;

use serde_json::Value;

use crate::harness::{Done, binary, small};

fn run(program: &str, args: &[&str]) -> Option<std::process::Output> {
    match Command::new(program)
        .args(args)
        .env_remove("SOVEREIGN_DATA")
        .output()
    {
        Ok(output) => Some(output),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => panic!("{program}: {error}"),
    }
}

#[test]
fn replay_and_verify_of_a_file_open_no_socket() {
    let engine = small();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("log.avro");
    let file = file.to_str().unwrap();
    engine.run(&["export", file]).ok();
    let live = engine.json(&["replay"]);
    let binary = binary();
    let binary = binary.to_str().unwrap();
    let replay = ["replay", "--source", file, "--offline", "--json"];
    let verify = ["verify", "--source", file, "--json"];
    let same = |output: &std::process::Output| {
        assert!(output.status.success(), "{output:?}");
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["digests"], live["digests"]);
    };
    let mut ways = 0;

    let calls = folder.path().join("calls");
    let trace = [
        "-f",
        "-qq",
        "-e",
        "trace=network",
        "-o",
        calls.to_str().unwrap(),
        binary,
    ];
    // a container may forbid tracing: then the other way has to do
    if let Some(output) = run("strace", &[&trace[..], &replay].concat())
        && output.status.success()
    {
        same(&output);
        let calls = std::fs::read_to_string(&calls).unwrap();
        let calls: Vec<&str> = calls.lines().filter(|line| line.contains('(')).collect();
        assert!(calls.is_empty(), "{calls:?}");
        ways += 1;
    }
    // an empty network namespace: not even loopback is up
    let empty = ["-r", "-n", binary];
    if run("unshare", &["-r", "-n", "true"]).is_some_and(|output| output.status.success()) {
        same(&run("unshare", &[&empty[..], &replay].concat()).unwrap());
        let output = run("unshare", &[&empty[..], &verify].concat()).unwrap();
        assert!(output.status.success(), "{output:?}");
        ways += 1;
    }
    assert!(
        ways > 0,
        "neither strace nor unshare works here: install strace"
    );
}

#[test]
fn offline_refuses_what_needs_the_network() {
    let engine = small();
    for source in ["ledger", "kafka"] {
        let args = ["replay", "--source", source, "--offline", "--json"];
        engine.run(&args).fails(2, "invalid-usage");
    }
}

#[test]
fn an_export_is_whole_repeatable_and_overwrites_nothing() {
    let engine = small();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let export = |name: &str| -> Done {
        engine.run(&[
            "export",
            &path(name),
            "--from",
            "10",
            "--to",
            "90",
            "--json",
        ])
    };
    let first = export("a").ok().json();
    export("b").ok();
    assert_eq!(
        std::fs::read(path("a")).unwrap(),
        std::fs::read(path("b")).unwrap()
    );
    assert_eq!((&first["first"], &first["last"]), (&10.into(), &90.into()));
    export("a").fails(2, "invalid-usage");
    let beyond = ["export", &path("c"), "--to", "100000000", "--json"];
    engine.run(&beyond).fails(2, "invalid-range");
    assert!(!folder.path().join("c").exists(), "nothing half done");
    assert_eq!(
        std::fs::read_dir(folder.path()).unwrap().count(),
        2,
        "and nothing temporary"
    );
    let file = path("a");
    let against = ["verify", "--source", &file, "--against", "kafka"];
    let range = ["--from", "10", "--to", "90"];
    engine.run(&[&against[..], &range].concat()).ok();
    // without a range both are expected to start and end where the file does
    assert_eq!(engine.run(&against).code, 3);
}
