use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use sovereign_schemas::avro::{DecodeError, Reader};
use sovereign_schemas::{Cursor, EventLog, LogError, Position, RecordedEvent};

use super::block::{Flaw, Pool};
use super::container::{self, Container};
use super::{BLOCK_BYTES_MAX, Block, ContentCheck, FileInfo, HEADER_BYTES_MAX, SYNC_BYTES};
use crate::{Difference, ReplayError, What};

/// A count and a length, each a variable-length integer of at most ten bytes.
const FRAME_BYTES_MAX: u64 = 20;

/// Where a block starts, and with which position.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    pub(super) first: Position,
    pub(super) offset: u64,
}

/// A recorded file as a log. Memory is bounded by one block ([`BLOCK_BYTES_MAX`]) and 16 bytes for
/// each block passed; no length in the file is trusted. Reads block the calling thread for the
/// time of a disk read.
///
/// Reading finds whatever is no event, is missing or is left over. What was changed inside an
/// event is found by [`crate::verify`] and [`crate::replay`], which check the chain.
#[derive(Debug)]
pub struct FileLog {
    path: PathBuf,
    file: BufReader<File>,
    /// Where `file` stands.
    at: u64,
    pub(super) length: u64,
    pub(super) container: Container,
    /// Starts of the blocks that are known, in order; the last one is that of the block after
    /// those that were passed.
    pub(super) marks: Vec<Mark>,
    block: Option<Block>,
    pool: Pool,
    /// The damage met last, and the good position before it.
    flaw: Option<(Position, Flaw)>,
}

struct Frame {
    count: u64,
    bytes: u64,
    /// Offset of the block's first record.
    offset: u64,
}

