use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use rdkafka::consumer::BaseConsumer;
use sovereign_schemas::Departments;
use tokio::runtime::Handle;

use super::RelayOptions;
use super::port::{LastEvent, RelayPort, TransactionalPort, Work, Written};
use super::producer::TransactionalProducer;
use crate::checkpoint::{self, Checkpoint};
use crate::client::{Context, Error};
use crate::partitions::TopicPartition;
use crate::{offsets, reach, topics};

/// The real brokers, by way of librdkafka, whose calls block: each runs on a thread that may.
pub(crate) struct Brokers {
    options: RelayOptions,
    /// Asks what readers see; kept, as each has connections of its own.
    reader: Arc<Mutex<Option<BaseConsumer<Context>>>>,
}

impl Brokers {
    pub(crate) fn new(options: RelayOptions) -> Self {
        Self {
            options,
            reader: Arc::default(),
        }
    }
}

#[async_trait]
impl RelayPort for Brokers {
    async fn ensure_topics(&self, departments: &Departments) -> Result<(), Error> {
        topics::ensure_topics(&self.options.kafka, departments, &self.options.topics).await?;
        Ok(())
    }

    async fn checkpoint(&self) -> Result<Option<Checkpoint>, Error> {
        let kafka = self.options.kafka.clone();
        blocking(move || checkpoint::read_record(&kafka)).await
    }

    async fn last_event(&self, departments: &Departments) -> Result<LastEvent, Error> {
        let (kafka, departments) = (self.options.kafka.clone(), departments.clone());
        blocking(move || checkpoint::last_event(&kafka, &departments)).await
    }

    async fn ends(&self, written: &[Written]) -> Result<Vec<i64>, Error> {
        let (kafka, kept) = (self.options.kafka.clone(), Arc::clone(&self.reader));
        let at = |w: &Written| TopicPartition {
            topic: w.topic.clone(),
            partition: w.partition,
        };
        let partitions: Vec<TopicPartition> = written.iter().map(at).collect();
        blocking(move || {
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            let reader = match kept.take() {
                Some(reader) => reader,
                None => reach::consumer(&kafka)?,
            };
            offsets::ends(kept.insert(reader), &partitions)
        })
        .await
    }

    async fn take_over(&self, transactional_id: &str) -> Result<Box<dyn TransactionalPort>, Error> {
        let (options, id) = (self.options.clone(), transactional_id.to_owned());
        let producer = blocking(move || TransactionalProducer::take_over(&options, &id)).await?;
        Ok(Box::new(producer))
    }

    fn run(&self, name: &str, work: Work) -> Result<(), Error> {
        let runtime = Handle::current();
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || runtime.block_on(work))
            .map_err(|e| Error::internal("start relay thread", e))?;
        Ok(())
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::internal("relay", error)),
    }
}
