use sovereign_schemas::{
    AggregateType, Digest, EventHeader, EventLog, LogError, MemoryLog, Position, RecordedEvent,
};

use crate::FileLog;
use crate::file::{Block, Slot};

/// Where events come from. A file is read block by block without copying its events; any other log
/// through its port. The results are the same.
pub enum Source<'a> {
    /// Any log.
    Log(&'a mut dyn EventLog),
    /// A recorded file.
    File(&'a mut FileLog),
}

impl std::fmt::Debug for Source<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Log(_) => f.write_str("Log"),
            Self::File(file) => f.debug_tuple("File").field(&file.info()).finish(),
        }
    }
}

impl<'a> From<&'a mut dyn EventLog> for Source<'a> {
    fn from(log: &'a mut dyn EventLog) -> Self {
        Self::Log(log)
    }
}

impl<'a> From<&'a mut FileLog> for Source<'a> {
    fn from(file: &'a mut FileLog) -> Self {
        Self::File(file)
    }
}

impl<'a> From<&'a mut MemoryLog> for Source<'a> {
    fn from(log: &'a mut MemoryLog) -> Self {
        Self::Log(log)
    }
}

impl Source<'_> {
    /// The next events after `after`, at most `limit` and none beyond `last`; `None` at the end.
    pub(crate) async fn next(
        &mut self,
        after: Position,
        limit: usize,
        last: Option<Position>,
    ) -> Result<Option<Chunk>, LogError> {
        let left = last.map_or(usize::MAX, |last| {
            usize::try_from(last.0.saturating_sub(after.0)).unwrap_or(usize::MAX)
        });
        if left == 0 {
            return Ok(None);
        }
        match self {
            Self::Log(log) => {
                let (mut events, _) = log.read(after.into(), limit.min(left)).await?;
                events.truncate(left);
                Ok(if events.is_empty() {
                    None
                } else {
                    Some(Chunk::Events(events))
                })
            }
            Self::File(file) => Ok(file.block(after.next())?.map(|(block, from)| {
                let to = block.slots().len().min(from.saturating_add(left));
                Chunk::Block { block, from, to }
            })),
        }
    }
}

/// Some consecutive events.
#[derive(Debug)]
pub(crate) enum Chunk {
    Events(Vec<RecordedEvent>),
    Block {
        block: Block,
        from: usize,
        to: usize,
    },
}

/// The canonical header of an event, as it lies in the file or yet to be encoded.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Header<'a> {
    Bytes(&'a [u8]),
    Decoded(&'a EventHeader),
}

impl<'a> Header<'a> {
    /// The bytes, encoded into `scratch` if need be.
    pub(crate) fn bytes<'b>(&self, scratch: &'b mut Vec<u8>) -> &'b [u8]
    where
        'a: 'b,
    {
        match *self {
            Self::Bytes(bytes) => bytes,
            Self::Decoded(header) => {
                scratch.clear();
                header.encode(scratch);
                scratch
            }
        }
    }
}

/// One event of a chunk, borrowed.
#[derive(Debug)]
pub(crate) struct View<'a> {
    pub(crate) position: Position,
    pub(crate) sequence: u64,
    /// UTF-8, as are the next two; looked at as bytes they need no second check.
    pub(crate) aggregate_type: &'a [u8],
    pub(crate) aggregate_id: &'a [u8],
    pub(crate) event_type: &'a [u8],
    pub(crate) event_version: u16,
    pub(crate) schema_fingerprint: [u8; 8],
    pub(crate) header: Header<'a>,
    pub(crate) payload: &'a [u8],
    pub(crate) hash: Digest,
}

impl Chunk {
    #[inline]
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Events(events) => events.len(),
            Self::Block { from, to, .. } => to - from,
        }
    }

    #[inline]
    fn slot(block: &Block, from: usize, index: usize) -> &Slot {
        &block.slots()[from + index]
    }

    #[inline]
    pub(crate) fn position(&self, index: usize) -> Position {
        match self {
            Self::Events(events) => events[index].position(),
            Self::Block { block, from, .. } => Position(Self::slot(block, *from, index).position),
        }
    }

    #[inline]
    pub(crate) fn hash(&self, index: usize) -> Digest {
        match self {
            Self::Events(events) => events[index].hash,
            Self::Block { block, from, .. } => block.hash(Self::slot(block, *from, index)),
        }
    }

    #[inline]
    pub(crate) fn header(&self, index: usize) -> Header<'_> {
        match self {
            Self::Events(events) => Header::Decoded(&events[index].header),
            Self::Block { block, from, .. } => {
                Header::Bytes(block.header(Self::slot(block, *from, index)))
            }
        }
    }

    #[inline]
    pub(crate) fn payload(&self, index: usize) -> &[u8] {
        match self {
            Self::Events(events) => &events[index].payload,
            Self::Block { block, from, .. } => block.payload(Self::slot(block, *from, index)),
        }
    }

    /// Type and id of the aggregate.
    #[inline]
    pub(crate) fn aggregate(&self, index: usize) -> (&[u8], &[u8]) {
        match self {
            Self::Events(events) => {
                let header = &events[index].header;
                (
                    header.aggregate_type.as_bytes(),
                    header.aggregate_id.as_bytes(),
                )
            }
            Self::Block { block, from, .. } => {
                let slot = Self::slot(block, *from, index);
                (block.aggregate_type(slot), block.aggregate_id(slot))
            }
        }
    }

    #[inline]
    pub(crate) fn view(&self, index: usize) -> View<'_> {
        match self {
            Self::Events(events) => {
                let event = &events[index];
                View {
                    position: event.header.position,
                    sequence: event.header.sequence,
                    aggregate_type: event.header.aggregate_type.as_bytes(),
                    aggregate_id: event.header.aggregate_id.as_bytes(),
                    event_type: event.header.event_type.as_bytes(),
                    event_version: event.header.event_version,
                    schema_fingerprint: event.header.schema_fingerprint,
                    header: Header::Decoded(&event.header),
                    payload: &event.payload,
                    hash: event.hash,
                }
            }
            Self::Block { block, from, .. } => {
                let slot = Self::slot(block, *from, index);
                View {
                    position: Position(slot.position),
                    sequence: slot.sequence,
                    aggregate_type: block.aggregate_type(slot),
                    aggregate_id: block.aggregate_id(slot),
                    event_type: block.event_type(slot),
                    event_version: slot.event_version,
                    schema_fingerprint: block.fingerprint(slot),
                    header: Header::Bytes(block.header(slot)),
                    payload: block.payload(slot),
                    hash: block.hash(slot),
                }
            }
        }
    }
}

/// The aggregate type of a name, without the cost of an error.
pub(crate) fn aggregate_type(name: &[u8]) -> Option<AggregateType> {
    AggregateType::ALL
        .iter()
        .copied()
        .find(|t| t.as_str().as_bytes() == name)
}
