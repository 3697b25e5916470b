//! Packages and programs of others that tests run: fetched once, pinned, kept in the cache.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash as _, Hasher as _};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::root;

/// What fetching may take, seconds.
pub const FETCH_LIMIT_S: u32 = 400;

/// How a script ended.
#[derive(Debug)]
pub struct Done {
    /// Its exit code; none if a signal ended it.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it said besides.
    pub stderr: String,
}

/// Runs a script, without the settings of an engine that the caller may have in its environment.
///
/// # Panics
/// If bash does not start.
#[must_use]
pub fn bash(folder: &Path, script: &str, limit_s: u32, environment: &[(&str, &Path)]) -> Done {
    let mut command = Command::new("timeout");
    command
        .args(["--kill-after=5", &limit_s.to_string()])
        .args(["bash", "-eu", "-o", "pipefail", "-c", script])
        .current_dir(folder)
        .envs(environment.iter().copied())
        .stdin(Stdio::null());
    for name in ["DATA", "DATABASE", "KEYS_DATABASE", "BROKERS", "REGISTRY"] {
        command.env_remove(format!("SOVEREIGN_{name}"));
    }
    let output = command.output();
    let output = output.unwrap_or_else(|error| panic!("bash does not start: {error}"));
    Done {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Fetches packages once: `fill` fills a new folder, which is named by the content of `pins`, files
/// of the repository.
///
/// # Panics
/// If they cannot be fetched.
#[must_use]
pub fn packages(kind: &str, pins: &[&str], fill: impl Fn(&Path) -> Done) -> PathBuf {
    let failed = |error: std::io::Error| panic!("packages for {kind}: {error}");
    let mut hasher = DefaultHasher::new();
    for pin in pins {
        let content = fs::read(root().join(pin));
        content
            .unwrap_or_else(|error| panic!("{pin}: {error}"))
            .hash(&mut hasher);
    }
    let cache = sovereign_servers::default_cache().join("clients");
    let ready = cache.join(format!("{kind}-{:016x}", hasher.finish()));
    if ready.exists() {
        return ready;
    }
    let partial = cache.join(format!("{kind}-{}.partial", std::process::id()));
    fs::create_dir_all(&partial).unwrap_or_else(failed);
    symlink(root().join("tests"), partial.join("tests")).unwrap_or_else(failed);
    let done = fill(&partial);
    if done.code != Some(0) {
        let _ = fs::remove_dir_all(&partial);
        panic!(
            "packages for {kind} cannot be fetched: {} {}",
            done.stdout, done.stderr
        );
    }
    if fs::rename(&partial, &ready).is_err() {
        // another test was faster
        fs::remove_dir_all(&partial).unwrap_or_else(failed);
    }
    ready
}

/// Packages of npm, as the `package-lock.json` in this folder below `tests/clients` has them.
///
/// # Panics
/// If they cannot be fetched, or node or npm is missing.
#[must_use]
pub fn node_packages(folder: &str) -> PathBuf {
    needs("node", "sudo apt-get install -y nodejs npm");
    needs("npm", "sudo apt-get install -y npm");
    let files = ["package.json", "package-lock.json"];
    let pins = files.map(|file| format!("tests/clients/{folder}/{file}"));
    packages(folder, &pins.each_ref().map(String::as_str), |partial| {
        let script = format!(
            "cp tests/clients/{folder}/package*.json tests/clients/{folder}/.npmrc .
             npm ci --ignore-scripts --no-audit --no-fund --silent"
        );
        bash(partial, &script, FETCH_LIMIT_S, &[])
    })
}

/// That a program is there.
///
/// # Panics
/// If it is not; says how to install it.
pub fn needs(program: &str, remedy: &str) {
    let found = Command::new(program).arg("--version").output();
    assert!(
        found.is_ok_and(|output| output.status.success()),
        "{program} is missing, which this test needs; install it with: {remedy}"
    );
}
