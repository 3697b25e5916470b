//! Programs: only named ones, no shell, nothing of our environment, killed as a whole.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sovereign_sinks::{Live, Sink as _};
use tokio_util::sync::CancellationToken;

use crate::server::{programs, request, result, run, word};

/// A machine with one program `p`: this shell script, with more settings.
fn script(text: &str, more: &str) -> Live {
    programs(&format!(
        "[processes.p]\npath = \"/bin/sh\"\narguments = [\"-c\", '''{text}''', \"p\"]\n{more}\n"
    ))
}

fn process(arguments: &[&str]) -> Value {
    json!({"kind": "process", "program": "p", "arguments": arguments})
}

#[tokio::test]
async fn a_program_gets_its_arguments_and_input_and_nothing_of_our_environment() {
    let live = script(
        "echo \"$1|$2\"; cat; env | sort >&2",
        "more_arguments_max = 2",
    );
    let mut effect = process(&["a b; echo c", "$HOME `id` *"]);
    effect["input"] = json!("in\n");
    let outcome = run(&live, effect.clone()).await;
    let found = result(&outcome);
    assert_eq!(found["stdout"], "a b; echo c|$HOME `id` *\nin\n");
    let names: Vec<&str> = found["stderr"]
        .as_str()
        .unwrap()
        .lines()
        .map(|l| l.split('=').next().unwrap())
        .collect();
    assert_eq!(names, ["LANG", "PATH", "PWD", "SOVEREIGN_EFFECT_ID"]);
    let id = format!("SOVEREIGN_EFFECT_ID={}", request(effect).id);
    assert!(found["stderr"].as_str().unwrap().contains(&id));
}

#[tokio::test]
async fn what_the_machine_does_not_allow_is_not_started() {
    let folder = tempfile::tempdir().unwrap();
    let mark = folder.path().join("mark");
    let live = script(
        &format!("touch {}", mark.display()),
        "more_arguments_max = 1\nflags = [\"--dry\"]",
    );
    for effect in [
        process(&["a", "b"]),
        process(&["--output=/etc/passwd"]),
        process(&["-"]),
        json!({"kind": "process", "program": "q"}),
    ] {
        assert_eq!(
            word(&run(&live, effect.clone()).await),
            "failed effect-refused",
            "{effect}"
        );
    }
    assert!(!mark.exists());
    assert_eq!(word(&run(&live, process(&["--dry"])).await), "done");
    assert!(mark.exists());
    let absent = programs("[processes.p]\npath = \"/nowhere/p\"\n");
    assert_eq!(
        word(&run(&absent, process(&[])).await),
        "failed process-failed"
    );
}

#[tokio::test]
async fn an_exit_code_says_whether_it_happened() {
    let more = "more_arguments_max = 1\nnot_done_exits = [64, 75]";
    let live = script("exit $1", more);
    for (exit, expected) in [
        ("0", "done"),
        ("1", "in doubt process-failed"),
        ("64", "failed process-failed"),
        ("75", "again process-failed"),
    ] {
        assert_eq!(
            word(&run(&live, process(&[exit])).await),
            expected,
            "{exit}"
        );
    }
    let killed = script("kill -9 $$", "");
    assert_eq!(
        word(&run(&killed, process(&[])).await),
        "in doubt process-failed"
    );
}

/// Whether the process with the number in this file has ended, or does within a second.
async fn ended(file: &Path) -> bool {
    let id = std::fs::read_to_string(file).unwrap().trim().to_owned();
    for _ in 0..100 {
        let state = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        if state.is_empty() || state.contains(") Z") {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    false
}

#[tokio::test]
async fn at_the_time_limit_the_whole_group_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let child = folder.path().join("child");
    let text = format!("sleep 60 & echo $! > {}; wait", child.display());
    let live = script(&text, "time_ms_max = 300");
    let started = Instant::now();
    assert_eq!(word(&run(&live, process(&[])).await), "in doubt timed-out");
    assert!(started.elapsed() < Duration::from_secs(5));
    assert!(ended(&child).await);
}

#[tokio::test]
async fn a_program_that_is_called_off_is_killed_and_in_doubt() {
    let folder = tempfile::tempdir().unwrap();
    let child = folder.path().join("child");
    let live = script(
        &format!("sleep 60 & echo $! > {}; wait", child.display()),
        "",
    );
    let cancel = CancellationToken::new();
    let wanted = request(process(&[]));
    let abort = async {
        while std::fs::read_to_string(&child)
            .unwrap_or_default()
            .is_empty()
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        cancel.cancel();
    };
    let (outcome, ()) = tokio::join!(live.run(&wanted, &cancel), abort);
    assert_eq!(word(&outcome), "in doubt called-off");
    assert!(ended(&child).await);
}

#[tokio::test]
async fn what_a_program_leaves_behind_does_not_hold_up_its_outcome() {
    let folder = tempfile::tempdir().unwrap();
    let child = folder.path().join("child");
    let live = script(
        &format!("sleep 60 & echo $! > {}; echo hi", child.display()),
        "",
    );
    let started = Instant::now();
    let outcome = run(&live, process(&[])).await;
    assert_eq!(result(&outcome)["stdout"], "hi\n");
    assert!(started.elapsed() < Duration::from_secs(5));
    assert!(ended(&child).await);
}

#[tokio::test]
async fn a_program_that_writes_without_end_is_killed() {
    for text in ["yes", "yes >&2"] {
        let live = script(text, "output_bytes_max = 10000");
        let started = Instant::now();
        assert_eq!(
            word(&run(&live, process(&[])).await),
            "in doubt answer-too-large",
            "{text}"
        );
        assert!(started.elapsed() < Duration::from_secs(5), "{text}");
    }
}

#[tokio::test]
async fn a_program_that_does_not_read_its_input_is_fine() {
    let live = script("exit 0", "");
    let mut effect = process(&[]);
    effect["input"] = json!("x".repeat(150_000));
    assert_eq!(word(&run(&live, effect).await), "done");
}
