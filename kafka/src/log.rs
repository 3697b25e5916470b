use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use sovereign_schemas::{Cursor, Departments, EventLog, LogError, Position, RecordedEvent, chain};

use crate::client::{Error, KafkaOptions};
use crate::offsets::{self, Bounds};
use crate::partitions::{IDLE_MAX, PartitionReader, Polled};
use crate::record::{self, Decoded, SchemaIdSeen};
use crate::telemetry::Poison;

/// How long a missing position may be waited for: a transaction's markers reach its partitions one
/// after the other, so for a moment a later event can be visible before an earlier one.
const GAP_PATIENCE: Duration = Duration::from_secs(2);

/// The department topics as one log, merged by position.
///
/// Each partition's positions grow, so the next event is the head of one of them: one head a
/// partition is decoded at a time, everything else waits in librdkafka's bounded queues. Reading
/// on at the last cursor is free; another cursor is searched for.
///
/// Besides density this checks that positions only grow within a partition (I4) and that no
/// position is there twice.
#[derive(Clone)]
pub struct KafkaLog {
    inner: Arc<Mutex<Inner>>,
}

impl std::fmt::Debug for KafkaLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaLog").finish_non_exhaustive()
    }
}

struct Inner {
    options: KafkaOptions,
    departments: Departments,
    open: Option<Open>,
    schema_ids: BTreeSet<SchemaIdSeen>,
}

/// One run over the partitions from some cursor on.
struct Open {
    reader: PartitionReader,
    /// Where the run began; partitions may begin before it.
    sought: Position,
    lanes: Vec<Lane>,
    cursor: Position,
    bounds: Vec<Bounds>,
    failed: Option<LogError>,
}

#[derive(Default)]
struct Lane {
    head: Option<Decoded>,
    ended: bool,
    next_offset: i64,
    last: Position,
}

impl KafkaLog {
    /// A log over these departments' topics. Connects at the first read.
    #[must_use]
    pub fn new(options: KafkaOptions, departments: Departments) -> Self {
        let inner = Inner {
            options,
            departments,
            open: None,
            schema_ids: BTreeSet::new(),
        };
        Self {
            inner: Arc::new(Mutex::new(inner)),
        }
    }

    /// The schema ids of all events read so far, for [`crate::verify_schema_ids`].
    #[must_use]
    pub fn schema_ids(&self) -> BTreeSet<SchemaIdSeen> {
        self.inner
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .schema_ids
            .clone()
    }

    /// The last committed position on the topics; 0 if they are empty.
    ///
    /// # Errors
    /// [`Error`] if the brokers cannot be reached, or refuse.
    pub async fn end(&self) -> Result<Position, Error> {
        let inner = Arc::clone(&self.inner);
        let end = move || {
            let (options, departments) = {
                let inner = inner.lock().unwrap_or_else(PoisonError::into_inner);
                (inner.options.clone(), inner.departments.clone())
            };
            let reader = open_reader(&options, &departments)?;
            let all: Vec<usize> = (0..reader.partitions.len()).collect();
            let (tails, _) =
                offsets::tails(&reader, &all, |message| record::position(message).ok())?;
            Ok(tails.into_iter().flatten().max().unwrap_or(Position::START))
        };
        let joined = tokio::task::spawn_blocking(end).await;
        joined.map_err(|e| Error::internal("read topics", e))?
    }
}

