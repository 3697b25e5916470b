//! The servers' log files: appended by the servers, bounded by us.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::error::{Error, Result};

/// Size above which a log is moved to `<name>.1`, bytes.
const LOG_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// How much of the end of a log an error may quote.
const TAIL_BYTES: u64 = 16 * 1024;
const TAIL_LINES: usize = 20;

/// Opens a log for appending, 0600.
pub(crate) fn open(path: &Path) -> Result<File> {
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path);
    file.map_err(Error::io("opening", path))
}

/// Keeps a log below its bound. It is copied and cut instead of renamed, because a running server
/// holds it open (for appending, so that it goes on at the new end).
pub(crate) fn bound(path: &Path) {
    bound_to(path, LOG_BYTES_MAX);
}

fn bound_to(path: &Path, bytes_max: u64) {
    let Ok(metadata) = fs::metadata(path) else {
        return;
    };
    if metadata.len() <= bytes_max {
        return;
    }
    let mut old = path.as_os_str().to_owned();
    old.push(".1");
    let cut = fs::copy(path, &old)
        .and_then(|_| OpenOptions::new().write(true).open(path))
        .and_then(|file| file.set_len(0));
    if let Err(error) = cut {
        tracing::warn!(log = %path.display(), %error, "log cannot be cut");
    }
}

/// The last lines of a log, for an error.
pub(crate) fn tail(path: &Path) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let start = file.metadata()?.len().saturating_sub(TAIL_BYTES);
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map_or_else(
        |_| "(no log)".into(),
        |bytes| last_lines(&String::from_utf8_lossy(&bytes)),
    )
}

/// The last lines of `text` as one line.
pub(crate) fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join(" | ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn log_above_its_bound_is_kept_once_and_cut() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("x.log");
        fs::write(&path, "0123456789").unwrap();
        bound_to(&path, 10);
        assert_eq!(fs::read(&path).unwrap().len(), 10);
        bound_to(&path, 9);
        assert_eq!(fs::read(&path).unwrap().len(), 0);
        assert_eq!(
            fs::read(base.path().join("x.log.1")).unwrap(),
            b"0123456789"
        );
    }

    #[test]
    fn tail_quotes_the_last_lines_only() {
        let text: String = (0..50).map(|n| format!("line {n}\n\n")).collect();
        let tail = last_lines(&text);
        assert!(tail.starts_with("line 30 | line 31"));
        assert!(tail.ends_with("line 49"));
    }
}
