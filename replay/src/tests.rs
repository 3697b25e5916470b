use sovereign_aggregates::AnyState;
use sovereign_schemas::chain::{self, Head};
use sovereign_schemas::{Digest, EventLog, MemoryLog, Position, RecordedEvent};

use crate::contract::{event_log_contract, event_log_reports_gap};
use crate::{
    Difference, Expectations, FileLog, Options, Range, ReplayError, ReplayReport, What,
    digest_of_states, export, replay, sample, verify,
};

const THREADS: [usize; 3] = [1, 2, 5];

fn quiet(_: Position) {}

async fn check(
    events: &[RecordedEvent],
    expectations: Expectations<'_>,
    threads: usize,
) -> Result<crate::VerifyReport, ReplayError> {
    let mut log = MemoryLog::new(events.to_vec());
    let options = Options { threads, batch: 50 };
    verify(&mut log, Range::WHOLE, expectations, options, &mut quiet).await
}

/// What verify finds with any number of threads, which must be the same.
async fn finding(events: &[RecordedEvent]) -> Difference {
    let mut found = Vec::new();
    for threads in THREADS {
        match check(events, Expectations::default(), threads).await {
            Err(ReplayError::Difference(difference)) => found.push(difference),
            other => panic!("{other:?}"),
        }
    }
    found.dedup();
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

/// Makes the chain hold again from `from` on, after something was changed.
fn rechain(events: &mut [RecordedEvent], from: usize) {
    for index in from..events.len() {
        let previous = if index == 0 {
            Digest::ZERO
        } else {
            events[index - 1].hash
        };
        let event = &mut events[index];
        event.hash = chain::expected_hash(&previous, &event.header, &event.payload);
    }
}

#[tokio::test]
async fn memory_log_keeps_the_contract() {
    let events = sample::events(1, 300, 20);
    let make = async || Box::new(MemoryLog::new(events.clone())) as Box<dyn EventLog>;
    event_log_contract(make, &events).await;
    let mut holed = events.clone();
    holed.remove(170);
    let make = async || Box::new(MemoryLog::new(holed.clone())) as Box<dyn EventLog>;
    event_log_reports_gap(make, Position(1), Position(171)).await;
}

#[tokio::test]
async fn good_log_verifies() {
    let events = sample::events(1, 1_000, 100);
    let head = Head {
        position: Position(1_000),
        hash: events[999].hash,
    };
    for threads in THREADS {
        let mut copy = MemoryLog::new(events.clone());
        let expectations = Expectations {
            head: Some(head),
            copy: Some(&mut copy),
            ..Default::default()
        };
        let report = check(&events, expectations, threads).await.unwrap();
        assert_eq!(
            (report.events, report.head, report.unknown_events),
            (1_000, head, 0)
        );
        assert_eq!(report.aggregates, 100);
        assert!(report.compared);
    }
}

#[tokio::test]
async fn changed_payload_breaks_the_link() {
    let mut events = sample::events(1, 300, 20);
    let mut payload = events[120].payload.to_vec();
    payload[0] ^= 1;
    events[120].payload = payload.into();
    // a later one must not be named instead
    events[280].header.actor = "x".into();
    let found = finding(&events).await;
    assert_eq!((found.position, found.what), (Position(121), What::Hash));
    assert_eq!(found.found, events[120].hash.to_string());
}

#[tokio::test]
async fn changed_hash_breaks_the_link() {
    let mut events = sample::events(1, 300, 20);
    events[49].hash.0[31] ^= 1;
    let found = finding(&events).await;
    assert_eq!((found.position, found.what), (Position(50), What::Hash));
}

#[tokio::test]
async fn removed_event_is_missing() {
    for index in [0, 100, 298] {
        let mut events = sample::events(1, 300, 20);
        events.remove(index);
        let found = finding(&events).await;
        assert_eq!(
            (found.position, found.what),
            (Position(index as u64 + 1), What::Missing)
        );
    }
}

#[tokio::test]
async fn swapped_rows_break_the_link() {
    let mut events = sample::events(1, 300, 20);
    events.swap(100, 101);
    let (one, two) = events[100..102].split_at_mut(1);
    std::mem::swap(&mut one[0].header.position, &mut two[0].header.position);
    let found = finding(&events).await;
    assert_eq!((found.position, found.what), (Position(101), What::Hash));
}

#[tokio::test]
async fn gap_in_a_sequence_is_found_under_a_sound_chain() {
    let mut events = sample::events(1, 300, 20);
    let id = events[100].header.aggregate_id.clone();
    let bumped = events[100].header.sequence + 1;
    for event in events[100..]
        .iter_mut()
        .filter(|e| e.header.aggregate_id == id)
    {
        event.header.sequence += 1;
    }
    rechain(&mut events, 100);
    let found = finding(&events).await;
    assert_eq!(
        (found.position, found.what),
        (Position(101), What::Sequence)
    );
    assert!(found.expected.contains(&id), "{found}");
    assert_eq!(found.found, format!("sequence {bumped}"));
}

#[tokio::test]
async fn undecodable_payload_and_foreign_schema_are_found_under_a_sound_chain() {
    let mut events = sample::events(1, 300, 20);
    events[77].payload = [&events[77].payload[..], b"\0"].concat().into();
    rechain(&mut events, 77);
    let found = finding(&events).await;
    assert_eq!(
        (found.position, found.what),
        (Position(78), What::Undecodable)
    );

    let mut events = sample::events(1, 300, 20);
    events[77].header.schema_fingerprint[3] ^= 4;
    rechain(&mut events, 77);
    let found = finding(&events).await;
    assert_eq!((found.position, found.what), (Position(78), What::Schema));
}

#[tokio::test]
async fn events_of_a_newer_build_are_chained_and_counted() {
    let mut events = sample::events(1, 300, 20);
    events[299].header.event_type = "SomethingNew".into();
    events[150].header.event_version = 99;
    rechain(&mut events, 0);
    let report = check(&events, Expectations::default(), 2).await.unwrap();
    assert_eq!(report.unknown_events, 2);
    // but they cannot be folded
    let mut log = MemoryLog::new(events);
    let folded = replay(&mut log, Range::WHOLE, Options::default(), &mut quiet).await;
    let Err(ReplayError::Difference(found)) = folded else {
        panic!("{folded:?}")
    };
    assert_eq!(
        (found.position, found.what),
        (Position(151), What::Undecodable)
    );
}

#[tokio::test]
async fn cut_tail_is_found_by_the_head_that_another_source_names() {
    let events = sample::events(1, 300, 20);
    let head = Head {
        position: Position(300),
        hash: events[299].hash,
    };
    for threads in THREADS {
        let expectations = || Expectations {
            head: Some(head),
            ..Default::default()
        };
        let cut = check(&events[..260], expectations(), threads).await;
        let Err(ReplayError::Difference(found)) = cut else {
            panic!("{cut:?}")
        };
        assert_eq!((found.position, found.what), (Position(261), What::Missing));

        let mut other = events.clone();
        other[299].header.actor = "x".into();
        rechain(&mut other, 299);
        let other = check(&other, expectations(), threads).await;
        let Err(ReplayError::Difference(found)) = other else {
            panic!("{other:?}")
        };
        assert_eq!((found.position, found.what), (Position(300), What::Head));
    }
}

#[tokio::test]
async fn copies_that_differ_are_found_at_the_first_position() {
    let events = sample::events(1, 300, 20);
    let mut changed = events.clone();
    changed[199].header.actor = "x".into();
    let mut rehashed = events.clone();
    rehashed[199].hash.0[0] ^= 1;
    let mut holed = events.clone();
    holed.remove(199);
    let cut = events[..199].to_vec();
    for threads in THREADS {
        for copy in [&changed, &rehashed, &holed, &cut] {
            let mut copy = MemoryLog::new(copy.clone());
            let expectations = Expectations {
                copy: Some(&mut copy),
                ..Default::default()
            };
            let compared = check(&events, expectations, threads).await;
            let Err(ReplayError::Difference(found)) = compared else {
                panic!("{compared:?}")
            };
            assert_eq!((found.position, found.what), (Position(200), What::Copy));
        }
        // the copy has more
        let mut copy = MemoryLog::new(events.clone());
        let expectations = Expectations {
            copy: Some(&mut copy),
            ..Default::default()
        };
        let compared = check(&events[..299], expectations, threads).await;
        let Err(ReplayError::Difference(found)) = compared else {
            panic!("{compared:?}")
        };
        assert_eq!((found.position, found.what), (Position(300), What::Copy));
    }
}

#[tokio::test]
async fn part_of_a_log_verifies_from_the_stored_hash_before_it() {
    let events = sample::events(1, 300, 20);
    let range = Range::new(Some(Position(100)), Some(Position(200))).unwrap();
    for threads in THREADS {
        let options = Options { threads, batch: 7 };
        let mut log = MemoryLog::new(events.clone());
        let none = Expectations::default();
        let report = verify(&mut log, range, none, options, &mut quiet)
            .await
            .unwrap();
        assert_eq!(
            (report.first, report.last, report.events),
            (Position(100), Position(200), 101)
        );
        let folded = replay(&mut log, range, options, &mut quiet).await.unwrap();
        assert!(folded.partial);

        // the log holds nothing before the range, but the hash is known
        let mut tail = MemoryLog::new(events[99..].to_vec());
        let known = Expectations {
            previous_hash: Some(events[98].hash),
            ..Default::default()
        };
        verify(&mut tail, range, known, options, &mut quiet)
            .await
            .unwrap();
        // an end that does not exist
        let beyond = Range::new(Some(Position(100)), Some(Position(400))).unwrap();
        let missing = replay(&mut log, beyond, options, &mut quiet).await;
        let Err(ReplayError::Difference(found)) = missing else {
            panic!("{missing:?}")
        };
        assert_eq!((found.position, found.what), (Position(301), What::Missing));
    }
}

fn comparable(report: ReplayReport) -> ReplayReport {
    ReplayReport {
        duration_ms: 0,
        events_per_s: 0,
        ..report
    }
}

#[tokio::test]
async fn digests_are_equal_for_any_source_threads_and_batch_and_for_live_states() {
    let events = sample::events(11, 5_000, 400);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.avro");
    let mut log = MemoryLog::new(events.clone());
    export(&mut log, &path, Position(1), Position(5_000), &mut quiet)
        .await
        .unwrap();

    let mut reports = Vec::new();
    for threads in [1, 2, 3, 8] {
        for batch in [1, 13, 4_096] {
            let options = Options { threads, batch };
            let whole = Range::WHOLE;
            let report = replay(&mut log, whole, options, &mut quiet).await.unwrap();
            reports.push(comparable(report));
            let mut file = FileLog::open(&path).unwrap();
            let report = replay(&mut file, whole, options, &mut quiet).await.unwrap();
            reports.push(comparable(report));
            let file: &mut dyn EventLog = &mut file;
            let report = replay(file, whole, options, &mut quiet).await.unwrap();
            reports.push(comparable(report));
        }
    }
    let first = reports[0].clone();
    assert!(reports.iter().all(|report| *report == first));
    assert_eq!(
        (first.events, first.aggregates, first.partial),
        (5_000, 400, false)
    );

    let mut live = std::collections::HashMap::new();
    for event in &events {
        let aggregate_type = event.header.aggregate_type.parse().unwrap();
        let entry = live
            .entry((aggregate_type, event.header.aggregate_id.clone()))
            .or_insert_with(|| (0, AnyState::new(aggregate_type)));
        entry.0 = event.header.sequence;
        entry.1.apply_recorded(event).unwrap();
    }
    let states = live
        .into_iter()
        .map(|((t, id), (sequence, state))| (t, id, sequence, state));
    assert_eq!(digest_of_states(states), first.digests);

    // and not for anything else
    let range = Range::new(None, Some(Position(4_999))).unwrap();
    let shorter = replay(&mut log, range, Options::default(), &mut quiet)
        .await
        .unwrap();
    assert_ne!(shorter.digests.all, first.digests.all);
}

#[tokio::test]
async fn replay_stops_at_a_broken_link() {
    let mut events = sample::events(1, 300, 20);
    events[120].header.actor = "x".into();
    for threads in THREADS {
        let mut log = MemoryLog::new(events.clone());
        let options = Options { threads, batch: 11 };
        let folded = replay(&mut log, Range::WHOLE, options, &mut quiet).await;
        let Err(ReplayError::Difference(found)) = folded else {
            panic!("{folded:?}")
        };
        assert_eq!((found.position, found.what), (Position(121), What::Hash));
    }
}

#[tokio::test]
async fn empty_log_has_the_digests_of_nothing() {
    let mut log = MemoryLog::default();
    let report = replay(&mut log, Range::WHOLE, Options::default(), &mut quiet)
        .await
        .unwrap();
    assert_eq!((report.events, report.head), (0, Head::EMPTY));
    let nothing: [(_, String, u64, AnyState); 0] = [];
    assert_eq!(report.digests, digest_of_states(nothing));
}

#[tokio::test]
async fn progress_tells_each_position_reached() {
    let mut log = MemoryLog::new(sample::events(1, 100, 10));
    let mut told = Vec::new();
    let options = Options {
        threads: 1,
        batch: 40,
    };
    let mut tell = |position| told.push(position);
    replay(&mut log, Range::WHOLE, options, &mut tell)
        .await
        .unwrap();
    assert_eq!(told, [Position(40), Position(80), Position(100)]);
}

#[tokio::test]
async fn at_one_position_a_broken_link_is_named_before_what_follows_from_it() {
    for index in [0, 3, 77, 149, 299] {
        let mut events = sample::events(1, 300, 20);
        // breaks link and sequence, which may be two threads' business
        events[index].header.sequence += 1;
        let found = finding(&events).await;
        assert_eq!(
            (found.position, found.what),
            (Position(index as u64 + 1), What::Hash)
        );
    }
}

#[tokio::test]
async fn first_of_several_faults_is_named_whichever_thread_meets_which() {
    for (sequence, link) in [(60, 61), (61, 60), (10, 290), (290, 10), (120, 149)] {
        let mut events = sample::events(1, 300, 20);
        events[sequence].header.sequence += 1;
        rechain(&mut events, sequence);
        events[link].hash.0[0] ^= 1;
        let found = finding(&events).await;
        let expected = if sequence < link {
            (Position(sequence as u64 + 1), What::Sequence)
        } else {
            (Position(link as u64 + 1), What::Hash)
        };
        assert_eq!((found.position, found.what), expected);
    }
}

/// Whether a datum decodes, and whether both decoders say the same of it.
macro_rules! decoders_agree {
    ($event:expr, $payload:expr, $owned:ident, $borrowed:ident) => {{
        let (name, version) = (&*$event.header.event_type, $event.header.event_version);
        let owned = $owned::decode(name, version, $payload);
        let borrowed = $borrowed::decode(name.as_bytes(), version, $payload);
        match (&owned, borrowed) {
            (Ok(owned), Ok(borrowed)) => assert_eq!(owned.borrowed(), borrowed),
            (Err(owned), Err(borrowed)) => assert_eq!(*owned, borrowed),
            (owned, borrowed) => panic!("{name}: {owned:?} but {borrowed:?}"),
        }
        owned.is_ok()
    }};
}

#[test]
fn borrowed_decoders_say_what_the_owned_ones_say_of_any_bytes() {
    use sovereign_schemas::avro::EventGroup as _;
    use sovereign_schemas::borrowed::ToBorrowed as _;
    use sovereign_schemas::events::{
        AgentEvent, AgentEventRef, ApprovalEvent, ApprovalEventRef, TradeEvent, TradeEventRef,
    };
    let mut random = sample::Random(5);
    let mut counts = [0, 0];
    for event in sample::events(3, 2_000, 50) {
        for change in 0..20 {
            let mut payload = event.payload.to_vec();
            let at = random.below(payload.len() as u64 + 1) as usize;
            match change {
                0 => {}
                1..14 => {
                    if let Some(byte) = payload.get_mut(at) {
                        *byte ^= 1 << random.below(8);
                    }
                }
                14..17 => payload.truncate(at),
                _ => payload.insert(at, random.below(256) as u8),
            }
            let good = match &*event.header.aggregate_type {
                "agent" => decoders_agree!(event, &payload, AgentEvent, AgentEventRef),
                "trade" => decoders_agree!(event, &payload, TradeEvent, TradeEventRef),
                _ => decoders_agree!(event, &payload, ApprovalEvent, ApprovalEventRef),
            };
            counts[usize::from(good)] += 1;
        }
    }
    assert!(counts.iter().all(|count| *count > 1_000), "{counts:?}");
}