#[async_trait]
impl EventLog for KafkaLog {
    async fn read(
        &mut self,
        after: Cursor,
        limit: usize,
    ) -> Result<(Vec<RecordedEvent>, Cursor), LogError> {
        let inner = Arc::clone(&self.inner);
        let read = move || {
            let mut inner = inner.lock().unwrap_or_else(PoisonError::into_inner);
            let events = inner.read(after.position, limit.max(1))?;
            let cursor = events.last().map_or(after, |event| event.position().into());
            Ok((events, cursor))
        };
        blocking(read).await
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LogError> + Send + 'static,
) -> Result<T, LogError> {
    let joined = tokio::task::spawn_blocking(work).await;
    joined.map_err(|e| LogError::Internal(e.to_string()))?
}

fn log_error(error: &Error) -> LogError {
    match error {
        Error::Unreachable { .. }
        | Error::Auth { .. }
        | Error::Tls { .. }
        | Error::Rights { .. }
        | Error::TopicMissing(_) => LogError::Unreachable(error.to_string()),
        other => LogError::Internal(other.to_string()),
    }
}

fn open_reader(
    options: &KafkaOptions,
    departments: &Departments,
) -> Result<PartitionReader, Error> {
    let topics: Vec<String> = departments
        .iter()
        .map(|d| options.topic(&d.topic()))
        .collect();
    PartitionReader::open(options, &topics, 1 << 20)
}

impl Inner {
    fn read(&mut self, after: Position, limit: usize) -> Result<Vec<RecordedEvent>, LogError> {
        let continues = self.open.as_ref().is_some_and(|open| open.cursor == after);
        if !continues {
            self.seek(after).map_err(|e| log_error(&e))?;
        }
        let Some(mut open) = self.open.take() else {
            return Ok(Vec::new());
        };
        if let Some(failed) = open.failed.take() {
            return Err(failed);
        }
        let mut events = Vec::new();
        let result = open.fill(limit, &mut events, &mut self.schema_ids);
        match result {
            Ok(()) => self.open = Some(open),
            // the good events go out first, the failure with the next read
            Err(failed) if !events.is_empty() => {
                open.failed = Some(failed);
                self.open = Some(open);
            }
            Err(failed) => return Err(failed),
        }
        Ok(events)
    }

    fn seek(&mut self, after: Position) -> Result<(), Error> {
        let reader = match self.open.take() {
            Some(open) => open.reader,
            None => open_reader(&self.options, &self.departments)?,
        };
        let bounds = offsets::bounds(&reader.consumer, &reader.partitions)?;
        let starts = offsets::at_position(&reader, after.next())?;
        let lanes = starts
            .iter()
            .map(|&offset| Lane {
                next_offset: offset,
                ..Lane::default()
            })
            .collect();
        let open = Open {
            reader,
            lanes,
            sought: after,
            cursor: after,
            bounds,
            failed: None,
        };
        open.assign()?;
        self.open = Some(open);
        Ok(())
    }
}

impl Open {
    fn assign(&self) -> Result<(), Error> {
        let starts: Vec<(usize, i64)> = self
            .lanes
            .iter()
            .enumerate()
            .map(|(i, lane)| (i, lane.next_offset))
            .collect();
        self.reader.assign(&starts)
    }

    /// Reads all partitions again from where they stand, so that each tells its end anew.
    fn look_again(&mut self) -> Result<(), Error> {
        for lane in &mut self.lanes {
            lane.ended = false;
        }
        self.assign()
    }

    fn fill(
        &mut self,
        limit: usize,
        events: &mut Vec<RecordedEvent>,
        schema_ids: &mut BTreeSet<SchemaIdSeen>,
    ) -> Result<(), LogError> {
        let mut heard = Instant::now();
        let mut gap: Option<(Instant, bool)> = None;
        while events.len() < limit {
            // mostly the next event is there, and its lane is the only one that has to be asked
            if let Some((index, decoded)) = self.take_next()? {
                let fingerprint = decoded.event.header.schema_fingerprint;
                let seen = SchemaIdSeen {
                    id: decoded.schema_id,
                    fingerprint,
                };
                // looking costs less than inserting what is there
                if !schema_ids.contains(&seen) {
                    schema_ids.insert(seen);
                }
                self.cursor = decoded.event.position();
                events.push(decoded.event);
                gap = None;
                if self.poll_lane(index)? {
                    heard = Instant::now();
                }
                continue;
            }
            if self.poll_lanes(false)? {
                heard = Instant::now();
                continue;
            }
            if self
                .lanes
                .iter()
                .any(|lane| lane.head.is_none() && !lane.ended)
            {
                if heard.elapsed() > IDLE_MAX {
                    return Err(log_error(&self.reader.silent()));
                }
                self.wait(Duration::from_millis(20))?;
                continue;
            }
            if self.poll_lanes(true)? {
                continue;
            }
            if !events.is_empty() {
                return Ok(());
            }
            let first = self
                .lanes
                .iter()
                .filter_map(|l| Some(l.head.as_ref()?.event.position()));
            let Some(found) = first.min() else {
                if self.at_end()? {
                    return Ok(());
                }
                continue;
            };
            let (since, again) = *gap.get_or_insert((Instant::now(), false));
            if since.elapsed() < GAP_PATIENCE {
                self.wait(Duration::from_millis(20))?;
            } else if again {
                return Err(LogError::Gap {
                    expected: self.cursor.next(),
                    found,
                });
            } else {
                gap = Some((since, true));
                self.look_again().map_err(|e| log_error(&e))?;
            }
        }
        Ok(())
    }

