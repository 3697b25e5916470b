//! The thread that is a member of the group.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};
use sovereign_schemas::{Problem, Uuid};
use tokio::sync::watch;

use super::{Assignment, WorkHealth, WorkOptions, describe, outside};
use crate::client::{Context, Error};
use crate::telemetry::Assigned;

/// Bounds how late a stop and a change are noticed.
const POLL: Duration = Duration::from_millis(100);
/// How often the brokers are asked who does what.
const DESCRIBE_EVERY: Duration = Duration::from_secs(3);
/// So often in a row the brokers may say that this engine is no member, although it is one as far
/// as it knows.
const MISSING_MAX: u32 = 2;
/// Before a member that failed is replaced by a new one.
const REJOIN_PAUSE: Duration = Duration::from_secs(1);

/// A sign of life so often: a new assignment is heard of within this time.
const HEARTBEAT_MS: &str = "500";
/// The topic is empty: its brokers need not answer sooner.
const FETCH_WAIT_MS: &str = "5000";
/// A broker that does not answer within this time is asked again elsewhere.
const SOCKET_TIMEOUT_MS: &str = "10000";
/// New partitions are noticed within this time.
const METADATA_MS: &str = "30000";

type Member = BaseConsumer<MemberContext>;

/// What the thread and the handles know together.
pub(super) struct Shared {
    pub(super) options: WorkOptions,
    assigned: watch::Sender<Assignment>,
    ended: watch::Sender<bool>,
    state: Mutex<State>,
}

struct State {
    member: Option<Arc<Member>>,
    /// Since when the group does not count this engine as a member; `None` if it does.
    outside_since: Option<Instant>,
    engines: BTreeMap<String, BTreeSet<String>>,
    problem: Option<Problem>,
}

impl Shared {
    pub(super) fn new(options: WorkOptions) -> Self {
        Self {
            options,
            assigned: watch::Sender::new(Assignment::default()),
            ended: watch::Sender::new(false),
            state: Mutex::new(State {
                member: None,
                outside_since: Some(Instant::now()),
                engines: BTreeMap::new(),
                problem: None,
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn assigned(&self) -> watch::Receiver<Assignment> {
        self.assigned.subscribe()
    }

    pub(super) fn holds(&self, unit: &str) -> bool {
        self.assigned.borrow().units.contains(unit)
    }

    pub(super) async fn ended(&self) {
        let mut ended = self.ended.subscribe();
        // the sender lives as long as `self`
        let _ = ended.wait_for(|ended| *ended).await;
    }

    pub(super) fn health(&self) -> WorkHealth {
        let state = self.state();
        let late = |since: Instant| since.elapsed() > self.options.red_after;
        let healthy = !state.outside_since.is_some_and(late);
        WorkHealth {
            healthy,
            member: state.outside_since.is_none(),
            units: self.assigned.borrow().units.clone(),
            engines: state.engines.clone(),
            problem: (!healthy).then(|| outside(state.problem.clone())),
        }
    }

    fn topic(&self) -> String {
        self.options.kafka.topic(&self.options.topic)
    }

    fn group(&self) -> String {
        self.options.kafka.topic(&self.options.group)
    }

    /// The brokers refuse a commit of who is no member, or one of an older generation.
    pub(super) fn confirm(&self, unit: usize) -> Result<bool, Error> {
        use RDKafkaErrorCode as Code;
        let member = {
            let state = self.state();
            // while a join is under way the brokers know this name already and we not our number:
            // they would take the commit for a stranger's and end the membership
            state
                .member
                .clone()
                .filter(|_| state.outside_since.is_none())
        };
        let Some(member) = member else {
            return Ok(false);
        };
        let index = i32::try_from(unit).map_err(|e| Error::internal("units", e))?;
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.topic(), index, Offset::Offset(0))
            .map_err(|e| Error::kafka("group", &e))?;
        let Err(error) = member.commit(&list, CommitMode::Sync) else {
            return Ok(true);
        };
        match error.rdkafka_error_code() {
            Some(
                Code::UnknownMemberId
                | Code::IllegalGeneration
                | Code::RebalanceInProgress
                | Code::FencedInstanceId
                | Code::AssignmentLost
                | Code::Fatal,
            ) => Ok(false),
            _ => Err(member.context().client.explain("group", &error)),
        }
    }

    fn joined(&self) {
        let mut state = self.state();
        state.outside_since = None;
        state.problem = None;
    }

    fn lost(&self) {
        self.state().outside_since.get_or_insert_with(Instant::now);
    }

    /// Hands out what the group says; units that this build does not know are left alone.
    fn publish(&self, partitions: &BTreeSet<i32>) {
        let units = self.names(partitions);
        let changed = self.assigned.send_if_modified(|now| {
            let changed = !now.joined || now.units != units;
            *now = Assignment {
                joined: true,
                units: units.clone(),
            };
            changed
        });
        if changed {
            Assigned { units: &units }.emit();
        }
    }

    fn names(&self, partitions: &BTreeSet<i32>) -> BTreeSet<String> {
        let units = &self.options.units;
        let indexes = partitions.iter().filter_map(|p| usize::try_from(*p).ok());
        indexes.filter_map(|i| units.get(i).cloned()).collect()
    }
}

/// Hears of rebalances.
struct MemberContext {
    client: Context,
    shared: Weak<Shared>,
}

impl ClientContext for MemberContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.client.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.client.error(error, reason);
    }
}

impl ConsumerContext for MemberContext {
    fn pre_rebalance(&self, member: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        // taken away because nobody heard of this engine: it keeps its work until it knows more
        if matches!(rebalance, Rebalance::Revoke(_))
            && member.assignment_lost()
            && let Some(shared) = self.shared.upgrade()
        {
            shared.lost();
        }
    }

