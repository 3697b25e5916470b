//! Records in hand: in the order of their partitions, until their replies are written.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::request::Request;
use super::task::Done;

/// A record in hand.
struct Entry {
    request: Arc<Request>,
    since: Instant,
    done: Option<Done>,
    /// Carries it out; gone without being asked to only when it is done.
    task: AbortHandle,
    lanes: Vec<u64>,
}

#[derive(Default)]
struct Partition {
    /// By offset.
    entries: VecDeque<Entry>,
    /// The last record of each lane; closed when that is done.
    lanes: HashMap<u64, watch::Receiver<()>>,
    /// The next offset behind those whose replies are written, once there is one.
    next: Option<i64>,
}

/// A record whose reply is due.
pub(super) struct Ready {
    pub(super) request: Arc<Request>,
    pub(super) since: Instant,
    pub(super) done: Done,
}

/// All records in hand, by partition.
#[derive(Default)]
pub(super) struct Queue {
    partitions: BTreeMap<i32, Partition>,
    count: usize,
    bytes: usize,
}

impl Queue {
    /// These partitions are ours and no others: what is in hand of others is dropped.
    pub(super) fn assign(&mut self, partitions: &BTreeSet<i32>) {
        self.clear();
        self.partitions = partitions
            .iter()
            .map(|p| (*p, Partition::default()))
            .collect();
    }

    /// Drops everything. The newest first, so that nothing goes on because what was before it
    /// has ended.
    pub(super) fn clear(&mut self) {
        for partition in self.partitions.values() {
            for entry in partition.entries.iter().rev() {
                entry.task.abort();
            }
        }
        *self = Self::default();
    }

    pub(super) fn partitions(&self) -> Vec<i32> {
        self.partitions.keys().copied().collect()
    }

