//! The three logs of one engine, held to one contract.

use sovereign_event_store::LedgerReader;
use sovereign_kafka::{KafkaLog, KafkaOptions};
use sovereign_replay::FileLog;
use sovereign_replay::contract::event_log_contract;
use sovereign_schemas::{Cursor, Departments, EventLog, RecordedEvent};

use crate::harness::small;

pub(crate) async fn all(log: &mut dyn EventLog) -> Vec<RecordedEvent> {
    let (mut cursor, mut all) = (Cursor::default(), Vec::new());
    loop {
        let (events, next) = log.read(cursor, 4_096).await.unwrap();
        if events.is_empty() {
            return all;
        }
        all.extend(events);
        cursor = next;
    }
}

#[test]
fn ledger_topics_and_file_keep_one_contract() {
    let engine = small();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("log.avro");
    engine.run(&["export", file.to_str().unwrap()]).ok();
    let status = engine.status();
    let database = status["database"].as_str().unwrap();
    let brokers = status["brokers"].as_str().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let reader = LedgerReader::connect(database, 2).unwrap();
        let events = all(&mut reader.log()).await;
        assert_eq!(events.len() as u64, status["head"].as_u64().unwrap());
        let ledger = async || Box::new(reader.log()) as Box<dyn EventLog>;
        event_log_contract(ledger, &events).await;
        let recorded = async || Box::new(FileLog::open(&file).unwrap()) as Box<dyn EventLog>;
        event_log_contract(recorded, &events).await;
        let topics = async || {
            let log = KafkaLog::new(KafkaOptions::new(brokers), Departments::default());
            Box::new(log) as Box<dyn EventLog>
        };
        event_log_contract(topics, &events).await;
    });
}
