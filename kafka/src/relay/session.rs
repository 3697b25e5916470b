use std::sync::Arc;
use std::time::Duration;

use sovereign_schemas::chain::Head;
use sovereign_schemas::{Departments, Position, Problem, Tail, Uuid};
use tokio::sync::watch;

use super::health::Shared;
use super::lane::{Targets, send_checkpoint};
use super::producer::TransactionalProducer;
use super::{Failure, LedgerProbe, RelayOptions, pipeline};
use crate::checkpoint::{self, Checkpoint, Standing};
use crate::client::Error;
use crate::registry::SchemaIds;
use crate::topics::{self, names};

/// The two transactional ids, behind the namespace.
const IDS: [&str; 2] = ["sovereign.relay.a", "sovereign.relay.b"];
/// How long a relay that was fenced waits until it looks whether another has signed the
/// checkpoint: longer than taking over takes.
const TAKE_OVER_MAX: Duration = Duration::from_secs(5);

/// Everything that outlives one attempt.
pub(crate) struct Session {
    pub(crate) id: Uuid,
    pub(crate) options: RelayOptions,
    pub(crate) ledger: Arc<dyn LedgerProbe>,
    pub(crate) schema_ids: SchemaIds,
    pub(crate) departments: Departments,
    pub(crate) shared: Arc<Shared>,
    pub(crate) stopped: watch::Receiver<bool>,
}

/// How a session ends without a failure.
pub(crate) enum Ended {
    Stopped,
}

/// Told to stop.
pub(crate) struct Stop;

impl Session {
    pub(crate) fn is_stopped(&self) -> bool {
        *self.stopped.borrow()
    }

    pub(crate) async fn sleep(&self, pause: Duration) -> Result<(), Stop> {
        let mut stopped = self.stopped.clone();
        match tokio::time::timeout(pause, stopped.wait_for(|stop| *stop)).await {
            Ok(_) => Err(Stop),
            Err(_) => Ok(()),
        }
    }

    /// One attempt: look, take over, look again, sign, relay.
    pub(crate) async fn run(&self, tail: &mut dyn Tail) -> Result<Ended, Failure> {
        topics::ensure_topics(&self.options.kafka, &self.departments, &self.options.topics).await?;
        // before anybody is fenced: an engine with the wrong ledger must not stop a good one
        self.agree(&self.standing(false).await?).await?;
        let producers = self.take_over().await?;
        let standing = self.standing(true).await?;
        self.agree(&standing).await?;
        let head = standing.head;
        let producers = self.sign(producers, head).await?;
        self.shared.advanced(head.position);
        self.shared.running();
        tracing::info!(position = %head.position, relay = %self.id, "relay runs");
        let targets = Targets {
            relay: self.id,
            topics: self
                .departments
                .iter()
                .map(|d| (d.id, self.options.kafka.topic(&d.topic())))
                .collect(),
            checkpoint_topic: self.checkpoint_topic(),
            schema_ids: self.schema_ids.clone(),
        };
        let mut stopped = self.stopped.clone();
        let ran = pipeline::run(
            producers,
            head,
            targets,
            &self.shared,
            &self.options,
            tail,
            &mut stopped,
        );
        ran.await?;
        if self.is_stopped() {
            return Ok(Ended::Stopped);
        }
        Err(Error::internal("relay", "both lanes ended").into())
    }

    fn checkpoint_topic(&self) -> String {
        self.options.kafka.topic(names::RELAY)
    }

    async fn standing(&self, settled: bool) -> Result<Standing, Failure> {
        let (kafka, departments) = (self.options.kafka.clone(), self.departments.clone());
        blocking(move || checkpoint::read(&kafka, &departments, settled).map_err(Failure::from))
            .await
    }

    /// Topics must not be ahead of the ledger, nor hold another history.
    async fn agree(&self, standing: &Standing) -> Result<(), Failure> {
        let topics = standing.head;
        let ledger = self.ledger.head().await?;
        self.shared.saw_head(ledger.position);
        if topics.position > ledger.position {
            let error = Error::Ahead {
                topics: topics.position,
                ledger: ledger.position,
            };
            return Err(error.into());
        }
        if topics.position == Position::START {
            return Ok(());
        }
        let expected = self.ledger.hash_at(topics.position).await?;
        if expected == Some(topics.hash) {
            return Ok(());
        }
        let expected = expected.map_or_else(|| "no such event".to_owned(), |h| h.to_string());
        let found = topics.hash.to_string();
        Err(Error::Diverged {
            position: topics.position,
            expected,
            found,
        }
        .into())
    }

    async fn take_over(&self) -> Result<[TransactionalProducer; 2], Failure> {
        let options = self.options.clone();
        blocking(move || {
            let [a, b] = IDS;
            let a = TransactionalProducer::take_over(&options, a)?;
            let b = TransactionalProducer::take_over(&options, b)?;
            Ok([a, b])
        })
        .await
    }

    /// Writes the same checkpoint under this relay's name.
    async fn sign(
        &self,
        producers: [TransactionalProducer; 2],
        head: Head,
    ) -> Result<[TransactionalProducer; 2], Failure> {
        let topic = self.checkpoint_topic();
        let checkpoint = Checkpoint {
            position: head.position,
            hash: head.hash,
            relay: self.id,
        };
        blocking(move || {
            let [a, _] = &producers;
            a.begin()?;
            send_checkpoint(a, &topic, &checkpoint)?;
            a.flush()?;
            a.commit()?;
            Ok(producers)
        })
        .await
    }

    /// The problem that ends the relay, if no further attempt can help.
    ///
    /// A relay whose transaction timed out at the brokers is fenced just like one that was
    /// replaced; only in the second case has somebody else signed the checkpoint.
    pub(crate) async fn final_problem(&self, failure: &Failure) -> Option<Problem> {
        if !matches!(failure, Failure::Kafka(Error::Fenced)) {
            return (!failure.passing()).then(|| failure.problem());
        }
        self.shared.waiting(failure.problem());
        while self.sleep(TAKE_OVER_MAX).await.is_ok() {
            let kafka = self.options.kafka.clone();
            let read = blocking(move || checkpoint::read_record(&kafka).map_err(Failure::from));
            match read.await {
                Ok(Some(found)) if found.relay == self.id => return None,
                Ok(_) => return Some(failure.problem()),
                Err(error) => self.shared.waiting(error.problem()),
            }
        }
        None
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::internal("relay", error).into()),
    }
}
