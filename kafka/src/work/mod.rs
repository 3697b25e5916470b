//! Which of several engines does what. Kafka decides: each piece of work that only one engine
//! should do at a time is a partition of a topic that nobody writes to, and the engines are one
//! consumer group on it. Who is assigned a partition does that work; when an engine dies, the
//! group gives its partitions to the others.
//!
//! The group's protocol is the classic one: with it a member chooses how soon its silence counts
//! as death (6 s, the least that brokers allow by default). In the newer protocol that is a
//! setting of the brokers, 45 s by default and at the least. Members are static: an engine that
//! comes back within that time, even after a kill, goes on with what it had, at once.
//!
//! The group is no lock. A paused engine wakes up and still believes in its old assignment, and
//! one that cannot reach the brokers keeps what it had. So each piece of work is safe when two do
//! it for a moment, and what would hurt (fencing the rightful relay) first asks the brokers
//! whether the assignment is still good: [`Turn::confirm`].

mod describe;
mod member;
mod topic;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sovereign_schemas::{ErrorCode, Problem};
use tokio::sync::watch;

use crate::client::{Error, KafkaOptions};
use crate::topics::{TopicSettings, names};
use member::Shared;

/// How an engine takes part in the work.
#[derive(Debug, Clone)]
pub struct WorkOptions {
    /// The brokers.
    pub kafka: KafkaOptions,
    /// How the topic is created if it is missing.
    pub topics: TopicSettings,
    /// The topic whose partitions are the work, behind the namespace.
    pub topic: String,
    /// Name of the group, behind the namespace: the same for the engines of one ledger and for no
    /// others.
    pub group: String,
    /// Names this engine for good: letters, digits, `.`, `_` and `-`. Two engines with one name
    /// disturb each other; the older one then goes on under a name of its own.
    pub engine: String,
    /// All pieces of work, the same for every engine; new ones only at the end, because their
    /// places in this list are their partitions. At least 1, at most 1,000.
    pub units: Vec<String>,
    /// After so long without a sign of life the others take over; 6 s by default. Brokers refuse
    /// less than their `group.min.session.timeout.ms`.
    pub session_timeout: Duration,
    /// Red after so long outside of the group; 20 s by default.
    pub red_after: Duration,
}

impl WorkOptions {
    /// The defaults for these brokers.
    #[must_use]
    pub fn new(
        kafka: KafkaOptions,
        group: impl Into<String>,
        engine: impl Into<String>,
        units: Vec<String>,
    ) -> Self {
        Self {
            kafka,
            topics: TopicSettings::default(),
            topic: names::WORK.to_owned(),
            group: group.into(),
            engine: engine.into(),
            units,
            session_timeout: Duration::from_secs(6),
            red_after: Duration::from_secs(20),
        }
    }
}

/// What this engine is to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Assignment {
    /// Whether the group has ever answered.
    pub joined: bool,
    /// The pieces of work that are this engine's. While the brokers cannot be reached it is what
    /// it was.
    pub units: BTreeSet<String>,
}

/// How the membership is.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct WorkHealth {
    /// False if it has been outside of the group for a while, or was refused.
    pub healthy: bool,
    /// Whether the group counts this engine as a member just now.
    pub member: bool,
    /// What is assigned to this engine.
    pub units: BTreeSet<String>,
    /// What every member of the group is assigned, by the names of their engines; a few seconds
    /// old.
    pub engines: BTreeMap<String, BTreeSet<String>>,
    /// What is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

/// This engine's membership. Dropping the last handle ends it, without waiting.
#[derive(Clone)]
pub struct WorkGroup {
    shared: Arc<Shared>,
    stop: Arc<watch::Sender<bool>>,
}

impl fmt::Debug for WorkGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkGroup")
            .field("health", &self.health())
            .finish_non_exhaustive()
    }
}

impl WorkGroup {
    /// Creates the topic if it is missing, lets it grow if it has too few partitions, and joins in
    /// the background.
    ///
    /// # Errors
    /// [`Error::Config`] for an engine or units that cannot be; [`Error::Unreachable`],
    /// [`Error::Auth`] or [`Error::Internal`] if the topic cannot be made.
    pub async fn join(options: WorkOptions) -> Result<Self, Error> {
        check(&options)?;
        topic::ensure(&options).await?;
        let (stop, stopped) = watch::channel(false);
        let shared = Arc::new(Shared::new(options));
        member::start(&shared, stopped)?;
        Ok(Self {
            shared,
            stop: Arc::new(stop),
        })
    }

