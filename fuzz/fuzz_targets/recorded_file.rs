//! Bytes as a recorded file: reading, verifying and replaying end with an answer, events come dense
//! and within what the file says of itself, and what `verify` accepts is a chain.
#![no_main]

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use sovereign_replay::{
    Expectations, FileInfo, FileLog, FileWriter, Options, Range, replay, verify,
};
use sovereign_schemas::avro::{self, Reader};
use sovereign_schemas::chain::{self, Head};
use sovereign_schemas::{Cursor, Digest, EventHeader, EventLog, Position, RecordedEvent};
use tokio::runtime::{Builder, Runtime};

struct Scene {
    _folder: tempfile::TempDir,
    path: PathBuf,
    /// Everything before the first block of a good file.
    header: Vec<u8>,
    runtime: Runtime,
}

static SCENE: LazyLock<Scene> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("log.avro");
    let events = sovereign_replay::sample::events(1, 8, 3);
    let info = FileInfo {
        first: Position(1),
        last: Position(8),
        previous_hash: Digest::ZERO,
        last_hash: events[7].hash,
    };
    let mut writer = FileWriter::create(&path, info).expect("writable");
    for event in &events {
        writer.push(event).expect("a chain");
    }
    writer.finish().expect("complete");
    let good = fs::read(&path).expect("readable");
    let header = good[..header_bytes(&good).expect("a header")].to_vec();
    let runtime = Builder::new_current_thread().build().expect("a runtime");
    Scene {
        _folder: folder,
        path,
        header,
        runtime,
    }
});

fn header_bytes(file: &[u8]) -> Result<usize, avro::DecodeError> {
    let mut input = Reader::new(file);
    input.take(4)?;
    for _ in 0..input.long()? {
        input.bytes()?;
        input.bytes()?;
    }
    input.long()?;
    input.take(16)?;
    Ok(input.at())
}

/// Three ways to a file: as it is; behind a good header; as the records of one well framed block.
fn file(data: &[u8]) -> Option<Vec<u8>> {
    let header = &SCENE.header;
    match data {
        [0, file @ ..] => Some(file.to_vec()),
        [1, blocks @ ..] => Some([header, blocks].concat()),
        [2, count, records @ ..] => {
            let mut file = header.clone();
            avro::put_long(&mut file, i64::from(*count));
            avro::put_bytes(&mut file, records);
            file.extend_from_slice(&header[header.len() - 16..]);
            Some(file)
        }
        _ => None,
    }
}

fuzz_target!(|data: &[u8]| {
    let Some(bytes) = file(data) else { return };
    fs::write(&SCENE.path, bytes).expect("writable");
    let Ok(mut log) = FileLog::open(&SCENE.path) else {
        return;
    };
    SCENE.runtime.block_on(check(&mut log));
});

async fn check(log: &mut FileLog) {
    let info = log.info();
    let events = read(log, info).await;
    let options = Options {
        threads: 1,
        batch: 3,
    };
    let all = Range::WHOLE;
    let verified = verify(
        &mut *log,
        all,
        Expectations::default(),
        options,
        &mut |_| {},
    )
    .await;
    if let Ok(report) = verified {
        let mut head = Head {
            position: Position(info.first.0 - 1),
            hash: info.previous_hash,
        };
        for event in &events {
            assert_eq!(chain::advance(&mut head, event), Ok(()));
        }
        assert_eq!((head, report.head), (report.head, head));
        assert_eq!(head.hash, info.last_hash);
    }
    let _ = replay(&mut *log, all, options, &mut |_| {}).await;
}

/// What can be read, in small and uneven steps.
async fn read(log: &mut FileLog, info: FileInfo) -> Vec<RecordedEvent> {
    let mut all: Vec<RecordedEvent> = Vec::new();
    let mut cursor = Cursor::from(Position(info.first.0 - 1));
    while let Ok((events, next)) = log.read(cursor, 1 + all.len() % 5).await {
        if events.is_empty() {
            break;
        }
        for event in &events {
            let before = all.last().map_or(info.first.0 - 1, |e| e.position().0);
            assert_eq!(event.position().0, before + 1);
            assert!(event.position() <= info.last);
            let mut header = Vec::new();
            event.header.encode(&mut header);
            assert_eq!(EventHeader::decode(&header).as_ref(), Ok(&event.header));
            all.push(event.clone());
        }
        assert_eq!(all.last().map(RecordedEvent::position), Some(next.position));
        cursor = next;
    }
    all
}