    pub(super) fn has(&self, partition: i32) -> bool {
        self.partitions.contains_key(&partition)
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Since when the oldest has waited.
    pub(super) fn oldest(&self) -> Option<Instant> {
        let fronts = self.partitions.values().filter_map(|p| p.entries.front());
        fronts.map(|entry| entry.since).min()
    }

    /// The records that one in these lanes has to wait for, and what is to be dropped when it is
    /// done.
    pub(super) fn enter(
        &mut self,
        partition: i32,
        lanes: &[u64],
    ) -> (Vec<watch::Receiver<()>>, watch::Sender<()>) {
        let (ended, end) = watch::channel(());
        let last = &mut self.partitions.entry(partition).or_default().lanes;
        let before = lanes.iter().filter_map(|l| last.insert(*l, end.clone()));
        (before.collect(), ended)
    }

    pub(super) fn push(&mut self, request: Arc<Request>, lanes: Vec<u64>, task: AbortHandle) {
        self.count += 1;
        self.bytes += request.bytes();
        let partition = self.partitions.entry(request.origin.partition).or_default();
        partition.entries.push_back(Entry {
            request,
            since: Instant::now(),
            done: None,
            task,
            lanes,
        });
    }

    /// Takes note of an outcome; one of a record that is not in hand any more is nobody's.
    pub(super) fn settle(&mut self, partition: i32, offset: i64, done: Done) {
        let Some(partition) = self.partitions.get_mut(&partition) else {
            return;
        };
        let entries = &mut partition.entries;
        if let Ok(at) = entries.binary_search_by_key(&offset, |e| e.request.origin.offset) {
            entries[at].done = Some(done);
        }
    }

    /// Whether a reply is due.
    pub(super) fn is_ready(&self) -> bool {
        let mut fronts = self.partitions.values().filter_map(|p| p.entries.front());
        fronts.any(|entry| entry.done.is_some())
    }

    /// Takes out records whose replies are due, in the order of their partitions, and the offsets
    /// behind them.
    pub(super) fn take(&mut self, max: usize) -> (Vec<Ready>, BTreeMap<i32, i64>) {
        let (mut ready, mut behind) = (Vec::new(), BTreeMap::new());
        for (number, partition) in &mut self.partitions {
            while ready.len() < max
                && let Some(entry) = partition.entries.pop_front_if(|e| e.done.is_some())
            {
                let Entry {
                    request,
                    since,
                    done,
                    lanes,
                    ..
                } = entry;
                let Some(done) = done else { continue };
                for lane in lanes {
                    let closed = |end: &watch::Receiver<()>| end.has_changed().is_err();
                    if partition.lanes.get(&lane).is_some_and(closed) {
                        partition.lanes.remove(&lane);
                    }
                }
                self.count -= 1;
                self.bytes -= request.bytes();
                let next = request.origin.offset + 1;
                partition.next = Some(next);
                behind.insert(*number, next);
                ready.push(Ready {
                    request,
                    since,
                    done,
                });
            }
        }
        (ready, behind)
    }

    /// Records between those whose replies are written and these ends. Of a partition of which
    /// nothing was read there is no telling, and of one that was read to its end nothing is left:
    /// behind it there may be ends of transactions, which take up offsets as well.
    pub(super) fn lag(&self, ends: &HashMap<i32, i64>) -> u64 {
        let of = |(number, partition): (&i32, &Partition)| {
            let front = partition.entries.front().map(|e| e.request.origin.offset);
            let next = front.or(partition.next)?;
            u64::try_from(ends.get(number)? - next).ok()
        };
        self.partitions.iter().filter_map(of).sum()
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        for partition in self.partitions.values() {
            for entry in partition.entries.iter().rev() {
                entry.task.abort();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use sovereign_schemas::{Outcome, Status};

    use super::*;
    use crate::dead_letters::{Origin, RawRecord};

    fn request(partition: i32, offset: i64) -> Arc<Request> {
        let origin = Origin {
            topic: "commands".to_owned(),
            partition,
            offset,
        };
        let record = RawRecord {
            value: Some(Bytes::from_static(b"{}")),
            ..RawRecord::default()
        };
        Arc::new(Request::read(origin, record))
    }

    fn done() -> Done {
        Done {
            outcome: Outcome::effective(Status::Accepted, None),
            letter: None,
        }
    }

    /// In hand, never done by itself.
    fn push(queue: &mut Queue, partition: i32, offset: i64, lanes: &[u64]) -> watch::Sender<()> {
        let (_, ended) = queue.enter(partition, lanes);
        let task = tokio::spawn(std::future::pending::<()>()).abort_handle();
        queue.push(request(partition, offset), lanes.to_vec(), task);
        ended
    }

    fn offsets(ready: &[Ready]) -> Vec<(i32, i64)> {
        let place = |r: &Ready| (r.request.origin.partition, r.request.origin.offset);
        ready.iter().map(place).collect()
    }

    #[tokio::test]
    async fn replies_are_due_in_the_order_of_each_partition() {
        let mut queue = Queue::default();
        queue.assign(&BTreeSet::from([0, 1]));
        // a gap in the offsets: the end of a transaction
        let ends: Vec<_> = [(0, 4), (0, 6), (0, 7), (1, 0)]
            .map(|(p, o)| push(&mut queue, p, o, &[]))
            .into();
        assert_eq!((queue.count(), queue.is_ready()), (4, false));
        queue.settle(0, 6, done());
        assert!(!queue.is_ready(), "another comes first");
        queue.settle(0, 4, done());
        queue.settle(1, 0, done());
        let (ready, behind) = queue.take(2);
        assert_eq!(offsets(&ready), [(0, 4), (0, 6)]);
        assert_eq!(behind, BTreeMap::from([(0, 7)]));
        let (ready, behind) = queue.take(10);
        assert_eq!(offsets(&ready), [(1, 0)]);
        assert_eq!(behind, BTreeMap::from([(1, 1)]));
        let lag = queue.lag(&HashMap::from([(0, 9), (1, 5)]));
        assert_eq!(lag, 2 + 4);
        // of a record that was dropped meanwhile
        queue.settle(0, 99, done());
        queue.settle(7, 7, done());
        drop(ends);
        queue.clear();
        assert_eq!((queue.count(), queue.bytes(), queue.oldest()), (0, 0, None));
    }

    #[tokio::test]
    async fn a_record_waits_for_the_last_of_each_of_its_lanes() {
        let mut queue = Queue::default();
        queue.assign(&BTreeSet::from([0]));
        let first = push(&mut queue, 0, 0, &[1]);
        let second = push(&mut queue, 0, 1, &[2]);
        let (before, third) = queue.enter(0, &[1, 2]);
        assert_eq!(before.len(), 2);
        drop(first);
        assert!(before[0].has_changed().is_err() && before[1].has_changed().is_ok());
        drop(second);
        assert!(before[1].has_changed().is_err());
        // the next waits for the third, and nobody in another lane or partition does
        let (before, _) = queue.enter(0, &[2]);
        assert!(before.len() == 1 && before[0].has_changed().is_ok());
        drop(third);
        assert!(before[0].has_changed().is_err());
        assert!(queue.enter(0, &[3]).0.is_empty());
        assert!(queue.enter(1, &[1]).0.is_empty());
        queue.settle(0, 0, done());
        queue.take(1);
        assert!(!queue.partitions[&0].lanes.contains_key(&1), "forgotten");
    }

    #[tokio::test]
    async fn what_is_not_ours_any_more_is_given_up() {
        let mut queue = Queue::default();
        queue.assign(&BTreeSet::from([0, 1]));
        let (_, ended) = queue.enter(0, &[]);
        let task = tokio::spawn(async move {
            let _ended = ended;
            std::future::pending::<()>().await;
        });
        queue.push(request(0, 0), Vec::new(), task.abort_handle());
        queue.assign(&BTreeSet::from([1]));
        assert!(task.await.unwrap_err().is_cancelled());
        assert!(!queue.has(0) && queue.has(1) && queue.count() == 0);
    }
}
