//! The unprivileged account that the servers run as, and what it can reach.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Accounts that are tried when root starts the servers, best first.
const CANDIDATES: [&str; 2] = ["sovereign", "nobody"];

/// Whom the servers run as: outside root simply ourselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Whether a child must change to it, which only root can do.
    pub(crate) switch: bool,
}

impl Account {
    /// The account for servers whose files lie in `home`: the owner of existing files, so that an
    /// account created later does not lock an old data folder out; else the first candidate.
    pub(crate) fn choose(home: &Path) -> Result<Self> {
        let uid = rustix::process::geteuid().as_raw();
        if uid != 0 {
            let gid = rustix::process::getegid().as_raw();
            return Ok(Self {
                name: format!("uid {uid}"),
                uid,
                gid,
                switch: false,
            });
        }
        for folder in ["postgres/data", "kafka/data"] {
            if let Ok(metadata) = fs::metadata(home.join(folder))
                && metadata.uid() != 0
            {
                let (uid, gid) = (metadata.uid(), metadata.gid());
                return Ok(Self {
                    name: format!("uid {uid}"),
                    uid,
                    gid,
                    switch: true,
                });
            }
        }
        let passwd = Path::new("/etc/passwd");
        let text = fs::read_to_string(passwd).map_err(Error::io("reading", passwd))?;
        CANDIDATES
            .iter()
            .find_map(|name| parse(&text, name))
            .ok_or(Error::NoAccount)
    }

    /// Makes `path` belong to this account.
    pub(crate) fn own(&self, path: &Path) -> Result<()> {
        if !self.switch {
            return Ok(());
        }
        chown(path, Some(self.uid), Some(self.gid)).map_err(Error::io("giving to its user", path))
    }

    /// Creates `path` (one level) with `mode`, belonging to this account.
    pub(crate) fn folder(&self, path: &Path, mode: u32) -> Result<()> {
        create_folder(path, mode)?;
        self.own(path)
    }

    /// First part of `path` that this account cannot enter (or, for the last part, use).
    pub(crate) fn closed_part(&self, path: &Path) -> Option<PathBuf> {
        if !self.switch {
            return None;
        }
        let mut parts: Vec<&Path> = path.ancestors().collect();
        parts.reverse();
        parts
            .into_iter()
            .find(|part| !self.may_enter(part))
            .map(Path::to_path_buf)
    }

    fn may_enter(&self, part: &Path) -> bool {
        let Ok(metadata) = fs::metadata(part) else {
            return false;
        };
        let mode = metadata.mode();
        if metadata.uid() == self.uid {
            mode & 0o100 != 0
        } else if metadata.gid() == self.gid {
            mode & 0o010 != 0
        } else {
            mode & 0o001 != 0
        }
    }

    /// Refuses `path` when this account cannot reach it.
    pub(crate) fn require_reach(&self, path: &Path, what: &str, remedy: &str) -> Result<()> {
        match self.closed_part(path) {
            None => Ok(()),
            Some(closed) => Err(Error::Unreachable {
                user: self.name.clone(),
                uid: self.uid,
                path: closed,
                what: what.to_owned(),
                remedy: remedy.to_owned(),
            }),
        }
    }
}

/// Creates `path` (one level) if need be and sets its mode whatever the umask is.
pub(crate) fn create_folder(path: &Path, mode: u32) -> Result<()> {
    match fs::create_dir(path) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && path.is_dir() => {}
        Err(error) => return Err(Error::io("creating folder", path)(error)),
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(Error::io("setting the mode of", path))
}

fn parse(passwd: &str, name: &str) -> Option<Account> {
    let line = passwd
        .lines()
        .find(|line| line.split(':').next() == Some(name))?;
    let mut fields = line.split(':').skip(2);
    let uid: u32 = fields.next()?.parse().ok()?;
    let gid: u32 = fields.next()?.parse().ok()?;
    (uid != 0).then(|| Account {
        name: name.to_owned(),
        uid,
        gid,
        switch: true,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn account_is_read_from_passwd_and_root_is_never_accepted() {
        let passwd = "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65533::/:/no\nfake:x:0:0::/:/no\n";
        let account = parse(passwd, "nobody").unwrap();
        assert_eq!((account.uid, account.gid), (65534, 65533));
        assert_eq!(parse(passwd, "sovereign"), None);
        assert_eq!(parse(passwd, "fake"), None);
    }

    #[test]
    fn closed_folder_on_the_way_is_named() {
        let base = tempfile::Builder::new()
            .permissions(fs::Permissions::from_mode(0o755))
            .tempdir_in("/tmp")
            .unwrap();
        let closed = base.path().join("closed");
        create_folder(&closed, 0o700).unwrap();
        create_folder(&closed.join("inner"), 0o755).unwrap();
        let uid = fs::metadata(&closed).unwrap().uid() + 4242;
        let account = Account {
            name: "other".into(),
            uid,
            gid: uid,
            switch: true,
        };
        assert_eq!(account.closed_part(&closed.join("inner")), Some(closed));
        assert_eq!(account.closed_part(base.path()), None);
    }
}
