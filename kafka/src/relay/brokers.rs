use async_trait::async_trait;
use sovereign_schemas::Departments;
use tokio::runtime::Handle;

use super::RelayOptions;
use super::port::{LastEvent, RelayPort, TransactionalPort, Work};
use super::producer::TransactionalProducer;
use crate::checkpoint::{self, Checkpoint};
use crate::client::Error;
use crate::topics;

/// The real brokers, by way of librdkafka, whose calls block: each runs on a thread that may.
pub(crate) struct Brokers {
    options: RelayOptions,
}

impl Brokers {
    pub(crate) const fn new(options: RelayOptions) -> Self {
        Self { options }
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