    /// What is assigned, and every change of it.
    #[must_use]
    pub fn assigned(&self) -> watch::Receiver<Assignment> {
        self.shared.assigned()
    }

    /// One piece of work, for who asks about it alone; `None` if it is not in the list.
    #[must_use]
    pub fn unit(&self, name: &str) -> Option<Unit> {
        let index = self.shared.options.units.iter().position(|u| u == name)?;
        Some(Unit {
            shared: Arc::clone(&self.shared),
            index,
            _stop: Arc::clone(&self.stop),
        })
    }

    /// How the membership is. Cheap.
    #[must_use]
    pub fn health(&self) -> WorkHealth {
        self.shared.health()
    }

    /// Ends the membership. As it is a static one, the others get the work when the session times
    /// out, unless this engine comes back before.
    pub async fn leave(&self) {
        self.stop.send_replace(true);
        let ended = self.shared.ended();
        if tokio::time::timeout(Duration::from_secs(5), ended)
            .await
            .is_err()
        {
            tracing::warn!("group of engines was not left in time");
        }
    }
}

fn check(options: &WorkOptions) -> Result<(), Error> {
    let legal = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if options.engine.is_empty() || options.engine.len() > 100 || !options.engine.chars().all(legal)
    {
        let message = "expected 1 to 100 letters, digits and . _ -";
        return Err(Error::config("engine", message));
    }
    if !(1..=1_000).contains(&options.units.len()) {
        return Err(Error::config("units", "expected 1 to 1,000"));
    }
    Ok(())
}

/// Whether it is this process' turn to do something that only one should do.
#[async_trait]
pub trait Turn: fmt::Debug + Send + Sync {
    /// Whether it is, as far as known.
    fn held(&self) -> bool;

    /// Returns when [`Self::held`] is no longer `held`.
    async fn until_not(&self, held: bool);

    /// Asks the brokers whether it is, so that a process that was paused does not believe in what
    /// it was once assigned.
    ///
    /// # Errors
    /// If they cannot be asked just now.
    async fn confirm(&self) -> Result<bool, Error>;
}

/// One piece of work, as this engine's membership sees it.
#[derive(Clone)]
pub struct Unit {
    shared: Arc<Shared>,
    index: usize,
    _stop: Arc<watch::Sender<bool>>,
}

impl fmt::Debug for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unit")
            .field("name", &self.name())
            .field("held", &self.held())
            .finish_non_exhaustive()
    }
}

impl Unit {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.options.units[self.index]
    }
}

#[async_trait]
impl Turn for Unit {
    fn held(&self) -> bool {
        self.shared.holds(self.name())
    }

    async fn until_not(&self, held: bool) {
        let mut assigned = self.shared.assigned();
        let name = self.name();
        // the sender lives as long as `self`
        let _ = assigned
            .wait_for(|now| now.units.contains(name) != held)
            .await;
    }

    async fn confirm(&self) -> Result<bool, Error> {
        if !self.held() {
            return Ok(false);
        }
        let (shared, index) = (Arc::clone(&self.shared), self.index);
        match tokio::task::spawn_blocking(move || shared.confirm(index)).await {
            Ok(confirmed) => Ok(confirmed? && self.held()),
            Err(error) => Err(Error::internal("group", error)),
        }
    }
}

fn outside(problem: Option<Problem>) -> Problem {
    problem.unwrap_or_else(|| {
        Problem::new(
            ErrorCode::BrokerUnreachable,
            "the group of engines does not answer",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_and_units_that_cannot_be_are_refused() {
        let options = |engine: &str, units: usize| {
            let units = (0..units).map(|n| format!("unit-{n}")).collect();
            WorkOptions::new(
                KafkaOptions::new("localhost:9092"),
                "engines",
                engine,
                units,
            )
        };
        assert!(check(&options("engine-1", 3)).is_ok());
        for (engine, units, field) in [
            ("", 3, "engine"),
            ("an engine", 3, "engine"),
            (&"x".repeat(101), 3, "engine"),
            ("engine", 0, "units"),
            ("engine", 1_001, "units"),
        ] {
            let error = check(&options(engine, units)).unwrap_err();
            assert_eq!(error.problem().field.as_deref(), Some(field));
        }
    }
}