    fn post_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if matches!(rebalance, Rebalance::Assign(_))
            && let Some(shared) = self.shared.upgrade()
        {
            shared.joined();
        }
    }
}

/// Starts the thread; it ends when told to, or when all handles are gone.
pub(super) fn start(shared: &Arc<Shared>, stopped: watch::Receiver<bool>) -> Result<(), Error> {
    let weak = Arc::downgrade(shared);
    std::thread::Builder::new()
        .name("engines".to_owned())
        .spawn(move || run(&weak, &stopped))
        .map(drop)
        .map_err(|e| Error::internal("start thread of the group", e))
}

/// An error of a channel means that nobody is left to work for.
fn is_over(stopped: &watch::Receiver<bool>) -> bool {
    *stopped.borrow() || stopped.has_changed().is_err()
}

#[allow(clippy::disallowed_methods)] // on its own thread
fn run(weak: &Weak<Shared>, stopped: &watch::Receiver<bool>) {
    let Some(first) = weak.upgrade() else { return };
    let mut instance = first.options.engine.clone();
    drop(first);
    while !is_over(stopped) {
        let mut rename = false;
        let Some(shared) = weak.upgrade() else { return };
        match connect(&shared, &instance) {
            Ok(member) => {
                let member = Arc::new(member);
                shared.state().member = Some(Arc::clone(&member));
                drop(shared);
                if serve(weak, &member, stopped) == Over::Renamed {
                    rename = true;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "group of engines cannot be joined");
                shared.state().problem = Some(error.problem());
            }
        }
        let Some(shared) = weak.upgrade() else { return };
        // closing it calls back into the state, which must not be locked then
        let gone = shared.state().member.take();
        drop(gone);
        if is_over(stopped) {
            shared.ended.send_replace(true);
            return;
        }
        shared.lost();
        if rename {
            // somebody else has the name, as after a copy of a data folder
            instance = format!("{}-{}", shared.options.engine, Uuid::now_v7().simple());
        }
        drop(shared);
        std::thread::sleep(REJOIN_PAUSE);
    }
    if let Some(shared) = weak.upgrade() {
        shared.ended.send_replace(true);
    }
}

fn connect(shared: &Arc<Shared>, instance: &str) -> Result<Member, Error> {
    let options = &shared.options;
    let mut config = options.kafka.config()?;
    config
        .set("group.id", shared.group())
        .set("group.instance.id", instance)
        .set("client.id", &options.engine)
        .set("group.protocol", "classic")
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set(
            "session.timeout.ms",
            options.session_timeout.as_millis().to_string(),
        )
        .set("heartbeat.interval.ms", HEARTBEAT_MS)
        .set("socket.timeout.ms", SOCKET_TIMEOUT_MS)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "latest")
        .set("fetch.wait.max.ms", FETCH_WAIT_MS)
        .set("topic.metadata.refresh.interval.ms", METADATA_MS);
    let context = MemberContext {
        client: Context::of(&options.kafka),
        shared: Arc::downgrade(shared),
    };
    let member: Member = config
        .create_with_context(context)
        .map_err(|e| Error::kafka("group", &e))?;
    member
        .subscribe(&[&shared.topic()])
        .map_err(|e| Error::kafka("group", &e))?;
    Ok(member)
}

/// Why a member is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Over {
    Stopped,
    /// It goes on under another name.
    Renamed,
    /// It is out of the group and does not come back by itself.
    Stuck,
}

/// Until it is over, or the member cannot go on.
fn serve(weak: &Weak<Shared>, member: &Member, stopped: &watch::Receiver<bool>) -> Over {
    let mut described: Option<Instant> = None;
    let began = Instant::now();
    let mut missing = 0;
    while !is_over(stopped) {
        let polled = member.poll(POLL);
        let Some(shared) = weak.upgrade() else {
            return Over::Stopped;
        };
        if let Some(Err(error)) = polled {
            shared.state().problem =
                Some(member.context().client.explain("group", &error).problem());
        }
        if let Some((code, reason)) = member.client().fatal_error() {
            tracing::error!(?code, reason, "membership in the group of engines ended");
            return Over::Renamed;
        }
        let outside_since = shared.state().outside_since;
        if let Some(since) = outside_since {
            described = None;
            // the library may wait for something that does not come any more
            let patience = shared.options.session_timeout * 2;
            if since.max(began).elapsed() > patience {
                tracing::warn!("group of engines is joined anew: it did not let this engine in");
                return Over::Stuck;
            }
            continue;
        }
        match member.assignment() {
            Ok(list) => {
                let own = list.elements();
                shared.publish(&own.iter().map(|e| e.partition()).collect());
            }
            Err(error) => tracing::warn!(%error, "assignment cannot be read"),
        }
        if described.is_none_or(|at| at.elapsed() > DESCRIBE_EVERY) {
            described = Some(Instant::now());
            missing = if describe(&shared, member) {
                0
            } else {
                missing + 1
            };
            if missing >= MISSING_MAX {
                tracing::warn!("group of engines is joined anew: it has lost this engine");
                return Over::Stuck;
            }
        }
    }
    Over::Stopped
}

/// False if the brokers say that this engine is no member.
fn describe(shared: &Shared, member: &Member) -> bool {
    match describe::members(member, &shared.group(), &shared.topic()) {
        Ok(members) => {
            let counted = members.contains_key(&shared.options.engine);
            let engines = members
                .into_iter()
                .map(|(engine, own)| (engine, shared.names(&own)));
            shared.state().engines = engines.collect();
            counted
        }
        Err(error) => {
            tracing::debug!(%error, "group of engines cannot be described");
            true
        }
    }
}
