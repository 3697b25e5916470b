//! One subscription to events: pushed from the ledger's tail through a bounded queue, until the
//! client goes, falls behind, may no longer, or the engine stops.

use std::sync::Arc;
use std::time::Duration;

use sovereign_schemas::{ErrorCode, LogError, Position, Problem, RecordedEvent, Tail};
use tokio::sync::mpsc::error::SendTimeoutError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, timeout};

use crate::access::{ActsAs, Caller};
use crate::http::cut::Cut;
use crate::http::problem::HttpProblem;
use crate::http::state::Shared;
use crate::{EventFilter, Texts};

/// Events taken from the tail at once.
const EVENTS_MAX: usize = 256;
/// Events are sent in chunks of about so many bytes when many are there.
const CHUNK_BYTES: usize = 64 << 10;
/// Milliseconds after which one subscription too many may come again.
const SUBSCRIPTION_RETRY_MS: u64 = 5_000;
/// Milliseconds for a client to read why its subscription ends before its connection is cut.
const LINGER_MS: u64 = 5_000;

/// One event on its way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) position: Position,
    /// One JSON object on one line.
    pub(crate) json: String,
}

/// Events, in order.
#[derive(Debug, Default)]
pub(crate) struct Chunk {
    pub(crate) events: Vec<Sent>,
    /// The room that they take until they are on their way.
    _room: Option<OwnedSemaphorePermit>,
}

/// What a subscriber gets.
#[derive(Debug)]
pub(crate) enum Item {
    /// What came.
    Events(Chunk),
    /// Nothing came; everything up to here was looked at.
    Beat(Position),
    /// The last thing: why it ends, and how far it came.
    End(Box<Problem>, Position),
}

/// Which events somebody asked for.
#[derive(Debug, Clone)]
pub(crate) enum Which {
    /// Those that pass a filter.
    Passing(EventFilter),
    /// Those that tell an agent what became of what it asked for.
    Decisions(ActsAs),
}

impl Which {
    /// As [`crate::EventSource::page`].
    pub(crate) async fn page(
        &self,
        shared: &Shared,
        after: Position,
        limit: usize,
    ) -> Result<(Vec<RecordedEvent>, Position), Problem> {
        let services = &shared.services;
        match self {
            Self::Passing(filter) => services.events.page(after, limit, filter).await,
            Self::Decisions(acts) => services.agents.decisions(acts.agent(), after, limit).await,
        }
    }

    async fn of(
        &self,
        shared: &Shared,
        mut events: Vec<Arc<RecordedEvent>>,
    ) -> Result<Vec<Arc<RecordedEvent>>, Problem> {
        match self {
            Self::Passing(filter) => {
                events.retain(|event| filter.passes(event));
                Ok(events)
            }
            Self::Decisions(acts) => {
                let agents = &shared.services.agents;
                agents.of_interest(acts.agent(), events).await
            }
        }
    }
}

/// What somebody asked for.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) caller: Caller,
    pub(crate) after: Position,
    pub(crate) which: Which,
    pub(crate) texts: Texts,
}

/// Starts a subscription.
///
/// # Errors
/// `busy` if there are too many.
pub(crate) fn subscribe(
    shared: &Shared,
    wanted: Wanted,
    cut: Cut,
) -> Result<mpsc::Receiver<Item>, HttpProblem> {
    let Ok(permit) = Arc::clone(&shared.subscriptions).try_acquire_owned() else {
        let problem = Problem::new(ErrorCode::Busy, "too many subscriptions are open")
            .retry_after_ms(SUBSCRIPTION_RETRY_MS);
        return Err(problem.into());
    };
    let chunks_max = shared.options.subscription_chunks_max;
    // one place more, for the last item: it is kept free from the start
    let (items, receiver) = mpsc::channel(chunks_max + 1);
    let room = u32::try_from(chunks_max * CHUNK_BYTES).unwrap_or(u32::MAX);
    let feed = Feed {
        tail: shared.services.events.tail(),
        after: wanted.after,
        told: Instant::now(),
        checked: Instant::now(),
        shared: shared.clone(),
        wanted,
        items,
        room: (Arc::new(Semaphore::new(room as usize)), room),
    };
    tokio::spawn(feed.run(cut, permit));
    Ok(receiver)
}

/// Why a subscription ends.
enum Ended {
    /// There is nobody to tell.
    Gone,
    Because(Problem),
}

struct Feed {
    shared: Shared,
    wanted: Wanted,
    tail: Box<dyn Tail>,
    /// Everything up to here was handed over, or does not pass the filter.
    after: Position,
    /// When something was sent last.
    told: Instant,
    /// When it was last looked whether the caller still may.
    checked: Instant,
    items: mpsc::Sender<Item>,
    /// Bytes that may wait for the client, and how many that are in all. An event can be larger: it
    /// then waits alone.
    room: (Arc<Semaphore>, u32),
}

#[cfg(test)]
impl From<Sent> for Chunk {
    fn from(event: Sent) -> Self {
        Self {
            events: vec![event],
            _room: None,
        }
    }
}

