//! Addresses, ports and folders that cannot be used: which one, how long until it is said, and
//! nothing left behind.

use std::net::TcpListener;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::harness::{Done, Engine, binary, small};

/// The start of an engine that must fail, with this option more.
#[track_caller]
fn fails(name: &str, options: &[&str], exit: i32, code: &str) {
    let engine = Engine::new(name);
    let begun = Instant::now();
    let done = engine.run(&[&["up", "--json", "--quiet"], options].concat());
    done.fails(exit, code);
    assert!(
        begun.elapsed() < Duration::from_secs(150),
        "{code} took {:?}",
        begun.elapsed()
    );
    let left = engine.processes();
    assert!(left.is_empty(), "{code} leaves {left:?}");
    assert!(
        !engine.data.join("engine.json").exists(),
        "{code} leaves engine.json"
    );
}

/// A port of this machine where nobody listens.
fn closed() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

#[test]
fn a_wrong_password_and_an_unknown_database_are_told_apart() {
    let (url, brokers) = {
        let engine = small();
        let status = engine.status();
        (
            status["database"].as_str().unwrap().to_owned(),
            status["brokers"].clone(),
        )
    };
    let brokers = ["--brokers", brokers.as_str().unwrap()];
    let (login, host) = url.rsplit_once('@').unwrap();
    let wrong = format!("{}:wrong@{host}", login.rsplit_once(':').unwrap().0);
    fails(
        "auth",
        &[&["--database", &wrong], &brokers[..]].concat(),
        5,
        "database-auth",
    );
    let nowhere = format!("postgresql://sovereign:x@127.0.0.1:{}/sovereign", closed());
    let options = [&["--database", &nowhere], &brokers[..]].concat();
    fails("nodb", &options, 5, "database-unreachable");
    let nonsense = ["--database", "http://example.org/", brokers[0], brokers[1]];
    let engine = Engine::new("nonsense");
    let done = engine.run(&[&["up", "--json"], &nonsense[..]].concat());
    assert_ne!(done.code, 0);
    assert!(done.problem()["code"].is_string());
}

#[test]
fn a_broker_that_never_answers_is_named() {
    // accepts nothing, but the system completes connections up to its backlog
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    fails("silent", &["--brokers", &address], 5, "broker-unreachable");
}

#[test]
fn a_registry_that_is_not_there_is_named() {
    let registry = format!("http://127.0.0.1:{}", closed());
    fails(
        "noreg",
        &["--registry", &registry],
        5,
        "registry-unreachable",
    );
}

#[test]
fn a_taken_port_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    fails("port", &["--listen", &address], 1, "port-taken");
}

#[test]
fn settings_that_cannot_be_used_are_named() {
    let engine = Engine::new("config");
    std::fs::write(
        engine.data.join("sovereign.toml"),
        "[[departments]]\nid = 1\n",
    )
    .unwrap();
    engine.run(&["up", "--json"]).fails(2, "invalid-config");
    std::fs::write(engine.data.join("sovereign.toml"), "colour = \"red\"\n").unwrap();
    engine.run(&["up", "--json"]).fails(2, "invalid-config");
    let left = engine.processes();
    assert!(left.is_empty(), "{left:?}");
}

fn up_in(folder: &std::path::Path) -> Command {
    let mut command = Command::new(binary());
    command.args(["up", "--json", "--data"]).arg(folder);
    command
}

fn done(mut command: Command) -> Done {
    let output = command.output().unwrap();
    Done {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

#[test]
fn a_folder_below_a_file_is_unusable() {
    let file = tempfile::NamedTempFile::new().unwrap();
    done(up_in(&file.path().join("data"))).fails(1, "data-folder-unusable");
    done(up_in(file.path())).fails(1, "data-folder-unusable");
}

#[test]
fn a_read_only_and_a_full_folder_are_told_apart() {
    // in a mount namespace of its own, which ends with the command
    let mounted = |options: &str| {
        let folder = tempfile::tempdir().unwrap();
        let script = "mount -t tmpfs -o \"$1\" tmpfs \"$2\" && exec \"$3\" up --json --data \"$2\"";
        let mut command = Command::new("unshare");
        command.args(["-r", "-m", "sh", "-c", script, "sh", options]);
        command.arg(folder.path()).arg(binary());
        done(command)
    };
    let possible = Command::new("unshare").args(["-r", "-m", "true"]).status();
    if !possible.is_ok_and(|status| status.success()) {
        eprintln!("this machine allows no namespaces: folders were not mounted");
        return;
    }
    mounted("ro,mode=755").fails(1, "data-folder-unusable");
    mounted("size=64m,mode=755").fails(1, "disk-full");
}