impl FileLog {
    /// Opens a recorded file.
    ///
    /// # Errors
    /// [`ReplayError::File`] if it cannot be read; [`ReplayError::Difference`] at position 0 if its
    /// header is not that of a recorded file.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, ReplayError> {
        let path = path.as_ref().to_owned();
        let failed = |source| ReplayError::File {
            path: path.clone(),
            source,
        };
        let file = File::open(&path).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        let mut file = BufReader::with_capacity(64 << 10, file);
        let mut header = Vec::new();
        file.by_ref()
            .take(HEADER_BYTES_MAX as u64)
            .read_to_end(&mut header)
            .map_err(failed)?;
        let container = container::decode(&header).map_err(|error| {
            let expected = "the header of a recorded file";
            Difference::new(
                Position::START,
                What::Malformed,
                expected,
                error.to_string(),
            )
        })?;
        let start = Mark {
            first: container.info.first,
            offset: container.length as u64,
        };
        let at = header.len() as u64;
        Ok(Self {
            path,
            file,
            at,
            length,
            container,
            marks: vec![start],
            block: None,
            pool: Pool::default(),
            flaw: None,
        })
    }

    /// What the file says about itself.
    #[must_use]
    pub const fn info(&self) -> FileInfo {
        self.container.info
    }

    /// The schemas of the payloads, as a JSON list of fingerprint, event type, version and schema.
    #[must_use]
    pub fn schemas(&self) -> &str {
        &self.container.schemas
    }

    pub(crate) fn content_check(&self) -> ContentCheck {
        ContentCheck {
            path: self.path.clone(),
            expected: self.container.content,
            digits_at: self.container.content_at,
        }
    }

    fn seek(&mut self, offset: u64) -> io::Result<()> {
        if offset != self.at {
            // keeps what is buffered if the target lies there
            let by = offset.cast_signed() - self.at.cast_signed();
            self.file.seek_relative(by)?;
            self.at = offset;
        }
        Ok(())
    }

    /// Up to `count` bytes; fewer at the end of the file.
    fn take(&mut self, count: u64, out: &mut Vec<u8>) -> io::Result<()> {
        out.clear();
        self.at += (&mut self.file).take(count).read_to_end(out)? as u64;
        Ok(())
    }

    /// The frame of the block at `mark`; `None` at the end of the file.
    fn frame(&mut self, mark: Mark) -> Result<Option<Frame>, LogError> {
        let before = Position(mark.first.0 - 1);
        let malformed = |cause: String| LogError::Malformed {
            after: before,
            cause,
        };
        self.seek(mark.offset).map_err(|e| self.broken(&e))?;
        let mut bytes = Vec::new();
        self.take(FRAME_BYTES_MAX, &mut bytes)
            .map_err(|e| self.broken(&e))?;
        if bytes.is_empty() {
            return Ok(None);
        }
        let mut input = Reader::new(&bytes);
        let mut length = || {
            let value = input.long()?;
            u64::try_from(value).map_err(|_| DecodeError::Length {
                at: 0,
                length: value,
            })
        };
        let (count, size) = length()
            .and_then(|count| Ok((count, length()?)))
            .map_err(|error| malformed(format!("block header: {error}")))?;
        if count == 0 || size > BLOCK_BYTES_MAX as u64 {
            return Err(malformed(format!(
                "block of {count} events in {size} bytes"
            )));
        }
        if before >= self.container.info.last {
            return Err(malformed("bytes after the last event".to_owned()));
        }
        Ok(Some(Frame {
            count,
            bytes: size,
            offset: mark.offset + input.at() as u64,
        }))
    }

    fn broken(&self, error: &io::Error) -> LogError {
        LogError::Unreachable(format!("recorded file {}: {error}", self.path.display()))
    }

    /// Loads the block of which `mark` is the start; `None` at the end of the file.
    fn load(&mut self, mark: Mark) -> Result<Option<Block>, LogError> {
        let Some(frame) = self.frame(mark)? else {
            return Ok(None);
        };
        self.seek(frame.offset).map_err(|e| self.broken(&e))?;
        let left = self.length.saturating_sub(frame.offset);
        let (mut bytes, slots) = self.pool.take();
        bytes.reserve(frame.bytes.min(left) as usize);
        self.take(frame.bytes, &mut bytes)
            .map_err(|e| self.broken(&e))?;
        let mut sync = Vec::with_capacity(SYNC_BYTES);
        self.take(SYNC_BYTES as u64, &mut sync)
            .map_err(|e| self.broken(&e))?;
        let damage = if sync.len() < SYNC_BYTES {
            Some(Flaw::Malformed("the file ends inside a block".to_owned()))
        } else if sync != self.container.sync {
            Some(Flaw::Malformed("wrong sync marker".to_owned()))
        } else {
            None
        };
        let last = self.container.info.last;
        Ok(Some(Block::index(
            &self.pool,
            (bytes, slots),
            frame.count,
            mark.first,
            last,
            damage,
        )))
    }

    /// Makes the next mark known, without reading the block of the last one.
    fn pass(&mut self, mark: Mark) -> Result<bool, LogError> {
        let Some(frame) = self.frame(mark)? else {
            return Ok(false);
        };
        let offset = frame.offset + frame.bytes + SYNC_BYTES as u64;
        let first = mark.first.0.checked_add(frame.count).map(Position);
        let last = self.container.info.last;
        match first {
            Some(first) if first <= last.next() && self.sync_at(offset - SYNC_BYTES as u64)? => {
                self.marks.push(Mark { first, offset });
                Ok(true)
            }
            // load the block to see what is wrong with it
            _ => Ok(false),
        }
    }

    fn sync_at(&mut self, offset: u64) -> Result<bool, LogError> {
        let mut sync = Vec::with_capacity(SYNC_BYTES);
        self.seek(offset).map_err(|e| self.broken(&e))?;
        self.take(SYNC_BYTES as u64, &mut sync)
            .map_err(|e| self.broken(&e))?;
        Ok(sync == self.container.sync)
    }

    fn holds(&self, position: Position) -> bool {
        let slots = self.block.as_ref().map_or(&[][..], Block::slots);
        match (slots.first(), slots.last()) {
            (Some(first), Some(last)) => (first.position..=last.position).contains(&position.0),
            _ => false,
        }
    }

    /// Loads the block that holds `position`; `false` at the end of the log.
    fn find(&mut self, position: Position) -> Result<bool, LogError> {
        let FileInfo { first, last, .. } = self.container.info;
        if position < first {
            return Err(LogError::Gap {
                expected: position,
                found: first,
            });
        }
        if position > last.next() {
            return Ok(false);
        }
        if self.holds(position) {
            return Ok(true);
        }
        if let Some((after, flaw)) = self.flaw.as_ref().filter(|(at, _)| at.next() == position) {
            return Err(flaw.clone().after(*after));
        }
        loop {
            let index = self.marks.partition_point(|m| m.first <= position) - 1;
            let mark = self.marks[index];
            // blocks between here and there are passed; a damaged one ends that
            let newest = index + 1 == self.marks.len();
            if newest && mark.first < position && self.pass(mark)? {
                continue;
            }
            let Some(block) = self.load(mark)? else {
                let end = Position(mark.first.0 - 1);
                if end < last {
                    return Err(LogError::Gap {
                        expected: mark.first,
                        found: last,
                    });
                }
                return Ok(false);
            };
            let good = Position(mark.first.0 + block.slots().len() as u64);
            let flaw = block.flaw();
            self.block = Some(block);
            self.flaw = flaw.clone().map(|flaw| (Position(good.0 - 1), flaw));
            if newest && flaw.is_none() {
                let offset = self.at;
                self.marks.push(Mark {
                    first: good,
                    offset,
                });
            }
            if self.holds(position) {
                return Ok(true);
            }
            if let Some(flaw) = flaw {
                return Err(flaw.after(Position(good.0 - 1)));
            }
            if !newest {
                // the block was passed with a count that is not its own
                let cause = "block count differs from its events".to_owned();
                return Err(LogError::Malformed {
                    after: Position(good.0 - 1),
                    cause,
                });
            }
        }
    }

    /// Hands out the block that holds `position`, with the index of that event.
    pub(crate) fn block(&mut self, position: Position) -> Result<Option<(Block, usize)>, LogError> {
        if !self.find(position)? {
            return Ok(None);
        }
        Ok(self.block.take().and_then(|block| {
            let first = block.slots().first()?.position;
            Some((block, (position.0 - first) as usize))
        }))
    }

    fn read_block(
        &mut self,
        after: Position,
        limit: usize,
        found: &mut Vec<RecordedEvent>,
    ) -> Result<(), LogError> {
        while found.len() < limit {
            let next = found.last().map_or(after, RecordedEvent::position).next();
            if !self.find(next)? {
                return Ok(());
            }
            let Some(block) = &self.block else {
                return Ok(());
            };
            let first = block.slots().first().map_or(next.0, |s| s.position);
            let start = (next.0 - first) as usize;
            for slot in block.slots()[start..].iter().take(limit - found.len()) {
                let event = block
                    .event(slot)
                    .map_err(|error| LogError::malformed(Position(slot.position - 1), &error))?;
                found.push(event);
            }
        }
        Ok(())
    }
}

#[async_trait]
impl EventLog for FileLog {
    async fn read(
        &mut self,
        after: Cursor,
        limit: usize,
    ) -> Result<(Vec<RecordedEvent>, Cursor), LogError> {
        let mut found = Vec::new();
        if after.position > self.container.info.last {
            return Ok((found, after));
        }
        let read = self.read_block(after.position, limit.max(1), &mut found);
        match found.last() {
            // the good events come first; the next read meets the damage again
            Some(last) => {
                let cursor = last.position().into();
                Ok((found, cursor))
            }
            None => read.map(|()| (found, after)),
        }
    }
}