impl Feed {
    async fn run(mut self, cut: Cut, permit: OwnedSemaphorePermit) {
        let Ok(last) = self.items.clone().reserve_owned().await else {
            return;
        };
        metrics::gauge!("sovereign_subscriptions").increment(1.0);
        if let Ended::Because(problem) = self.follow().await {
            tracing::debug!(code = %problem.code, after = %self.after, "subscription ends");
            last.send(Item::End(Box::new(problem), self.after));
            let read = timeout(Duration::from_millis(LINGER_MS), self.items.closed());
            if read.await.is_err() {
                cut.make();
            }
        }
        metrics::gauge!("sovereign_subscriptions").decrement(1.0);
        drop(permit);
    }

    /// Goes on until it ends.
    async fn follow(&mut self) -> Ended {
        let beat = Duration::from_millis(self.shared.options.heartbeat_ms);
        let stopping = self.shared.stopping.clone();
        // a sign at once: the client knows that it is connected, and from where on
        if let Err(ended) = self.send(Item::Beat(self.after)).await {
            return ended;
        }
        loop {
            let wait = beat.saturating_sub(self.told.elapsed());
            let found = tokio::select! {
                () = stopping.cancelled() => return stopped(),
                () = self.items.closed() => return Ended::Gone,
                found = self.tail.next(self.after, EVENTS_MAX, wait) => found,
            };
            let handed = match found {
                Ok(events) => self.hand_over(events).await,
                Err(error) => return Ended::Because(of_log(&error)),
            };
            if let Err(ended) = handed {
                return ended;
            }
            if self.told.elapsed() >= beat
                && let Err(ended) = self.send(Item::Beat(self.after)).await
            {
                return ended;
            }
            if self.checked.elapsed() >= beat {
                self.checked = Instant::now();
                if !self.wanted.caller.still_holds(&self.shared) {
                    let problem = Problem::new(
                        ErrorCode::Unauthorized,
                        "the token or session of the subscription has ended",
                    );
                    return Ended::Because(problem.remedy("connect again with another token"));
                }
            }
        }
    }

    async fn hand_over(&mut self, events: Vec<Arc<RecordedEvent>>) -> Result<(), Ended> {
        let (mut chunk, mut bytes) = (Vec::new(), 0);
        let looked = events.last().map_or(self.after, |event| event.position());
        let wanted = self.wanted.which.of(&self.shared, events).await;
        for event in wanted.map_err(Ended::Because)? {
            let seen = event.position();
            let described = self
                .shared
                .services
                .events
                .describe(&event, self.wanted.texts);
            let json = described.await.to_string();
            bytes += json.len();
            chunk.push(Sent {
                position: seen,
                json,
            });
            if bytes >= CHUNK_BYTES {
                self.send_events(std::mem::take(&mut chunk), bytes).await?;
                (self.after, bytes) = (seen, 0);
            }
        }
        if !chunk.is_empty() {
            self.send_events(chunk, bytes).await?;
        }
        self.after = looked;
        Ok(())
    }

    async fn send_events(&mut self, events: Vec<Sent>, bytes: usize) -> Result<(), Ended> {
        let (room, all) = &self.room;
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(*all);
        let room = Arc::clone(room).acquire_many_owned(bytes);
        let room = tokio::select! {
            room = timeout(self.stall(), room) => room,
            () = self.items.closed() => return Err(Ended::Gone),
            () = self.shared.stopping.cancelled() => return Err(stopped()),
        };
        match room {
            Ok(room) => {
                // never closed
                let _room = room.ok();
                self.send(Item::Events(Chunk { events, _room })).await
            }
            Err(_) => Err(self.too_slow()),
        }
    }

    fn stall(&self) -> Duration {
        Duration::from_millis(self.shared.options.subscriber_stall_ms)
    }

    /// Waits for room as long as a client may take to make some.
    async fn send(&mut self, item: Item) -> Result<(), Ended> {
        let sent = tokio::select! {
            sent = self.items.send_timeout(item, self.stall()) => sent,
            () = self.shared.stopping.cancelled() => return Err(stopped()),
        };
        self.told = Instant::now();
        match sent {
            Ok(()) => Ok(()),
            Err(SendTimeoutError::Closed(_)) => Err(Ended::Gone),
            Err(SendTimeoutError::Timeout(_)) => Err(self.too_slow()),
        }
    }

    fn too_slow(&self) -> Ended {
        metrics::counter!("sovereign_subscriptions_too_slow_total").increment(1);
        let stall_ms = self.shared.options.subscriber_stall_ms;
        let problem = Problem::new(ErrorCode::TooSlow, "the subscriber does not keep up")
            .expected(format!("room for more within {stall_ms} ms"));
        Ended::Because(problem)
    }
}

fn stopped() -> Ended {
    let problem = Problem::new(ErrorCode::EngineNotRunning, "the engine is being stopped")
        .remedy("connect again with the last position that was read")
        .retry_after_ms(SUBSCRIPTION_RETRY_MS);
    Ended::Because(problem)
}

fn of_log(error: &LogError) -> Problem {
    tracing::warn!(%error, "subscription cannot read on");
    match error {
        LogError::Unreachable(_) => {
            Problem::new(ErrorCode::DatabaseUnreachable, "the ledger cannot be read")
                .retry_after_ms(SUBSCRIPTION_RETRY_MS)
        }
        LogError::Gap { expected, .. } => {
            Problem::new(ErrorCode::VerificationDifference, "an event is missing")
                .found(expected.to_string())
        }
        _ => Problem::new(ErrorCode::Internal, "the ledger cannot be read"),
    }
}
