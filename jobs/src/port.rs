use async_trait::async_trait;
use sovereign_aggregates::job::JobCommand;
use sovereign_schemas::{
    AggregateId, CommandContext, Outcome, Problem, RawText, RecordedEvent, Text,
};

/// A command to a job, before the guard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobRequest {
    /// Which job.
    pub job: AggregateId,
    /// What it is asked to do.
    pub command: JobCommand<RawText>,
    /// Who asks, why, under which id.
    pub context: CommandContext,
    /// Whose key seals the texts; the actor's if not given.
    pub subject: Option<AggregateId>,
}

/// Keys, as whoever reads texts sees them.
#[async_trait]
pub trait Reveal: Send + Sync {
    /// The words of a text.
    ///
    /// # Errors
    /// If the key is not here, or was destroyed.
    async fn reveal(&self, text: &Text) -> Result<String, Problem>;
}

/// Guard, ledger and keys, as workers see them.
#[async_trait]
pub trait JobLedger: Reveal {
    /// All events of a job, none if there is no such job.
    ///
    /// # Errors
    /// If they cannot be read just now.
    async fn events(&self, job: &AggregateId) -> Result<Vec<RecordedEvent>, Problem>;

    /// A text as the guard would let it into an event: what looks like a secret is taken out.
    fn scrub(&self, text: &str) -> String;

    /// Admits the texts and runs the command to its durable outcome.
    async fn submit(&self, request: JobRequest) -> Outcome;
}
