use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use sovereign_schemas::chain::{self, Head};
use sovereign_schemas::{Digest, RecordedEvent, avro};

use super::{BLOCK_BYTES_TARGET, FileInfo, SYNC_BYTES, container};
use crate::{Difference, ReplayError, What};

/// Writes a recorded file under a temporary name beside its own; it appears complete or not at all.
#[derive(Debug)]
pub struct FileWriter {
    path: PathBuf,
    partial: PathBuf,
    file: File,
    info: FileInfo,
    head: Head,
    content_at: usize,
    sync: [u8; SYNC_BYTES],
    hasher: Sha256,
    block: Vec<u8>,
    count: i64,
    frame: Vec<u8>,
    finished: bool,
}

/// Appends what follows the header in a record.
pub(super) fn put_rest(out: &mut Vec<u8>, event: &RecordedEvent) {
    avro::put_bytes(out, &event.payload);
    out.extend_from_slice(&event.hash.0);
    match &event.traceparent {
        None => avro::put_long(out, 0),
        Some(traceparent) => {
            avro::put_long(out, 1);
            avro::put_bytes(out, traceparent.as_bytes());
        }
    }
}

impl FileWriter {
    /// Starts the file at `path`; `info` says what it will hold.
    ///
    /// # Errors
    /// [`ReplayError::File`] if nothing can be written there.
    pub fn create(path: &Path, info: FileInfo) -> Result<Self, ReplayError> {
        let failed = |source| ReplayError::File {
            path: path.to_owned(),
            source,
        };
        let Some(name) = path.file_name() else {
            return Err(failed(io::Error::from(io::ErrorKind::IsADirectory)));
        };
        if path.is_dir() {
            return Err(failed(io::Error::from(io::ErrorKind::IsADirectory)));
        }
        let mut partial = OsString::from(".");
        partial.push(name);
        partial.push(format!(".{}.partial", std::process::id()));
        let partial = path.with_file_name(partial);
        let mut file = File::create(&partial).map_err(failed)?;
        let (header, content_at, sync) = container::encode(&info);
        let mut hasher = Sha256::new();
        hasher.update(&header);
        if let Err(source) = file.write_all(&header) {
            // a half-written file is of no use to anybody
            fs::remove_file(&partial).ok();
            return Err(failed(source));
        }
        Ok(Self {
            path: path.to_owned(),
            partial,
            file,
            info,
            head: Head {
                position: sovereign_schemas::Position(info.first.0.saturating_sub(1)),
                hash: info.previous_hash,
            },
            content_at,
            sync,
            hasher,
            block: Vec::with_capacity(2 * BLOCK_BYTES_TARGET),
            count: 0,
            frame: Vec::new(),
            finished: false,
        })
    }

    /// Adds the next event.
    ///
    /// # Errors
    /// [`ReplayError::Difference`] if it does not follow the one before: a damaged log is not
    /// exported. [`ReplayError::File`] if it cannot be written.
    pub fn push(&mut self, event: &RecordedEvent) -> Result<(), ReplayError> {
        let expected = self.head.position.next();
        if event.position() != expected || expected > self.info.last {
            return Err(Difference::new(
                expected.min(self.info.last.next()),
                What::Missing,
                format!("position {expected}, at most {}", self.info.last),
                format!("position {}", event.position()),
            )
            .into());
        }
        let start = self.block.len();
        event.header.encode(&mut self.block);
        let hash = chain::hash(&self.head.hash, &self.block[start..], &event.payload);
        if hash != event.hash {
            self.block.truncate(start);
            return Err(Difference::new(
                expected,
                What::Hash,
                hash.to_string(),
                event.hash.to_string(),
            )
            .into());
        }
        put_rest(&mut self.block, event);
        self.count += 1;
        self.head = Head {
            position: expected,
            hash,
        };
        if self.block.len() >= BLOCK_BYTES_TARGET {
            self.flush_block()
        } else {
            Ok(())
        }
    }

    fn failed(&self, source: io::Error) -> ReplayError {
        ReplayError::File {
            path: self.path.clone(),
            source,
        }
    }

    fn flush_block(&mut self) -> Result<(), ReplayError> {
        if self.count == 0 {
            return Ok(());
        }
        self.frame.clear();
        avro::put_long(&mut self.frame, self.count);
        avro::put_long(&mut self.frame, self.block.len() as i64);
        for part in [&self.frame[..], &self.block, &self.sync] {
            self.hasher.update(part);
            self.file
                .write_all(part)
                .map_err(|source| ReplayError::File {
                    path: self.path.clone(),
                    source,
                })?;
        }
        self.block.clear();
        self.count = 0;
        Ok(())
    }

    /// Makes the file durable and lets it appear under its name, in place of one that may be there.
    ///
    /// # Errors
    /// [`ReplayError::Difference`] if events are missing at the end or the last hash is not the one
    /// that was announced; [`ReplayError::File`] if it cannot be written.
    pub fn finish(mut self) -> Result<FileInfo, ReplayError> {
        if self.head.position != self.info.last {
            let missing = self.head.position.next();
            return Err(Difference::new(
                missing,
                What::Missing,
                format!("positions up to {}", self.info.last),
                "the end of the log",
            )
            .into());
        }
        if self.head.hash != self.info.last_hash {
            let (expected, found) = (self.info.last_hash, self.head.hash);
            let (expected, found) = (expected.to_string(), found.to_string());
            return Err(Difference::new(self.info.last, What::Head, expected, found).into());
        }
        self.flush_block()?;
        let content = Digest(std::mem::take(&mut self.hasher).finalize().into());
        self.publish(content)
            .map_err(|source| self.failed(source))?;
        self.finished = true;
        Ok(self.info)
    }

    fn publish(&mut self, content: Digest) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(self.content_at as u64))?;
        self.file.write_all(content.to_string().as_bytes())?;
        self.file.sync_all()?;
        fs::rename(&self.partial, &self.path)?;
        // the name is durable only with its folder
        let folder = self.path.parent().filter(|p| !p.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    }
}

impl Drop for FileWriter {
    fn drop(&mut self) {
        if !self.finished {
            // nothing can be done about a failure here, and the next attempt reuses the name
            fs::remove_file(&self.partial).ok();
        }
    }
}
