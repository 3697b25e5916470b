//! Market files where every engine finds them: in the ledger's database, with a copy in the data
//! folder.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use sovereign_agents::MarketSource;
use sovereign_agents::market::{MarketFile, MarketFolder};
use sovereign_event_store::Artifacts;
use sovereign_schemas::{Digest, ErrorCode, Problem};

/// So many digests are remembered as shared.
const SHARED_MAX: usize = 1_024;

/// Market files of tasks, by digest.
#[derive(Debug)]
pub(super) struct SharedMarket {
    folder: MarketFolder,
    artifacts: Artifacts,
    /// What is in the database for certain.
    shared: Mutex<HashSet<Digest>>,
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    let failed = |e: tokio::task::JoinError| Problem::new(ErrorCode::Internal, format!("{e}"));
    tokio::task::spawn_blocking(work).await.map_err(failed)?
}

impl SharedMarket {
    pub(super) fn new(folder: PathBuf, artifacts: Artifacts) -> Self {
        Self {
            folder: MarketFolder::new(folder),
            artifacts,
            shared: Mutex::default(),
        }
    }

    /// Reads and checks a caller's file and keeps it.
    pub(super) async fn keep(&self, path: PathBuf) -> Result<Arc<MarketFile>, Problem> {
        let (file, bytes) = blocking(move || MarketFolder::read(&path)).await?;
        self.share(file.digest(), &bytes).await?;
        let (folder, kept) = (self.folder.clone(), file.clone());
        blocking(move || folder.keep(&kept, &bytes)).await?;
        Ok(file)
    }

    async fn share(&self, digest: Digest, bytes: &[u8]) -> Result<(), Problem> {
        self.artifacts.put(digest, bytes).await?;
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        if shared.len() >= SHARED_MAX {
            shared.clear();
        }
        shared.insert(digest);
        Ok(())
    }

    fn is_shared(&self, digest: Digest) -> bool {
        let shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        shared.contains(&digest)
    }

    /// A file that another engine was given.
    async fn fetch(&self, digest: Digest) -> Result<(), Problem> {
        let found = self.artifacts.get(digest).await.map_err(|e| e.problem())?;
        let Some(bytes) = found else {
            return Err(
                Problem::new(ErrorCode::NotFound, "no engine kept the task's market file")
                    .field("input_digest")
                    .expected(digest.to_string())
                    .remedy(
                        "start the task again with the same market file; it goes on from there",
                    ),
            );
        };
        let folder = self.folder.clone();
        blocking(move || {
            let file = MarketFile::parse(&bytes)?;
            if file.digest() != digest {
                return Err(Problem::new(
                    ErrorCode::VerificationDifference,
                    "the market file in the database was changed",
                )
                .found(file.digest().to_string())
                .expected(digest.to_string()));
            }
            folder.keep(&Arc::new(file), &bytes)
        })
        .await
    }
}

#[async_trait]
impl MarketSource for SharedMarket {
    async fn open(&self, digest: Digest) -> Result<Arc<MarketFile>, Problem> {
        if self.is_shared(digest) {
            return self.folder.open(digest).await;
        }
        let folder = self.folder.clone();
        match blocking(move || folder.bytes(digest)).await? {
            // kept by a build that did not share, or before this start
            Some(bytes) => {
                let file = self.folder.open(digest).await?;
                self.share(digest, &bytes).await?;
                Ok(file)
            }
            None => {
                self.fetch(digest).await?;
                self.folder.open(digest).await
            }
        }
    }
}
