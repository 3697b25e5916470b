use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::account::create_folder;
use crate::clock::unix_s;
use crate::error::{Error, Result};

/// Room below which nothing is started, MiB: the write-ahead log alone may take that much.
pub const FREE_MIB_MIN: u64 = 1024;
/// A process that was killed keeps its lock until the system has taken it apart, which takes a
/// moment on a busy machine.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// The engine's data folder, held by an exclusive lock as long as this value lives.
///
/// The lock is a `flock` on the file `lock` inside, so that it ends with the process however that
/// dies; the file's text (pid, start in seconds since 1970) only serves the error of a second one.
#[derive(Debug)]
pub struct DataFolder {
    path: PathBuf,
    // Held for its lock alone.
    _lock: File,
}

impl DataFolder {
    /// Creates the folder if need be (0700; 0711 for root, whose servers run as another user) and
    /// takes its lock.
    ///
    /// # Errors
    /// [`Error::DataFolderHeld`] names the process that has it, [`Error::DataFolderUnusable`] says
    /// why the path cannot serve, [`Error::DiskFull`] gives the numbers.
    pub fn open(path: &Path) -> Result<Self> {
        create(path)?;
        let path = fs::canonicalize(path).map_err(|error| unusable(path, &error))?;
        if path
            .to_str()
            .is_none_or(|text| text.contains(|c: char| c.is_control()))
        {
            return Err(Error::DataFolderUnusable {
                path,
                why: "its path is not plain UTF-8 text".into(),
                remedy: "choose another path with --data".into(),
            });
        }
        let lock = lock(&path)?;
        require_room(&path)?;
        Ok(Self { path, _lock: lock })
    }

    /// Absolute path of the folder, without symbolic links.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Refuses when the file system of `path` has less than [`FREE_MIB_MIN`] left.
pub(crate) fn require_room(path: &Path) -> Result<()> {
    let room = rustix::fs::statvfs(path)
        .map_err(|error| Error::io("measuring free space of", path)(error.into()))?;
    let free_mib = room.f_bavail.saturating_mul(room.f_frsize) / (1024 * 1024);
    if free_mib < FREE_MIB_MIN {
        return Err(Error::DiskFull {
            path: path.to_path_buf(),
            free_mib,
            needed_mib: FREE_MIB_MIN,
        });
    }
    Ok(())
}

fn create(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent()
        && !parent.as_os_str().is_empty()
    {
        fs::create_dir_all(parent).map_err(|error| unusable(parent, &error))?;
    }
    let mode = if rustix::process::geteuid().is_root() {
        0o711
    } else {
        0o700
    };
    match create_folder(path, mode) {
        Err(Error::Io { source, .. }) => Err(unusable(path, &source)),
        other => other,
    }
}

// nothing else runs before the lock is held
#[allow(clippy::disallowed_methods)]
fn lock(path: &Path) -> Result<File> {
    let name = path.join("lock");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&name)
        .map_err(|error| unusable(path, &error))?;
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => thread::sleep(LOCK_PAUSE),
            Err(TryLockError::WouldBlock) => return Err(held(path, &mut file)),
            Err(TryLockError::Error(error)) => return Err(unusable(path, &error)),
        }
    }
    let since = unix_s();
    let text = format!("{} {since}\n", std::process::id());
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| file.write_all(text.as_bytes()))
        .map_err(|error| unusable(path, &error))?;
    Ok(file)
}

fn held(path: &Path, file: &mut File) -> Error {
    let mut text = String::new();
    // An unreadable text only makes the message poorer.
    let _ = file.take(100).read_to_string(&mut text);
    let mut words = text.split_whitespace().map(str::to_owned);
    let mut word = || words.next().unwrap_or_else(|| "unknown".to_owned());
    Error::DataFolderHeld {
        path: path.to_path_buf(),
        pid: word(),
        since: word(),
    }
}

fn unusable(path: &Path, error: &io::Error) -> Error {
    let remedy = match error.kind() {
        io::ErrorKind::ReadOnlyFilesystem => "mount it writable or choose another with --data",
        io::ErrorKind::PermissionDenied => {
            "run as its owner, or choose a folder of yours with --data"
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "free some space or choose another folder with --data"
        }
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
            "a file is in the way; choose another path with --data"
        }
        _ => "choose another folder with --data",
    };
    Error::DataFolderUnusable {
        path: path.to_path_buf(),
        why: error.to_string(),
        remedy: remedy.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn second_holder_is_refused_with_the_pid_of_the_first() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("deep/data");
        let first = DataFolder::open(&path).unwrap();
        let error = DataFolder::open(&path).unwrap_err();
        let Error::DataFolderHeld { pid, .. } = &error else {
            panic!("{error}")
        };
        assert_eq!(*pid, std::process::id().to_string());
        assert!(error.to_string().contains("sovereign down --data"));
        drop(first);
        DataFolder::open(&path).unwrap();
    }

    #[test]
    fn stale_lock_file_is_no_obstacle() {
        let base = tempfile::tempdir().unwrap();
        fs::write(base.path().join("lock"), "999999999 12\n").unwrap();
        DataFolder::open(base.path()).unwrap();
        let text = fs::read_to_string(base.path().join("lock")).unwrap();
        assert!(text.starts_with(&format!("{} ", std::process::id())));
    }

    #[test]
    fn file_in_the_way_is_named() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("data");
        fs::write(&path, "").unwrap();
        let text = DataFolder::open(&path).unwrap_err().to_string();
        assert!(text.contains("a file is in the way"), "{text}");
    }
}
