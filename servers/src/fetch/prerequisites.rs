use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::error::{Error, Prerequisite, Result};
use crate::fetch::{Wanted, run::run};

/// Oldest Java that Kafka 4 runs on.
const JAVA_MIN: u32 = 17;
const INSTALL_JAVA: &str = "apt-get install -y openjdk-17-jdk-headless";
const INSTALL_MAVEN: &str = "apt-get install -y maven";
const INSTALL_PYTHON: &str = "apt-get install -y python3 python3-pip";
const VENV_LIMIT: Duration = Duration::from_secs(120);

/// Programs found on this machine that fetching and running the servers needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prerequisites {
    /// Java 17 or later, if Kafka is wanted.
    pub java: Option<PathBuf>,
    /// Maven, if Kafka is wanted.
    pub maven: Option<PathBuf>,
    /// Python 3 with pip or venv, if PostgreSQL is wanted.
    pub python: Option<PathBuf>,
}

/// Looks for all programs that fetching and running the wanted servers needs.
///
/// # Errors
/// [`Error::Prerequisites`] names every missing one with the Debian line that installs it.
pub fn check_prerequisites(wanted: Wanted) -> Result<Prerequisites> {
    let mut missing = Vec::new();
    let mut note = |found: Result<PathBuf>| match found {
        Ok(path) => Ok(Some(path)),
        Err(Error::Prerequisites { missing: one }) => {
            missing.extend(one);
            Ok(None)
        }
        Err(other) => Err(other),
    };
    let mut found = Prerequisites {
        java: None,
        maven: None,
        python: None,
    };
    if wanted.kafka {
        found.java = note(java())?;
        found.maven = note(maven())?;
    }
    if wanted.postgres {
        found.python = note(python())?;
    }
    if missing.is_empty() {
        Ok(found)
    } else {
        Err(Error::Prerequisites { missing })
    }
}

fn missing(what: impl Into<String>, install: &'static str) -> Error {
    Error::Prerequisites {
        missing: vec![Prerequisite {
            what: what.into(),
            install,
        }],
    }
}

/// `$JAVA_HOME/bin/java`, else the one on the path, if it is new enough.
pub(super) fn java() -> Result<PathBuf> {
    let home = std::env::var_os("JAVA_HOME").map(|home| PathBuf::from(home).join("bin/java"));
    let candidates: Vec<PathBuf> = home
        .into_iter()
        .filter(|java| java.is_file())
        .chain(on_path("java"))
        .collect();
    let mut newest = None;
    for java in candidates {
        let output = Command::new(&java)
            .arg("-version")
            .stdin(Stdio::null())
            .output();
        let text = output.map(|output| String::from_utf8_lossy(&output.stderr).into_owned());
        let version = text.ok().as_deref().and_then(java_version);
        if version >= Some(JAVA_MIN) {
            // A link may lie where the servers' account cannot see it.
            return java.canonicalize().map_err(Error::io("resolving", &java));
        }
        newest = newest.max(version);
    }
    let found = newest.map_or(String::new(), |version| format!(" (found {version})"));
    Err(missing(
        format!("java {JAVA_MIN} or later{found}"),
        INSTALL_JAVA,
    ))
}

/// Major version in the first line of `java -version`, also of the old scheme (`1.8.0`).
fn java_version(text: &str) -> Option<u32> {
    let version = text.split('"').nth(1)?;
    let mut parts = version.split(['.', '-', '+', '_']);
    match parts.next()?.parse().ok()? {
        1 => parts.next()?.parse().ok(),
        major => Some(major),
    }
}

pub(super) fn maven() -> Result<PathBuf> {
    on_path("mvn").ok_or_else(|| missing("mvn (Apache Maven)", INSTALL_MAVEN))
}

/// Python 3 that has pip, or can make a virtual environment that has it.
fn python() -> Result<PathBuf> {
    let python = on_path("python3").ok_or_else(|| missing("python3", INSTALL_PYTHON))?;
    if succeeds(&python, &["-m", "pip", "--version"])
        || succeeds(&python, &["-c", "import venv, ensurepip"])
    {
        return Ok(python);
    }
    Err(missing("pip for python3", INSTALL_PYTHON))
}

/// A Python with pip.
#[derive(Debug)]
pub(super) struct Pip {
    pub(super) python: PathBuf,
}

/// The system's pip, else one in a virtual environment made at `venv`.
pub(super) fn pip(venv: &Path, log: &Path) -> Result<Pip> {
    let python = python()?;
    if succeeds(&python, &["-m", "pip", "--version"]) {
        return Ok(Pip { python });
    }
    let mut command = Command::new(&python);
    run(
        command.args(["-m", "venv"]).arg(venv),
        "a virtual environment",
        log,
        VENV_LIMIT,
    )?;
    Ok(Pip {
        python: venv.join("bin/python3"),
    })
}

fn succeeds(program: &Path, args: &[&str]) -> bool {
    let mut command = Command::new(program);
    command
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|file| {
            let executable = rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok();
            executable && file.is_file()
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn java_versions_of_both_schemes_are_read() {
        assert_eq!(
            java_version("openjdk version \"17.0.15\" 2025-04-15\n"),
            Some(17)
        );
        assert_eq!(java_version("java version \"1.8.0_402\"\n"), Some(8));
        assert_eq!(java_version("openjdk version \"25-ea\" 2026\n"), Some(25));
        assert_eq!(java_version("sh: not found"), None);
    }
}
