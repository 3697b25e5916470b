//! A stock read-committed consumer of all departments' topics.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use sovereign_schemas::Departments;

use crate::watchers::Shown;

const REQUEST_MAX: Duration = Duration::from_secs(10);

/// Consumers that give nothing more after a broker was killed, without a word, until they are made
/// anew, are known (librdkafka's issue 5153, rust-rdkafka's 597); one cause is gone, see
/// `sovereign_librdkafka`. Whoever waits for this one says so, and a new one goes on where it stood.
#[derive(Debug, Default)]
pub(crate) struct Silent {
    now: AtomicBool,
    pub(crate) times: AtomicUsize,
}

impl Silent {
    pub(crate) fn say(&self) {
        self.now.store(true, Ordering::SeqCst);
    }
}

pub(crate) struct TopicsWatcher {
    brokers: String,
    consumer: BaseConsumer,
    /// By topic and partition, the offset behind the last record.
    next: BTreeMap<(String, i32), Offset>,
    shown: Arc<Shown>,
    silent: Arc<Silent>,
}

impl TopicsWatcher {
    pub(crate) fn open(brokers: &str, shown: Arc<Shown>) -> anyhow::Result<Self> {
        let consumer = connect(brokers)?;
        let mut next = BTreeMap::new();
        for department in Departments::default().iter() {
            let topic = department.topic();
            let metadata = consumer.fetch_metadata(Some(&topic), REQUEST_MAX)?;
            for partition in metadata.topics()[0].partitions() {
                next.insert((topic.clone(), partition.id()), Offset::Beginning);
            }
        }
        anyhow::ensure!(next.len() >= 7, "the topics are not there");
        let watcher = Self {
            brokers: brokers.to_owned(),
            consumer,
            next,
            shown,
            silent: Arc::default(),
        };
        watcher.assign()?;
        Ok(watcher)
    }

    pub(crate) fn silent(&self) -> Arc<Silent> {
        Arc::clone(&self.silent)
    }

    fn assign(&self) -> anyhow::Result<()> {
        let mut list = TopicPartitionList::new();
        for ((topic, partition), offset) in &self.next {
            list.add_partition_offset(topic, *partition, *offset)?;
        }
        Ok(self.consumer.assign(&list)?)
    }

    pub(crate) fn watch(mut self, duplicates: &AtomicUsize, stop: &AtomicBool) {
        let mut last: HashMap<(String, i32), u64> = HashMap::new();
        let mut heard = String::new();
        while !stop.load(Ordering::SeqCst) {
            if self.silent.now.swap(false, Ordering::SeqCst)
                && let Err(error) = self.reopen()
            {
                eprintln!("watcher of the topics: {error:#}");
            }
            let message = match self.consumer.poll(Duration::from_millis(50)) {
                Some(Ok(message)) => message,
                // a broker that is away is waited for; a partition that stays silent says why
                Some(Err(error)) => {
                    let text = error.to_string();
                    if text != heard {
                        eprintln!("watcher of the topics: {text}");
                        heard = text;
                    }
                    continue;
                }
                None => continue,
            };
            let at = (message.topic().to_owned(), message.partition());
            let next = Offset::Offset(message.offset() + 1);
            look(&self.shown, &message, &at, &mut last, duplicates);
            self.next.insert(at, next);
        }
    }

    /// A new consumer, where the old one stood. Says what the old one did not see.
    fn reopen(&mut self) -> anyhow::Result<()> {
        let fresh = connect(&self.brokers)?;
        let positions = self.consumer.position()?;
        for ((topic, partition), next) in &self.next {
            let (_, high) = fresh.fetch_watermarks(topic, *partition, REQUEST_MAX)?;
            if *next != Offset::Offset(high) {
                let position = positions.find_partition(topic, *partition);
                let position = position.map(|found| found.offset());
                eprintln!(
                    "watcher of the topics: {topic}/{partition} at {next:?} \
                     (librdkafka: {position:?}) of {high}"
                );
            }
        }
        self.consumer = fresh;
        self.silent.times.fetch_add(1, Ordering::SeqCst);
        self.assign()
    }
}

fn connect(brokers: &str) -> anyhow::Result<BaseConsumer> {
    Ok(ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "kills-watcher")
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_committed")
        .set("auto.offset.reset", "error")
        .set("fetch.wait.max.ms", "50")
        .set("reconnect.backoff.max.ms", "500")
        .create()?)
}

fn header(message: &BorrowedMessage<'_>, name: &str) -> Option<String> {
    let found = message
        .headers()?
        .iter()
        .find(|header| header.key == name)?;
    String::from_utf8(found.value?.to_vec()).ok()
}

/// Each position once, in the order of its partition.
fn look(
    shown: &Shown,
    message: &BorrowedMessage<'_>,
    at: &(String, i32),
    last: &mut HashMap<(String, i32), u64>,
    duplicates: &AtomicUsize,
) {
    let position = header(message, "sovereign_position").and_then(|text| text.parse().ok());
    let (Some(position), Some(hash)) = (position, header(message, "sovereign_hash")) else {
        let (topic, partition) = at;
        let offset = message.offset();
        shown.fault(&format!("{topic}/{partition} offset {offset} is no event"));
        return;
    };
    let before = last.insert(at.clone(), position).unwrap_or_default();
    if position <= before {
        let (topic, partition) = at;
        shown.fault(&format!(
            "{topic}/{partition}: position {position} after {before}"
        ));
    }
    if !shown.note(position, hash) {
        duplicates.fetch_add(1, Ordering::SeqCst);
        shown.fault(&format!("{}/{}: position {position} twice", at.0, at.1));
    }
}
