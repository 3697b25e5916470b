//! Folders in which something is made before it is renamed to where it belongs.

use std::fs;
use std::path::{Path, PathBuf};

use crate::account::Account;
use crate::error::{Error, Result};

const PREFIX: &str = "staging.";

/// A folder of this start alone, removed when dropped.
///
/// Its name is random: the helper program of a start that was killed goes on for a moment, writes
/// on and may clean up behind itself, all in the folder that *it* was given.
#[derive(Debug)]
pub(crate) struct Staging {
    path: PathBuf,
}

impl Staging {
    /// Creates one in `parent` for `account`.
    pub(crate) fn create(parent: &Path, account: &Account) -> Result<Self> {
        let mut bytes = [0; 8];
        getrandom::fill(&mut bytes)
            .map_err(|error| Error::Supervision(format!("no random numbers: {error}")))?;
        let path = parent.join(format!("{PREFIX}{:016x}", u64::from_ne_bytes(bytes)));
        account.folder(&path, 0o700)?;
        Ok(Self { path })
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Removes what starts that were killed left in `parent`. One whose program still writes into it may stay,
/// until the next start.
pub(crate) fn sweep(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if name.to_string_lossy().starts_with(PREFIX) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_a_name_of_its_own_and_leftovers_go() {
        let parent = tempfile::tempdir().unwrap();
        let account = Account::choose(parent.path()).unwrap();
        let left = Staging::create(parent.path(), &account).unwrap();
        fs::write(left.join("half"), "").unwrap();
        let left = std::mem::ManuallyDrop::new(left);
        fs::create_dir(parent.path().join("data")).unwrap();

        sweep(parent.path());
        let now = Staging::create(parent.path(), &account).unwrap();
        assert_ne!(now.path, left.path);
        let names = || {
            let entries = fs::read_dir(parent.path()).unwrap().flatten();
            let mut names: Vec<_> = entries.map(|entry| entry.path()).collect();
            names.sort();
            names
        };
        assert_eq!(names(), [parent.path().join("data"), now.path.clone()]);
        drop(now);
        assert_eq!(names(), [parent.path().join("data")]);
    }
}
