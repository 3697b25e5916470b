use std::path::{Path, PathBuf};

use sovereign_schemas::{Cursor, EventLog, LogError, MemoryLog, Position, RecordedEvent, avro};
use tempfile::TempDir;

use super::*;
use crate::contract::event_log_contract;
use crate::{
    Difference, Expectations, Options, Range, ReplayError, What, export, replay, sample, verify,
};

const ONE: Options = Options {
    threads: 1,
    batch: 64,
};

async fn written(events: &[RecordedEvent]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.avro");
    let (first, last) = (events[0].position(), events[events.len() - 1].position());
    let mut log = MemoryLog::new(events.to_vec());
    export(&mut log, &path, first, last, &mut |_| {})
        .await
        .unwrap();
    (folder, path)
}

/// The difference that verify finds in the file, if any.
async fn damage(path: &Path, options: Options) -> Option<Difference> {
    let mut file = match FileLog::open(path) {
        Ok(file) => file,
        Err(ReplayError::Difference(found)) => return Some(found),
        Err(error) => panic!("{error}"),
    };
    let checked = verify(
        &mut file,
        Range::WHOLE,
        Expectations::default(),
        options,
        &mut |_| {},
    )
    .await;
    match checked {
        Ok(_) => None,
        Err(ReplayError::Difference(found)) => Some(found),
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn file_keeps_the_contract() {
    let events = sample::events(1, 3_000, 300);
    let (_folder, path) = written(&events).await;
    assert!(FileLog::open(&path).unwrap().length > 2 * BLOCK_BYTES_TARGET as u64);
    let open = async || Box::new(FileLog::open(&path).unwrap()) as Box<dyn EventLog>;
    event_log_contract(open, &events).await;
}

#[tokio::test]
async fn part_of_a_log_keeps_the_contract_and_verifies() {
    let all = sample::events(1, 3_000, 300);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("part.avro");
    let mut log = MemoryLog::new(all.clone());
    export(
        &mut log,
        &path,
        Position(1_001),
        Position(2_500),
        &mut |_| {},
    )
    .await
    .unwrap();
    let open = async || Box::new(FileLog::open(&path).unwrap()) as Box<dyn EventLog>;
    event_log_contract(open, &all[1_000..2_500]).await;
    let mut file = FileLog::open(&path).unwrap();
    let report = verify(
        &mut file,
        Range::WHOLE,
        Expectations::default(),
        ONE,
        &mut |_| {},
    )
    .await
    .unwrap();
    assert_eq!(
        (report.first, report.last, report.events),
        (Position(1_001), Position(2_500), 1_500)
    );
    // what lies before the file is missing, not forgotten
    let range = Range::new(Some(Position(1)), None).unwrap();
    let missing = replay(&mut file, range, ONE, &mut |_| {}).await;
    let Err(ReplayError::Difference(found)) = missing else {
        panic!("{missing:?}")
    };
    assert_eq!((found.position, found.what), (Position(1), What::Missing));
}

#[tokio::test]
async fn file_without_events_is_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("empty.avro");
    let mut log = MemoryLog::default();
    let info = export(&mut log, &path, Position(1), Position(0), &mut |_| {})
        .await
        .unwrap();
    assert_eq!(info.last_hash, Digest::ZERO);
    assert_eq!(damage(&path, ONE).await, None);
    let (events, _) = FileLog::open(&path)
        .unwrap()
        .read(Cursor::default(), 10)
        .await
        .unwrap();
    assert_eq!(events, []);
}

#[tokio::test]
async fn equal_exports_are_equal_files() {
    let events = sample::events(2, 500, 30);
    let (_one, first) = written(&events).await;
    let (_two, second) = written(&events).await;
    assert_eq!(
        std::fs::read(first).unwrap(),
        std::fs::read(second).unwrap()
    );
}

#[tokio::test]
async fn every_flipped_bit_is_found() {
    let (_folder, path) = written(&sample::events(3, 1_500, 100)).await;
    let good = std::fs::read(&path).unwrap();
    assert_eq!(damage(&path, ONE).await, None);
    let header = FileLog::open(&path).unwrap().container.length;
    let mut random = sample::Random(7);
    let mut draw = |bound: usize| random.below(bound as u64) as usize;
    for round in 0..1_000 {
        // every fifth in the header, which is small
        let byte = draw(if round % 5 == 0 { header } else { good.len() });
        let bit = draw(8);
        let mut bad = good.clone();
        bad[byte] ^= 1 << bit;
        std::fs::write(&path, &bad).unwrap();
        let threads = 1 + round % 2;
        let found = damage(&path, Options { threads, batch: 64 }).await;
        assert!(
            found.is_some(),
            "bit {bit} of byte {byte} of {}",
            good.len()
        );
    }
}

#[tokio::test]
async fn damaged_files_are_read_without_a_panic() {
    let events = sample::events(13, 1_500, 100);
    let (_folder, path) = written(&events).await;
    let good = std::fs::read(&path).unwrap();
    let start = FileLog::open(&path).unwrap().container.length;
    let mut random = sample::Random(13);
    let mut draw = |bound: usize| random.below(bound as u64) as usize;
    for _ in 0..300 {
        let mut bad = good.clone();
        for _ in 0..1 + draw(4) {
            let at = start + draw(good.len() - start - 8);
            let patch = draw(usize::MAX).to_le_bytes();
            bad[at..at + 8].copy_from_slice(&patch);
        }
        // the frame of the first block, which decides how everything is read
        if draw(3) == 0 {
            bad[start + draw(4)] = draw(256) as u8;
        }
        std::fs::write(&path, &bad).unwrap();
        let mut log = FileLog::open(&path).unwrap();
        for _ in 0..8 {
            let after = Position(draw(1_502) as u64);
            if let Ok((found, _)) = log.read(after.into(), 1 + draw(200)).await {
                assert!(
                    found
                        .iter()
                        .zip(after.0 + 1..)
                        .all(|(e, at)| e.position().0 == at)
                );
            }
        }
        assert!(damage(&path, ONE).await.is_some());
    }
}

#[tokio::test]
async fn wrong_block_count_is_found_behind_the_last_good_event() {
    let (_folder, path) = written(&sample::events(14, 1_500, 100)).await;
    let good = std::fs::read(&path).unwrap();
    let start = FileLog::open(&path).unwrap().container.length;
    let first = {
        let mut log = FileLog::open(&path).unwrap();
        log.read(Position(1_400).into(), 1).await.unwrap();
        log.marks[1].first.0 - 1
    };
    for (wrong, last_good) in [(first - 1, first - 1), (first + 1, first)] {
        let mut bad = good.clone();
        let mut count = Vec::new();
        avro::put_long(&mut count, wrong.cast_signed());
        bad[start..start + count.len()].copy_from_slice(&count);
        std::fs::write(&path, &bad).unwrap();
        let (after, error) = read_error(&path).await;
        assert_eq!(after, last_good);
        assert!(matches!(error, LogError::Malformed { .. }), "{error}");
    }
}

#[tokio::test]
async fn every_truncation_is_found() {
    let (_folder, path) = written(&sample::events(4, 12, 4)).await;
    let good = std::fs::read(&path).unwrap();
    let header = FileLog::open(&path).unwrap().container.length;
    let front = 0..4_096.min(good.len());
    for length in front.chain(header - 20..good.len()) {
        std::fs::write(&path, &good[..length]).unwrap();
        assert!(
            damage(&path, ONE).await.is_some(),
            "cut at {length} of {}",
            good.len()
        );
    }
}

/// The file with one more or less of something, for the cases that flips do not make.
async fn read_error(path: &Path) -> (u64, LogError) {
    let mut log = FileLog::open(path).unwrap();
    let mut cursor = Cursor::default();
    loop {
        match log.read(cursor, 100).await {
            Ok((events, _)) if events.is_empty() => panic!("no error up to {cursor:?}"),
            Ok((_, next)) => cursor = next,
            Err(error) => return (cursor.position.0, error),
        }
    }
}

#[tokio::test]
async fn reading_names_the_last_good_position() {
    let events = sample::events(5, 2_500, 100);
    let (_folder, path) = written(&events).await;
    let good = std::fs::read(&path).unwrap();

    // a cut tail: all events before the cut are read
    std::fs::write(&path, &good[..good.len() - 400]).unwrap();
    let (after, error) = read_error(&path).await;
    assert!(after >= 2_497, "{after}");
    assert!(
        matches!(error, LogError::Malformed { after: p, .. } if p.0 == after),
        "{error}"
    );

    // a whole block cut off
    let mut log = FileLog::open(&path).unwrap();
    log.read(Position(2_000).into(), 1).await.unwrap();
    let mark = log.marks[1];
    std::fs::write(&path, &good[..mark.offset as usize]).unwrap();
    let (after, error) = read_error(&path).await;
    assert_eq!(after, mark.first.0 - 1);
    assert!(
        matches!(error, LogError::Gap { expected, found } if expected == mark.first && found.0 == 2_500),
        "{error}"
    );
    assert_eq!(
        damage(&path, ONE).await.map(|d| (d.position, d.what)),
        Some((mark.first, What::Missing))
    );

    // something behind the end
    std::fs::write(&path, [&good[..], b"\0"].concat()).unwrap();
    assert!(matches!(
        read_error(&path).await,
        (2_500, LogError::Malformed { .. })
    ));
    std::fs::write(&path, [&good[..], &good[mark.offset as usize..]].concat()).unwrap();
    assert!(matches!(
        read_error(&path).await,
        (2_500, LogError::Malformed { .. })
    ));

    // a wrong sync marker after the first block
    let mut bad = good.clone();
    bad[mark.offset as usize - 1] ^= 1;
    std::fs::write(&path, &bad).unwrap();
    let (after, error) = read_error(&path).await;
    assert_eq!(after, mark.first.0 - 1);
    assert!(matches!(error, LogError::Malformed { .. }), "{error}");
}

#[tokio::test]
async fn lengths_are_not_trusted() {
    let (_folder, path) = written(&sample::events(6, 50, 5)).await;
    let good = std::fs::read(&path).unwrap();
    let start = FileLog::open(&path).unwrap().container.length;
    for frame in [
        vec![i64::MAX, i64::MAX],
        vec![50, i64::MAX],
        vec![i64::MAX, 4_000],
        vec![-50, 4_000],
        vec![50, -1],
        vec![0, 0],
    ] {
        let mut bad = good[..start].to_vec();
        for value in &frame {
            avro::put_long(&mut bad, *value);
        }
        bad.extend_from_slice(&good[start + 4..]);
        std::fs::write(&path, &bad).unwrap();
        assert!(damage(&path, ONE).await.is_some(), "{frame:?}");
    }
    // a metadata length beyond the file
    let mut bad = MAGIC.to_vec();
    avro::put_long(&mut bad, 1);
    avro::put_long(&mut bad, i64::MAX);
    std::fs::write(&path, &bad).unwrap();
    assert_eq!(
        damage(&path, ONE).await.map(|d| d.position),
        Some(Position(0))
    );
}

#[tokio::test]
async fn swapped_and_removed_events_are_found_where_they_are() {
    let events = sample::events(7, 300, 20);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.avro");
    let info = FileInfo {
        first: Position(1),
        last: Position(300),
        previous_hash: Digest::ZERO,
        last_hash: events[299].hash,
    };
    for what in ["swapped", "removed"] {
        let mut wrong = events.clone();
        if what == "swapped" {
            wrong.swap(99, 100);
        } else {
            wrong.remove(99);
        }
        let mut writer = FileWriter::create(&path, info).unwrap();
        let refused = wrong.iter().try_for_each(|event| writer.push(event));
        let Err(ReplayError::Difference(found)) = refused else {
            panic!("{refused:?}")
        };
        assert_eq!(found.position, Position(100), "{what}");
        drop(writer);
        assert_eq!(
            std::fs::read_dir(folder.path()).unwrap().count(),
            0,
            "nothing is left behind"
        );
    }
}

#[tokio::test]
async fn damaged_log_is_not_exported_and_the_old_file_stays() {
    let events = sample::events(8, 300, 20);
    let (folder, path) = written(&events).await;
    let good = std::fs::read(&path).unwrap();
    let mut wrong = events.clone();
    wrong[150].header.actor = "somebody".into();
    let mut log = MemoryLog::new(wrong);
    let refused = export(&mut log, &path, Position(1), Position(300), &mut |_| {}).await;
    let Err(ReplayError::Difference(found)) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!((found.position, found.what), (Position(151), What::Hash));
    assert_eq!(std::fs::read(&path).unwrap(), good);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn large_events_fit() {
    let mut events = sample::events(9, 10, 2);
    let mut previous = Digest::ZERO;
    for event in &mut events {
        event.payload = vec![7; sovereign_schemas::PAYLOAD_BYTES_MAX].into();
        event.hash =
            sovereign_schemas::chain::expected_hash(&previous, &event.header, &event.payload);
        previous = event.hash;
    }
    let (_folder, path) = written(&events).await;
    let open = async || Box::new(FileLog::open(&path).unwrap()) as Box<dyn EventLog>;
    event_log_contract(open, &events).await;
}

#[test]
fn missing_file_is_the_users_mistake() {
    let error = FileLog::open("/nowhere/at/all.avro").unwrap_err();
    assert_eq!(error.code(), sovereign_schemas::ErrorCode::InvalidUsage);
}
