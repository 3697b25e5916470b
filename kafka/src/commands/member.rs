//! The membership in the group that takes commands.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rdkafka::Statistics;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::KafkaError;

use super::{CommandsOptions, GROUP};
use crate::client::{Context, Error};
use crate::topics::names;

/// A sign of life so often: a new assignment is heard of within this time.
const HEARTBEAT_MS: &str = "500";
/// A broker that does not answer within this time is asked again elsewhere.
const SOCKET_TIMEOUT_MS: &str = "10000";
/// New partitions are noticed within this time.
const METADATA_MS: &str = "30000";
/// How often the ends of partitions are told, for the lag.
const STATISTICS_MS: &str = "2000";

pub(super) type Member = BaseConsumer<MemberContext>;

/// What the brokers said since it was last asked.
#[derive(Debug, Default)]
pub(super) struct News {
    /// What was assigned before is not any more.
    pub(super) revoked: bool,
    /// What is assigned now.
    pub(super) assigned: Option<BTreeSet<i32>>,
}

/// Hears of rebalances, all of them within a call of poll.
pub(super) struct MemberContext {
    pub(super) client: Context,
    topic: String,
    news: Mutex<News>,
    /// Where each partition ends, for readers of what is committed.
    ends: Mutex<Arc<HashMap<i32, i64>>>,
}

impl MemberContext {
    fn news(&self) -> MutexGuard<'_, News> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn take_news(&self) -> News {
        std::mem::take(&mut *self.news())
    }

    pub(super) fn ends(&self) -> Arc<HashMap<i32, i64>> {
        Arc::clone(&self.ends.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ClientContext for MemberContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.client.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.client.error(error, reason);
    }

    fn stats(&self, statistics: Statistics) {
        let Some(topic) = statistics.topics.get(&self.topic) else {
            return;
        };
        let known = topic.partitions.values().filter(|p| p.ls_offset >= 0);
        let ends = known.map(|p| (p.partition, p.ls_offset)).collect();
        *self.ends.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(ends);
    }
}

impl ConsumerContext for MemberContext {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if !matches!(rebalance, Rebalance::Assign(_)) {
            let mut news = self.news();
            news.revoked = true;
            news.assigned = None;
        }
    }

    fn post_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Assign(list) = rebalance {
            let partitions = list.elements().iter().map(|e| e.partition()).collect();
            self.news().assigned = Some(partitions);
        }
    }
}

/// Joins. All partitions are given back at each rebalance and handed out anew (`range`): what is in
/// hand then is dropped, so there is no state that outlives a rebalance.
pub(super) fn join(options: &CommandsOptions, name: &str) -> Result<Member, Error> {
    let topic = options.kafka.topic(names::COMMANDS);
    let mut config = options.kafka.config()?;
    let session_ms = options.session_timeout.as_millis().to_string();
    config
        .set("group.id", options.kafka.topic(GROUP))
        // back within the session, even after a kill: nothing moves, nobody waits
        .set("group.instance.id", name)
        .set("client.id", &options.engine)
        .set("group.protocol", "classic")
        .set("partition.assignment.strategy", "range")
        .set("session.timeout.ms", session_ms)
        .set("heartbeat.interval.ms", HEARTBEAT_MS)
        .set("socket.timeout.ms", SOCKET_TIMEOUT_MS)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // what was sent before anybody joined counts as well
        .set("auto.offset.reset", "earliest")
        // also makes the brokers wait with the group's place until open transactions have ended
        .set("isolation.level", "read_committed")
        .set("fetch.queue.backoff.ms", "2")
        .set("fetch.wait.max.ms", "100")
        .set("queued.max.messages.kbytes", "8192")
        .set("topic.metadata.refresh.interval.ms", METADATA_MS)
        .set("statistics.interval.ms", STATISTICS_MS);
    let context = MemberContext {
        client: Context::of(&options.kafka),
        topic,
        news: Mutex::default(),
        ends: Mutex::default(),
    };
    config
        .create_with_context(context)
        .map_err(|e| Error::kafka("group of commands", &e))
}

pub(super) fn subscribe(member: &Member, topic: &str) -> Result<(), Error> {
    let subscribed = member.subscribe(&[topic]);
    subscribed.map_err(|e| member.context().client.explain("subscribe", &e))
}
