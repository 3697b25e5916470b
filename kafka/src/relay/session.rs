use std::sync::Arc;
use std::time::Duration;

use sovereign_schemas::chain::Head;
use sovereign_schemas::{Departments, Position, Problem, Tail, Uuid};
use tokio::sync::{oneshot, watch};

use super::health::Shared;
use super::lane::{Targets, send_checkpoint};
use super::port::{RelayPort, TransactionalPort};
use super::{Failure, LedgerProbe, RelayOptions, pipeline};
use crate::checkpoint::{self, Checkpoint};
use crate::client::Error;
use crate::registry::SchemaIds;
use crate::topics::names;

/// The two transactional ids, behind the namespace.
const IDS: [&str; 2] = ["sovereign.relay.a", "sovereign.relay.b"];
/// How long a relay that was fenced waits until it looks whether another has signed the
/// checkpoint: longer than taking over takes.
const TAKE_OVER_MAX: Duration = Duration::from_secs(5);

/// How long a checkpoint may be ahead of the events on the topics, and pause between two looks.
const SETTLE_MAX: Duration = Duration::from_secs(10);
const SETTLE_PAUSE: Duration = Duration::from_millis(200);

/// Everything that outlives one attempt.
pub(crate) struct Session {
    pub(crate) id: Uuid,
    pub(crate) port: Arc<dyn RelayPort>,
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
    /// Another engine is to relay.
    NotOurTurn,
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
        self.port.ensure_topics(&self.departments).await?;
        // before anybody is fenced: an engine with the wrong ledger must not stop a good one
        self.agree(self.standing(false).await?).await?;
        if !self.confirmed().await? {
            return Ok(Ended::NotOurTurn);
        }
        let producers = self.take_over().await?;
        let head = self.settled().await?;
        self.agree(head).await?;
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
        let (halt, mut halted) = watch::channel(false);
        let ran = pipeline::run(
            self.port.as_ref(),
            producers,
            head,
            targets,
            &self.shared,
            &self.options,
            tail,
            &mut halted,
        );
        tokio::select! {
            biased;
            ran = ran => ran?,
            () = self.halt_in_time(halt) => {}
        }
        if self.is_stopped() {
            return Ok(Ended::Stopped);
        }
        if !self.has_turn() {
            return Ok(Ended::NotOurTurn);
        }
        Err(Error::internal("relay", "both lanes ended").into())
    }

    fn checkpoint_topic(&self) -> String {
        self.options.kafka.topic(names::RELAY)
    }

    async fn standing(&self, settled: bool) -> Result<Head, Failure> {
        // the checkpoint first: an event that becomes visible in between is no contradiction
        let found = self.port.checkpoint().await?;
        let last = self.port.last_event().await?;
        Ok(checkpoint::standing(found, last, settled)?)
    }

    /// What stands once both ids are taken over. If another relay took over the first id while this
    /// one took over the second, a transaction of that one may still become visible: that ends by
    /// itself, and a real difference does not.
    async fn settled(&self) -> Result<Head, Failure> {
        let deadline = tokio::time::Instant::now() + SETTLE_MAX;
        loop {
            match self.standing(true).await {
                Err(Failure::Kafka(Error::Diverged { .. }))
                    if tokio::time::Instant::now() < deadline =>
                {
                    tokio::time::sleep(SETTLE_PAUSE).await;
                }
                settled => return settled,
            }
        }
    }

    /// Topics must not be ahead of the ledger, nor hold another history.
    async fn agree(&self, topics: Head) -> Result<(), Failure> {
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

    async fn take_over(&self) -> Result<[Box<dyn TransactionalPort>; 2], Failure> {
        let [a, b] = IDS;
        // in one order everywhere: who signs with the first id then holds the second as well, or
        // nobody does. Taken at once, another relay could keep the second, and commit behind a
        // standing that was already read.
        let a = self.port.take_over(a).await?;
        let b = self.port.take_over(b).await?;
        Ok([a, b])
    }

    /// Writes the same checkpoint under this relay's name.
    async fn sign(
        &self,
        producers: [Box<dyn TransactionalPort>; 2],
        head: Head,
    ) -> Result<[Box<dyn TransactionalPort>; 2], Failure> {
        let topic = self.checkpoint_topic();
        let checkpoint = Checkpoint {
            position: head.position,
            hash: head.hash,
            relay: self.id,
        };
        let (tell, signed) = oneshot::channel();
        let work = async move {
            let _ = tell.send(signed_by_first(producers, &topic, &checkpoint).await);
        };
        self.port.run("relay-sign", Box::pin(work))?;
        let lost = |_| Error::internal("relay", "signing the checkpoint panicked");
        signed.await.map_err(lost)?
    }

    /// The problem that ends the relay, if no further attempt can help.
    ///
    /// A relay whose transaction timed out at the brokers is fenced just like one that was
    /// replaced; only in the second case has somebody else signed the checkpoint. Where engines
    /// take turns neither is final: the next attempt asks first whose turn it is.
    pub(crate) async fn final_problem(&self, failure: &Failure) -> Option<Problem> {
        if self.options.turn.is_some() && matches!(failure, Failure::Kafka(Error::Fenced)) {
            return None;
        }
        if !matches!(failure, Failure::Kafka(Error::Fenced)) {
            return (!failure.passing()).then(|| failure.problem());
        }
        self.shared.waiting(failure.problem());
        while self.sleep(TAKE_OVER_MAX).await.is_ok() {
            match self.port.checkpoint().await {
                Ok(Some(found)) if found.relay == self.id => return None,
                Ok(_) => return Some(failure.problem()),
                Err(error) => self.shared.waiting(error.problem()),
            }
        }
        None
    }
}

async fn signed_by_first(
    mut producers: [Box<dyn TransactionalPort>; 2],
    topic: &str,
    checkpoint: &Checkpoint,
) -> Result<[Box<dyn TransactionalPort>; 2], Failure> {
    let [a, _] = &mut producers;
    a.begin()?;
    send_checkpoint(a.as_mut(), topic, checkpoint)?;
    a.flush().await?;
    a.commit().await?;
    Ok(producers)
}
