//! Where the servers' files lie.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::account::{Account, create_folder};
use crate::error::{Error, Result};
use crate::state::State;

/// Where files go when root keeps its data folder where the servers' user cannot reach it.
const ELSEWHERE: &str = "/var/lib/sovereign";
/// Link in the data folder to the place elsewhere: the authority on where an existing ledger is,
/// also after the data folder was renamed.
const LINK: &str = "servers";
/// Longest path of a Unix socket (`sun_path` is 108 bytes with its NUL).
const SOCKET_PATH_BYTES_MAX: usize = 107;
const NAMES_MAX: usize = 16;

/// The folder of the servers' files and the account that owns them.
#[derive(Clone, Debug)]
pub(crate) struct Home {
    pub(crate) path: PathBuf,
    pub(crate) account: Account,
}

impl Home {
    /// Finds or chooses the place for `data_folder`. Folders above are never changed.
    pub(crate) fn place(data_folder: &Path) -> Result<Self> {
        let path = match fs::read_link(data_folder.join(LINK)) {
            Ok(path) if path.is_dir() => path,
            Ok(path) => {
                return Err(Error::DataFolderUnusable {
                    path: data_folder.to_path_buf(),
                    why: format!("its servers' files in {} are gone", path.display()),
                    remedy: "restore them, or remove the link named servers to start empty".into(),
                });
            }
            Err(_) => {
                let account = Account::choose(data_folder)?;
                if account.closed_part(data_folder).is_none() {
                    data_folder.to_path_buf()
                } else {
                    place_elsewhere(data_folder, Path::new(ELSEWHERE))?
                }
            }
        };
        let account = Account::choose(&path)?;
        account.require_reach(&path, "the servers' files", "open it to others (chmod o+x)")?;
        if path
            .to_str()
            .is_none_or(|text| text.contains([',', '"', '\\']))
        {
            return Err(Error::DataFolderUnusable {
                path,
                why: "its path contains a comma, quote or backslash".into(),
                remedy: "choose another path with --data".into(),
            });
        }
        create_folder(&data_folder.join("logs"), 0o700)?;
        Ok(Self { path, account })
    }

    /// A folder for the Unix socket: `postgres/run`, or a short one below the temp folder when that
    /// name would be too long for a socket.
    pub(crate) fn socket_folder(&self) -> Result<PathBuf> {
        let own = self.path.join("postgres/run");
        if fits_socket(&own) {
            self.account.folder(&own, 0o700)?;
            return Ok(own);
        }
        let digest = short_digest(&self.path);
        for base in [std::env::temp_dir(), PathBuf::from("/tmp")] {
            if self.account.closed_part(&base).is_some() {
                continue;
            }
            for number in 0..NAMES_MAX {
                let folder = base.join(format!("sovereign-{digest}-{number}"));
                if fits_socket(&folder) && self.take_private(&folder)? {
                    return Ok(folder);
                }
            }
        }
        Err(Error::DataFolderUnusable {
            path: self.path.clone(),
            why: "its path is too long for a socket and no folder in /tmp could be used".into(),
            remedy: "choose a shorter path with --data".into(),
        })
    }

    /// Removes the socket folder after a stop if it is one in the temp folder.
    pub(crate) fn remove_short_socket_folder(&self, state: &State) {
        let folder = state
            .postgres
            .as_ref()
            .map(|postgres| &postgres.socket_folder);
        if let Some(folder) = folder.filter(|folder| !folder.starts_with(&self.path)) {
            // Not empty means in use.
            let _ = fs::remove_dir(folder);
        }
    }

    /// Takes a folder in a place where others may write: only a real folder of ours will do.
    fn take_private(&self, folder: &Path) -> Result<bool> {
        if let Ok(metadata) = fs::symlink_metadata(folder) {
            let ours = [self.account.uid, rustix::process::geteuid().as_raw()];
            if !metadata.is_dir() || !ours.contains(&metadata.uid()) {
                return Ok(false);
            }
        }
        self.account.folder(folder, 0o700)?;
        Ok(true)
    }
}

fn fits_socket(folder: &Path) -> bool {
    folder.as_os_str().len() + "/.s.PGSQL.65535".len() <= SOCKET_PATH_BYTES_MAX
}

/// Chooses a folder named after the data folder's path and records it by a link. A folder that is
/// in use already belongs to an earlier data folder of the same path, whose ledger must neither
/// be lost nor mistaken for the new one's.
fn place_elsewhere(data_folder: &Path, elsewhere: &Path) -> Result<PathBuf> {
    if !elsewhere.is_dir() {
        create_folder(elsewhere, 0o755)?;
    }
    let digest = short_digest(data_folder);
    for number in 0..NAMES_MAX {
        let name = if number == 0 {
            digest.clone()
        } else {
            format!("{digest}-{number}")
        };
        let path = elsewhere.join(name);
        let in_use = fs::read_dir(&path).is_ok_and(|mut entries| entries.next().is_some());
        if in_use {
            tracing::warn!(folder = %path.display(), "left by an earlier data folder of this path");
            continue;
        }
        create_folder(&path, 0o711)?;
        let link = data_folder.join(LINK);
        symlink(&path, &link).map_err(Error::io("linking", &link))?;
        return Ok(path);
    }
    Err(Error::DataFolderUnusable {
        path: data_folder.to_path_buf(),
        why: format!(
            "{NAMES_MAX} earlier ones of this path left files in {}",
            elsewhere.display()
        ),
        remedy: "remove those that are not needed".into(),
    })
}

fn short_digest(path: &Path) -> String {
    let digest = Sha256::digest(path.as_os_str().as_bytes());
    digest[..6]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn ourselves() -> Account {
        let uid = rustix::process::geteuid().as_raw();
        let gid = rustix::process::getegid().as_raw();
        Account {
            name: "ourselves".into(),
            uid,
            gid,
            switch: false,
        }
    }

    #[test]
    fn place_elsewhere_is_linked_and_an_earlier_one_is_left_alone() {
        let base = tempfile::tempdir().unwrap();
        let (data, elsewhere) = (base.path().join("data"), base.path().join("lib"));
        fs::create_dir(&data).unwrap();
        let first = place_elsewhere(&data, &elsewhere).unwrap();
        assert_eq!(fs::read_link(data.join(LINK)).unwrap(), first);
        // The data folder was removed and made again, its servers' files stayed.
        fs::write(first.join("ledger"), "").unwrap();
        fs::remove_file(data.join(LINK)).unwrap();
        let second = place_elsewhere(&data, &elsewhere).unwrap();
        assert_ne!(first, second);
        assert!(first.join("ledger").exists());
        // Nothing was written yet: the same place again.
        fs::remove_file(data.join(LINK)).unwrap();
        assert_eq!(place_elsewhere(&data, &elsewhere).unwrap(), second);
    }

    #[test]
    fn lost_servers_files_are_an_error_and_not_an_empty_ledger() {
        let base = tempfile::tempdir().unwrap();
        symlink(base.path().join("gone"), base.path().join(LINK)).unwrap();
        let text = Home::place(base.path()).unwrap_err().to_string();
        assert!(text.contains("are gone"), "{text}");
    }

    #[test]
    fn socket_of_a_long_path_gets_a_short_private_folder() {
        let base = tempfile::tempdir().unwrap();
        let long = base.path().join("x".repeat(100));
        let home = Home {
            path: long,
            account: ourselves(),
        };
        let folder = home.socket_folder().unwrap();
        assert!(fits_socket(&folder));
        assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o777, 0o700);
        assert_eq!(home.socket_folder().unwrap(), folder);
        fs::remove_dir(folder).unwrap();
    }
}