    fn wait(&self, timeout: Duration) -> Result<(), LogError> {
        self.reader.wait(timeout).map_err(|e| log_error(&e))
    }

    /// Whether nothing was committed since all partitions told their ends.
    fn at_end(&mut self) -> Result<bool, LogError> {
        let now = offsets::bounds(&self.reader.consumer, &self.reader.partitions);
        let now = now.map_err(|e| log_error(&e))?;
        if now == self.bounds {
            return Ok(true);
        }
        self.bounds = now;
        self.look_again().map_err(|e| log_error(&e))?;
        Ok(false)
    }

    /// Fills the heads that are empty, as far as records are there; whether anything came.
    /// Partitions that told their end are asked only if `ended_too`: asking costs.
    fn poll_lanes(&mut self, ended_too: bool) -> Result<bool, LogError> {
        let mut any = false;
        for index in 0..self.lanes.len() {
            let lane = &self.lanes[index];
            if lane.head.is_none() && (!lane.ended || ended_too) {
                any |= self.poll_lane(index)?;
            }
        }
        Ok(any)
    }

    /// Fills the empty head of one partition; whether anything came.
    fn poll_lane(&mut self, index: usize) -> Result<bool, LogError> {
        let lane = &mut self.lanes[index];
        match self.reader.poll(index).map_err(|e| log_error(&e))? {
            Polled::Nothing => Ok(false),
            Polled::End => {
                lane.ended = true;
                Ok(true)
            }
            Polled::Record(message) => {
                let decoded = record::decode(&message).map_err(|error| {
                    Poison { error: &error }.emit();
                    LogError::Malformed {
                        after: self.cursor,
                        cause: error.to_string(),
                    }
                })?;
                let position = decoded.event.position();
                if position <= lane.last {
                    let name = self.reader.partitions[index].to_string();
                    let order = chain::check_partition_order(&name, lane.last, position);
                    let cause = order.err().map_or_else(String::new, |e| e.to_string());
                    return Err(LogError::Malformed {
                        after: self.cursor,
                        cause,
                    });
                }
                lane.ended = false;
                lane.next_offset = rdkafka::Message::offset(&message) + 1;
                // out of a transaction that was open when the start was looked for
                let early = position <= self.sought;
                lane.last = position;
                if !early {
                    lane.head = Some(decoded);
                }
                Ok(true)
            }
        }
    }

    /// The event that must follow, and its partition, if one of the heads is it.
    fn take_next(&mut self) -> Result<Option<(usize, Decoded)>, LogError> {
        let expected = self.cursor.next();
        for (index, lane) in self.lanes.iter_mut().enumerate() {
            let Some(position) = lane.head.as_ref().map(|head| head.event.position()) else {
                continue;
            };
            if position == expected {
                return Ok(lane.head.take().map(|decoded| (index, decoded)));
            }
            if position < expected {
                let at = &self.reader.partitions[index];
                let cause = format!("position {position} is there again, on {at}");
                return Err(LogError::Malformed {
                    after: self.cursor,
                    cause,
                });
            }
        }
        Ok(None)
    }
}
