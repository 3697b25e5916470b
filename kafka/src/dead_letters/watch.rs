//! Follows the letters of a cluster, for health and metrics.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sovereign_schemas::Uuid;

use super::LetterState;
use super::book::{self, Entry};
use crate::client::{Error, KafkaOptions};
use crate::partitions::Polled;

/// Letters that are followed; further ones are not counted, and a warning says so.
const LETTERS_MAX: usize = 1_000_000;
/// How late a new letter or a request to stop may be noticed.
const WAIT: Duration = Duration::from_millis(200);
/// Pause after a failure.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// How many letters there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct LetterCounts {
    /// Nobody has dealt with them.
    pub open: u64,
    /// Given back to their groups, which have not answered yet.
    pub retrying: u64,
    /// Worked through at last.
    pub done: u64,
    /// Not needed.
    pub dropped: u64,
}

/// Whether the letter itself was seen, and the last word on it.
type Known = HashMap<Uuid, (bool, LetterState)>;

#[derive(Debug, Default)]
struct Shared {
    known: Mutex<Known>,
    /// Whether everything that was there at the start has been read.
    read: AtomicBool,
    stop: AtomicBool,
}

/// A thread that reads `dead-letter` and `dead-letter.state` from the first record on. Dropping it
/// ends the thread within a second.
#[derive(Debug)]
pub struct LetterWatch {
    shared: Arc<Shared>,
}

impl Drop for LetterWatch {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

impl LetterWatch {
    /// Starts to follow.
    ///
    /// # Errors
    /// [`Error`] if there can be no thread.
    pub fn start(options: KafkaOptions) -> Result<Self, Error> {
        let shared = Arc::new(Shared::default());
        let own = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("dead-letters".to_owned())
            .spawn(move || follow(&options, &own))
            .map_err(|e| Error::internal("start dead-letter thread", e))?;
        Ok(Self { shared })
    }

    /// How many there are; `None` until those that were there at the start have been read.
    #[must_use]
    pub fn counts(&self) -> Option<LetterCounts> {
        let read = self.shared.read.load(Ordering::Acquire);
        read.then(|| counts(&lock(&self.shared.known)))
    }

    /// How a letter stands; `None` if it was not seen yet.
    #[must_use]
    pub fn state(&self, id: Uuid) -> Option<LetterState> {
        let known = lock(&self.shared.known);
        known.get(&id).filter(|(seen, _)| *seen).map(|k| k.1)
    }
}

fn lock(known: &Mutex<Known>) -> std::sync::MutexGuard<'_, Known> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

fn counts(known: &Known) -> LetterCounts {
    let mut counts = LetterCounts::default();
    for (_, state) in known.values().filter(|(seen, _)| *seen) {
        let count = match state {
            LetterState::Open => &mut counts.open,
            LetterState::Retrying => &mut counts.retrying,
            LetterState::Done => &mut counts.done,
            LetterState::Dropped => &mut counts.dropped,
        };
        *count += 1;
    }
    counts
}

#[expect(clippy::disallowed_methods, reason = "a thread of its own")]
fn follow(options: &KafkaOptions, shared: &Shared) {
    while !shared.stop.load(Ordering::Relaxed) {
        if let Err(error) = run(options, shared) {
            tracing::warn!(%error, "dead letters cannot be followed; trying again");
            std::thread::sleep(AGAIN_AFTER);
        }
    }
}

fn run(options: &KafkaOptions, shared: &Shared) -> Result<(), Error> {
    let (reader, starts) = book::open(options)?;
    lock(&shared.known).clear();
    reader.assign(&starts)?;
    let mut ended = vec![false; starts.len()];
    let mut told = Instant::now();
    let mut changed = true;
    while !shared.stop.load(Ordering::Relaxed) {
        let mut any = false;
        for &(index, _) in &starts {
            match reader.poll(index)? {
                Polled::Record(message) => {
                    any = true;
                    changed |= take(&mut lock(&shared.known), Entry::of(options, &message));
                }
                Polled::End => ended[index] = true,
                Polled::Nothing => {}
            }
        }
        if ended.iter().all(|e| *e) {
            shared.read.store(true, Ordering::Release);
        }
        if changed && (!any || told.elapsed() > AGAIN_AFTER) {
            emit(counts(&lock(&shared.known)));
            (changed, told) = (false, Instant::now());
        }
        if !any {
            reader.wait(WAIT)?;
        }
    }
    Ok(())
}

fn take(known: &mut Known, entry: Entry) -> bool {
    let (id, state) = match &entry {
        Entry::Letter(letter) => (letter.id, None),
        Entry::Standing(standing) => (standing.id, Some(standing.state)),
        Entry::Foreign => return false,
    };
    if known.len() >= LETTERS_MAX && !known.contains_key(&id) {
        tracing::warn!(max = LETTERS_MAX, "too many dead letters to count");
        return false;
    }
    let (seen, last) = known.entry(id).or_insert((false, LetterState::Open));
    *seen |= state.is_none();
    *last = state.unwrap_or(*last);
    true
}

#[allow(clippy::cast_precision_loss)] // exact up to 2^53
fn emit(counts: LetterCounts) {
    let states = [
        ("open", counts.open),
        ("retrying", counts.retrying),
        ("done", counts.done),
        ("dropped", counts.dropped),
    ];
    for (state, count) in states {
        metrics::gauge!("sovereign_dead_letters", "state" => state).set(count as f64);
    }
}
