use std::io;
use std::path::{Path, PathBuf};

/// Result of everything in this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong; the variant says who must act, the text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// User: programs that the servers need are not installed.
    #[error("missing prerequisites: {}", list(.missing))]
    Prerequisites {
        /// Each missing program with the line that installs it.
        missing: Vec<Prerequisite>,
    },
    /// User: another process holds the data folder.
    #[error(
        "data folder {} is held by process {pid} since {since}; stop it with: sovereign down --data {}",
        .path.display(), .path.display()
    )]
    DataFolderHeld {
        /// The data folder.
        path: PathBuf,
        /// Process that holds it, as written in the lock file (`unknown` when it cannot be read).
        pid: String,
        /// Its start in seconds since 1970, as written in the lock file.
        since: String,
    },
    /// User: the data folder cannot be used as it is.
    #[error("data folder {} cannot be used: {why}; {remedy}", .path.display())]
    DataFolderUnusable {
        /// The data folder.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
        /// What to do.
        remedy: String,
    },
    /// User: too little room on the disk.
    #[error(
        "disk of {} has {free_mib} MiB free, at least {needed_mib} MiB are needed; free some space or choose another folder with --data",
        .path.display()
    )]
    DiskFull {
        /// Folder whose file system is full.
        path: PathBuf,
        /// Room left for unprivileged users, MiB.
        free_mib: u64,
        /// Room below which a start is refused, MiB.
        needed_mib: u64,
    },
    /// User: the account that must run the servers cannot reach a folder.
    #[error("user {user} (uid {uid}) cannot enter {}, needed for {what}; {remedy}", .path.display())]
    Unreachable {
        /// Account that was tried.
        user: String,
        /// Its uid.
        uid: u32,
        /// First folder or file on the way that is closed.
        path: PathBuf,
        /// What lies behind it.
        what: String,
        /// What to do.
        remedy: String,
    },
    /// User: the servers never run as root and there is no account to drop to.
    #[error(
        "servers never run as root and neither user sovereign nor user nobody exists; create one with: useradd --system sovereign"
    )]
    NoAccount,
    /// External: a download failed.
    #[error("fetching {what} failed: {why}; last output: {tail}")]
    Fetch {
        /// What was fetched, with its version.
        what: String,
        /// Exit status or time-out.
        why: String,
        /// Last lines of the package client.
        tail: String,
    },
    /// External: a downloaded file is not the pinned one.
    #[error(
        "checksum of {file} is {found}, pinned is {expected}; remove it from the package client's cache and try again"
    )]
    Checksum {
        /// Name of the file.
        file: String,
        /// Pinned SHA-256, hex (`none` for a file that is not in the list).
        expected: String,
        /// Computed SHA-256, hex (`missing` for a file that did not arrive).
        found: String,
    },
    /// External: a helper program (initdb, psql, the Kafka format tool) failed.
    #[error("{program} failed: {why}; last output: {tail}")]
    Program {
        /// Name of the program.
        program: String,
        /// Exit status or time-out.
        why: String,
        /// Last lines it wrote.
        tail: String,
    },
    /// External: a server was not ready in time.
    #[error(
        "{server} was not ready after {waited_ms} ms ({why}); read {} or start again; last lines: {tail}",
        .log.display()
    )]
    NotReady {
        /// `postgres` or `kafka`.
        server: &'static str,
        /// How long the start waited, ms.
        waited_ms: u64,
        /// What was seen last.
        why: String,
        /// Where the server's own log is.
        log: PathBuf,
        /// Last lines of that log.
        tail: String,
    },
    /// External: an earlier server on the same files does not end.
    #[error(
        "an earlier {server} (process {pid}) still runs on this data folder after {waited_s} s; end it with: kill -9 {pid}"
    )]
    StillRunning {
        /// `postgres` or `kafka`.
        server: &'static str,
        /// Its process.
        pid: u32,
        /// How long it was waited for, s.
        waited_s: u64,
    },
    /// Internal or external: the operating system refused something.
    #[error("{doing} {}: {source}", .path.display())]
    Io {
        /// What was attempted.
        doing: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Internal: a part of the supervision ended that should not have.
    #[error("supervision failed: {0}")]
    Supervision(String),
}

impl Error {
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io {
            doing,
            path,
            source,
        }
    }
}

/// A program that must be installed by the user, with the line that does it on Debian.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prerequisite {
    /// What is missing, for example `java 17 or later (found 11)`.
    pub what: String,
    /// Command that installs it on Debian and Ubuntu.
    pub install: &'static str,
}

fn list(missing: &[Prerequisite]) -> String {
    let each: Vec<String> = missing
        .iter()
        .map(|one| format!("{} (install with: {})", one.what, one.install))
        .collect();
    each.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_prerequisites_are_named_with_their_install_line() {
        let error = Error::Prerequisites {
            missing: vec![
                Prerequisite {
                    what: "mvn".into(),
                    install: "apt-get install -y maven",
                },
                Prerequisite {
                    what: "python3".into(),
                    install: "apt-get install -y python3",
                },
            ],
        };
        let text = error.to_string();
        assert!(text.contains("mvn (install with: apt-get install -y maven)"));
        assert!(text.contains("python3 (install with: apt-get install -y python3)"));
    }
}
