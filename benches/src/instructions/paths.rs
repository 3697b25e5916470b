//! The hot paths, each on one thread and on the same input every time.

use std::collections::BTreeMap;
use std::hint::black_box;

use sovereign_aggregates::agent::{AgentCommand, ObserveMarket, Register};
use sovereign_aggregates::{AnyCommand, AnyState, Decision};
use sovereign_kafka::record;
use sovereign_projections::{Agents, Approvals, Departments, Trades, View};
use sovereign_replay::{FileInfo, FileLog, FileWriter, Options, Range, replay, sample};
use sovereign_schemas::{
    AggregateType, DepartmentId, Digest, EventHeader, Position, RecordedEvent, Timestamp, Uuid,
    catalog, chain,
};

/// Of each run.
pub(crate) const EVENTS: u64 = 20_000;
const AGGREGATES: usize = 2_000;
const SEED: u64 = 7;

type Run = fn(u64) -> u64;

/// To add one: a name and a function that prepares the same input for any number of events and
/// takes so many of them. What it returns depends on all that it did.
const PATHS: &[(&str, Run)] = &[
    ("append.decide-hash", append),
    ("relay.record", relay_record),
    ("replay.file", replay_file),
    ("view.agents", view::<Agents>),
    ("view.approvals", view::<Approvals>),
    ("view.departments", view::<Departments>),
    ("view.trades", view::<Trades>),
];

pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    PATHS.iter().map(|(name, _)| *name)
}

pub(crate) fn find(wanted: &str) -> Option<Run> {
    let found = PATHS.iter().find(|(name, _)| *name == wanted);
    found.map(|(_, run)| *run)
}

fn events() -> Vec<RecordedEvent> {
    sample::events(SEED, EVENTS as usize, AGGREGATES)
}

/// Decides on commands of one agent; encodes, frames and hashes what follows.
fn append(count: u64) -> u64 {
    let bar = |number: u64| {
        AnyCommand::Agent(AgentCommand::ObserveMarket(ObserveMarket {
            instrument: "AAPL".parse().unwrap(),
            opened_at: Timestamp(1_770_206_400_000_000 + number.cast_signed() * 60_000_000),
            interval_s: 60,
            open: "100.25".parse().unwrap(),
            high: "101".parse().unwrap(),
            low: "99.5".parse().unwrap(),
            close: "100".parse().unwrap(),
            volume: "1200".parse().unwrap(),
        }))
    };
    let commands: Vec<_> = (0..EVENTS).map(bar).collect();
    let decision = Decision::new(
        "agent-1".parse().unwrap(),
        Timestamp(1_770_206_400_000_000),
        "bench".parse().unwrap(),
    );
    let mut state = AnyState::new(AggregateType::Agent);
    let register = AnyCommand::Agent(AgentCommand::Register(Register {
        role: "trader".parse().unwrap(),
    }));
    state.handle(register, &decision).unwrap();
    let (mut previous, mut canonical) = (Digest::ZERO, Vec::new());
    for (command, position) in commands.into_iter().take(count as usize).zip(2..) {
        for event in state.handle(command, &decision).unwrap() {
            let mut payload = Vec::with_capacity(256);
            event.encode(&mut payload);
            let schema = catalog::latest(event.event_type());
            let header = EventHeader {
                position: Position(position),
                event_id: Uuid::from_u128(u128::from(position)),
                aggregate_type: AggregateType::Agent.as_str().into(),
                aggregate_id: "agent-1".to_owned(),
                sequence: position,
                event_type: schema.name.into(),
                event_version: schema.version,
                department: DepartmentId::HUNTER,
                actor: "bench".to_owned(),
                command_id: Uuid::from_u128(u128::from(position) << 64),
                correlation_id: Uuid::from_u128(1),
                causation_id: None,
                recorded_at: decision.at,
                schema_fingerprint: schema.fingerprint,
            };
            canonical.clear();
            header.encode(&mut canonical);
            previous = chain::hash(&previous, &canonical, &payload);
            black_box(&header);
        }
    }
    u64::from(previous.0[0])
}

/// Value and headers of the record of each event.
fn relay_record(count: u64) -> u64 {
    let events = events();
    let (mut sum, mut canonical, mut value) = (0, Vec::new(), Vec::new());
    for event in events.iter().take(count as usize) {
        canonical.clear();
        event.header.encode(&mut canonical);
        value.clear();
        record::put_value(7, &event.payload, &mut value);
        let headers = record::headers(event, &canonical);
        sum += value.len() as u64;
        black_box(&headers);
    }
    sum
}

/// Reads, indexes, checks links and sequences, decodes, folds; the digests at the end as well.
fn replay_file(count: u64) -> u64 {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.avro");
    let events = events();
    let last = events.last().unwrap();
    let info = FileInfo {
        first: Position(1),
        last: last.position(),
        previous_hash: Digest::ZERO,
        last_hash: last.hash,
    };
    let mut writer = FileWriter::create(&path, info).unwrap();
    events.iter().for_each(|event| writer.push(event).unwrap());
    writer.finish().unwrap();
    if count == 0 {
        return 0;
    }
    let mut file = FileLog::open(&path).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let options = Options {
        threads: 1,
        ..Options::default()
    };
    let range = Range::new(None, Some(Position(count))).unwrap();
    let mut progress = |_| {};
    let report = replay(&mut file, range, options, &mut progress);
    runtime.block_on(report).unwrap().events
}

/// Folds rows in memory.
fn view<V: View>(count: u64) -> u64 {
    let events = events();
    let mut rows: BTreeMap<V::Key, Option<V::Row>> = BTreeMap::new();
    for event in events.iter().take(count as usize) {
        if let Some(key) = V::key(event) {
            V::fold(rows.entry(key).or_default(), event).unwrap();
        }
    }
    rows.len() as u64
}
