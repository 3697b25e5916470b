//! Whether readers see what was committed.
//!
//! Brokers answer a commit before they have written its markers, and Kafka 4.3 leaves out those of
//! a partition that has no leader at that moment. Then what lies behind stays hidden from
//! read-committed readers although all calls succeeded, until the same producer ends another
//! transaction on that partition. A transaction that somebody else leaves open hides as well.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sovereign_schemas::{ErrorCode, Problem};
use tokio::time::Instant;

use super::port::Written;

/// Markers take milliseconds, and a killed relay's successor aborts what that left open within
/// seconds.
const HIDDEN_MAX: Duration = Duration::from_secs(5);

/// What was committed and not yet seen, by partition.
#[derive(Default)]
pub(crate) struct Visible {
    marks: Mutex<BTreeMap<(String, i32), Mark>>,
}

struct Mark {
    /// The oldest record that was not seen yet, and the newest.
    first: i64,
    last: i64,
    /// When `first` was committed.
    since: Instant,
    /// Whether it was looked for in vain.
    missed: bool,
}

impl Visible {
    pub(crate) fn committed(&self, written: Vec<Written>) {
        let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        for Written {
            topic,
            partition,
            offset,
        } in written
        {
            let mark = marks.entry((topic, partition)).or_insert_with(|| Mark {
                first: offset,
                last: offset,
                since: Instant::now(),
                missed: false,
            });
            mark.last = mark.last.max(offset);
        }
    }

    /// What is to be looked for.
    pub(crate) fn unseen(&self) -> Vec<Written> {
        let marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        let written = |((topic, partition), mark): (&(String, i32), &Mark)| Written {
            topic: topic.clone(),
            partition: *partition,
            offset: mark.last,
        };
        marks.iter().map(written).collect()
    }

    /// Readers see these partitions up to, and without, these offsets; `asked` at that moment.
    pub(crate) fn saw(&self, unseen: &[Written], ends: &[i64], asked: Instant) {
        let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        for (written, end) in unseen.iter().zip(ends) {
            let at = (written.topic.clone(), written.partition);
            let Some(mark) = marks.get_mut(&at) else {
                continue;
            };
            if mark.last < *end {
                marks.remove(&at);
            } else if mark.first < *end {
                // the rest is younger than the question
                mark.first = *end;
                mark.since = asked;
                mark.missed = false;
            } else {
                mark.missed = true;
            }
        }
    }

    /// What is hidden for longer than it should be.
    pub(crate) fn problem(&self) -> Option<Problem> {
        let marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        let hidden = |mark: &Mark| mark.missed && mark.since.elapsed() > HIDDEN_MAX;
        let ((topic, partition), mark) = marks.iter().find(|(_, mark)| hidden(mark))?;
        let since = mark.since.elapsed().as_secs();
        let message =
            format!("readers do not see what was committed to {topic}-{partition} {since} s ago");
        let found = format!("a transaction is open at or before offset {}", mark.first);
        Some(Problem::new(ErrorCode::EventsHidden, message).found(found))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn written(offset: i64) -> Vec<Written> {
        vec![Written {
            topic: "dept.trader".to_owned(),
            partition: 2,
            offset,
        }]
    }

    async fn look(visible: &Visible, end: i64) {
        visible.saw(&visible.unseen(), &[end], Instant::now());
    }

    #[tokio::test(start_paused = true)]
    async fn what_stays_hidden_is_a_problem_until_it_is_seen() {
        let visible = Visible::default();
        visible.committed(written(4));
        look(&visible, 4).await;
        assert_eq!(visible.problem(), None, "markers take a moment");
        tokio::time::advance(HIDDEN_MAX * 2).await;
        look(&visible, 4).await;
        let problem = visible.problem().unwrap();
        assert_eq!(problem.code, ErrorCode::EventsHidden);
        assert!(problem.message.contains("dept.trader-2"), "{problem}");
        visible.committed(written(9));
        look(&visible, 10).await;
        assert_eq!(visible.problem(), None);
        assert_eq!(visible.unseen(), []);
    }

    #[tokio::test(start_paused = true)]
    async fn a_partition_that_moves_on_is_none() {
        let visible = Visible::default();
        for offset in 0..60 {
            visible.committed(written(offset));
            tokio::time::advance(Duration::from_secs(1)).await;
            // always one behind
            look(&visible, offset).await;
            assert_eq!(visible.problem(), None);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_could_not_ask_does_not_know() {
        let visible = Visible::default();
        visible.committed(written(0));
        tokio::time::advance(HIDDEN_MAX * 2).await;
        assert_eq!(visible.problem(), None);
    }
}
