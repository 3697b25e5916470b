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
    departments: Departments,
    /// Asks what stands on the topics.
    standing: Arc<Mutex<Option<checkpoint::Reader>>>,
    /// Asks what readers see; kept, as each has connections of its own.
    reader: Arc<Mutex<Option<BaseConsumer<Context>>>>,
}

impl Brokers {
    pub(crate) fn new(options: RelayOptions, departments: Departments) -> Self {
        Self {
            options,
            departments,
            standing: Arc::default(),
            reader: Arc::default(),
        }
    }

    async fn standing<T: Send + 'static>(
        &self,
        ask: impl Fn(&checkpoint::Reader) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (kafka, departments) = (self.options.kafka.clone(), self.departments.clone());
        let kept = Arc::clone(&self.standing);
        blocking(move || {
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            // taken out: one that failed is not used again
            let reader = match kept.take().filter(checkpoint::Reader::is_fresh) {
                Some(reader) => reader,
                None => checkpoint::Reader::open(&kafka, &departments)?,
            };
            let found = ask(&reader)?;
            *kept = Some(reader);
            Ok(found)
        })
        .await
    }
}

#[async_trait]
impl RelayPort for Brokers {
    async fn ensure_topics(&self, departments: &Departments) -> Result<(), Error> {
        topics::ensure_topics(&self.options.kafka, departments, &self.options.topics).await?;
        Ok(())
    }

    async fn checkpoint(&self) -> Result<Option<Checkpoint>, Error> {
        self.standing(checkpoint::Reader::record).await
    }

    async fn last_event(&self) -> Result<LastEvent, Error> {
        self.standing(checkpoint::Reader::last_event).await
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
        let (kafka, timeout) = (options.kafka, options.transaction_timeout);
        let taken = blocking(move || TransactionalProducer::take_over(&kafka, &id, timeout));
        Ok(Box::new(taken.await?))
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
