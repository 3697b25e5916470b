//! The digest over the whole file, which covers what the chain does not: trace contexts, counts,
//! sync markers and the metadata themselves.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sha2::{Digest as _, Sha256};
use sovereign_schemas::{Digest, Position};

use crate::{Difference, ReplayError, What};

const READ_BYTES: usize = 256 << 10;

/// A check that the file is as it was written. Dropping it ends a check that runs elsewhere.
#[derive(Debug)]
pub(crate) struct ContentCheck {
    pub(super) path: PathBuf,
    pub(super) expected: Digest,
    pub(super) digits_at: usize,
}

/// Ends the check when the one who asked for it goes away.
#[derive(Debug)]
pub(crate) struct Running {
    task: tokio::task::JoinHandle<Result<(), ReplayError>>,
    cancelled: Arc<AtomicBool>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }
}

impl Running {
    pub(crate) async fn join(mut self) -> Result<(), ReplayError> {
        match (&mut self.task).await {
            Ok(result) => result,
            Err(error) => Err(ReplayError::Internal(error.to_string())),
        }
    }
}

impl ContentCheck {
    /// Reads the file on a thread of its own.
    pub(crate) fn start(self) -> Running {
        let cancelled = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&cancelled);
        Running {
            task: tokio::task::spawn_blocking(move || self.run(&stop)),
            cancelled,
        }
    }

    fn run(&self, cancelled: &AtomicBool) -> Result<(), ReplayError> {
        let failed = |source| ReplayError::File {
            path: self.path.clone(),
            source,
        };
        let found = self.digest(cancelled).map_err(failed)?;
        if found == self.expected {
            return Ok(());
        }
        Err(Difference::new(
            Position::START,
            What::Content,
            format!("file with sha-256 {}", self.expected),
            found.to_string(),
        )
        .into())
    }

    fn digest(&self, cancelled: &AtomicBool) -> io::Result<Digest> {
        let mut file = File::open(&self.path)?;
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; READ_BYTES];
        let mut at = 0;
        while !cancelled.load(Ordering::Relaxed) {
            let count = match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let digits = self.digits_at..self.digits_at + 64;
            for index in digits.start.max(at)..digits.end.min(at + count) {
                buffer[index - at] = b'0';
            }
            hasher.update(&buffer[..count]);
            at += count;
        }
        Ok(Digest(hasher.finalize().into()))
    }
}
