use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use sovereign_schemas::{Digest, ErrorCode, Problem};

use super::{FILE_BYTES_MAX, MarketFile};
use crate::MarketSource;

/// So many files are kept in memory.
const CACHED_MAX: usize = 4;

/// A folder of market files under the names of their digests, so that a task can be gone on with
/// after a restart even if the caller's own file has moved.
#[derive(Debug, Clone)]
pub struct MarketFolder {
    folder: PathBuf,
    cached: Arc<Mutex<VecDeque<Arc<MarketFile>>>>,
}

impl MarketFolder {
    /// Uses `folder`, which is created when the first file is kept.
    #[must_use]
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            cached: Arc::default(),
        }
    }

    /// Reads and checks a file, and gives its bytes as well.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidCsv`] if it is no good market file, [`ErrorCode::NotFound`] if it
    /// cannot be read.
    pub fn read(path: &Path) -> Result<(Arc<MarketFile>, Vec<u8>), Problem> {
        let bytes = read_bounded(path).map_err(|e| {
            Problem::new(
                ErrorCode::NotFound,
                format!("market file cannot be read: {e}"),
            )
            .field("file")
            .remedy("check the file's path and rights")
        })?;
        Ok((Arc::new(MarketFile::parse(&bytes)?), bytes))
    }

    /// Keeps a copy of a file here; `bytes` are what it was read from.
    ///
    /// # Errors
    /// [`ErrorCode::DataFolderUnusable`] or [`ErrorCode::DiskFull`] if it cannot be kept.
    pub fn keep(&self, file: &Arc<MarketFile>, bytes: &[u8]) -> Result<(), Problem> {
        self.write(&self.path(file.digest()), bytes).map_err(|e| {
            let code = match e.kind() {
                io::ErrorKind::StorageFull => ErrorCode::DiskFull,
                _ => ErrorCode::DataFolderUnusable,
            };
            Problem::new(code, format!("market file cannot be kept: {e}"))
        })?;
        self.cache(file);
        Ok(())
    }

    /// The bytes of the file of that digest; `None` if it is not here.
    ///
    /// # Errors
    /// [`ErrorCode::DataFolderUnusable`] if it cannot be read.
    pub fn bytes(&self, digest: Digest) -> Result<Option<Vec<u8>>, Problem> {
        match read_bounded(&self.path(digest)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Problem::new(
                ErrorCode::DataFolderUnusable,
                format!("kept market file cannot be read: {e}"),
            )),
        }
    }

    /// Where the file of that digest is kept: gzip or plain, whatever it was.
    fn path(&self, digest: Digest) -> PathBuf {
        self.folder.join(format!("{digest}.csv.gz"))
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        std::fs::create_dir_all(&self.folder)?;
        if path.exists() && std::fs::read(path)? == bytes {
            return Ok(());
        }
        // whole or not at all, whenever the process dies
        let partial = path.with_extension(format!("partial-{}", std::process::id()));
        let mut file = File::create(&partial)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&partial, path)
    }

    fn cache(&self, file: &Arc<MarketFile>) {
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        cached.retain(|f| f.digest() != file.digest());
        cached.push_front(file.clone());
        cached.truncate(CACHED_MAX);
    }

    fn load(&self, digest: Digest) -> Result<Arc<MarketFile>, Problem> {
        let known = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = known.iter().find(|f| f.digest() == digest) {
            return Ok(file.clone());
        }
        drop(known);
        let bytes = read_bounded(&self.path(digest)).map_err(|e| {
            Problem::new(ErrorCode::NotFound, format!("the task's market file: {e}"))
                .field("input_digest")
                .expected(digest.to_string())
                .remedy("start the task again with the same market file; it goes on from there")
        })?;
        let file = MarketFile::parse(&bytes)?;
        if file.digest() != digest {
            return Err(Problem::new(
                ErrorCode::VerificationDifference,
                "the kept market file was changed",
            )
            .found(file.digest().to_string())
            .expected(digest.to_string()));
        }
        let file = Arc::new(file);
        self.cache(&file);
        Ok(file)
    }
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("more than {FILE_BYTES_MAX} bytes"),
        ));
    }
    Ok(bytes)
}

#[async_trait]
impl MarketSource for MarketFolder {
    async fn open(&self, digest: Digest) -> Result<Arc<MarketFile>, Problem> {
        let folder = self.clone();
        tokio::task::spawn_blocking(move || folder.load(digest))
            .await
            .unwrap_or_else(|e| {
                Err(Problem::new(
                    ErrorCode::Internal,
                    format!("reading a market file failed: {e}"),
                ))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CSV: &str = "Ticker,Date,Open,High,Low,Close,Volume\nX,2000-03-01,1,2,1,1.5,10\n";

    #[tokio::test]
    async fn a_kept_file_is_found_by_its_digest_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join("mine.csv");
        std::fs::write(&own, CSV).unwrap();
        let folder = dir.path().join("market");
        let (kept, bytes) = MarketFolder::read(&own).unwrap();
        MarketFolder::new(&folder).keep(&kept, &bytes).unwrap();
        let found = MarketFolder::new(&folder).bytes(kept.digest()).unwrap();
        assert_eq!(found, Some(bytes));
        std::fs::remove_file(&own).unwrap();
        let again = MarketFolder::new(&folder)
            .open(kept.digest())
            .await
            .unwrap();
        assert_eq!(kept, again);

        let path = folder.join(format!("{}.csv.gz", kept.digest()));
        std::fs::write(path, CSV.replace("1.5", "1.6")).unwrap();
        let changed = MarketFolder::new(&folder)
            .open(kept.digest())
            .await
            .unwrap_err();
        assert_eq!(changed.code, ErrorCode::VerificationDifference);
        let missing = MarketFolder::new(&folder)
            .open(Digest::ZERO)
            .await
            .unwrap_err();
        assert_eq!(missing.code, ErrorCode::NotFound);
    }

    #[test]
    fn a_bad_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join("mine.csv");
        std::fs::write(&own, CSV.replace("1.5", "9")).unwrap();
        let problem = MarketFolder::read(&own).unwrap_err();
        assert_eq!(
            (problem.code, problem.line),
            (ErrorCode::InvalidCsv, Some(2))
        );
    }
}
