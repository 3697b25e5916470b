use sovereign_aggregates::AnyCommand;
use sovereign_aggregates::agent::AgentCommand;
use sovereign_aggregates::approval::ApprovalCommand;
use sovereign_aggregates::job::JobCommand;
use sovereign_aggregates::trade::TradeCommand;
use sovereign_schemas::{
    AggregateId, CommandContext, DepartmentId, EventHeader, Identifier, RawText, Uuid,
};

use super::{COMMANDS_NAMESPACE, Effect, NextBar, Reaction, command_id};
use crate::RawRequest;

/// A code that stands in this source.
pub(crate) fn code(text: &'static str) -> Identifier {
    // only literals come here, and every one of them is run by the tests
    #[allow(clippy::expect_used)]
    text.parse()
        .expect("a literal of this crate is an identifier")
}

/// Collects what one agent answers to one event, numbering its commands.
#[derive(Debug)]
pub(crate) struct Reactions<'a> {
    agent: Identifier,
    department: DepartmentId,
    cause: &'a EventHeader,
    correlation_id: Uuid,
    list: Vec<Reaction>,
}

impl<'a> Reactions<'a> {
    pub(crate) const fn of(
        agent: Identifier,
        department: DepartmentId,
        cause: &'a EventHeader,
    ) -> Self {
        Self {
            agent,
            department,
            cause,
            correlation_id: cause.correlation_id,
            list: Vec::new(),
        }
    }

    /// From here on the commands belong to this, whatever the causing event belonged to.
    pub(crate) const fn correlate(&mut self, correlation_id: Uuid) {
        self.correlation_id = correlation_id;
    }

    fn context(&self) -> CommandContext {
        CommandContext {
            command_id: command_id(self.agent.as_str(), self.cause.event_id, self.list.len()),
            actor: self.agent.clone(),
            department: self.department,
            correlation_id: self.correlation_id,
            causation_id: Some(self.cause.event_id),
            traceparent: None,
        }
    }

    fn push(&mut self, aggregate_id: &AggregateId, command: AnyCommand<RawText>) {
        let request = RawRequest {
            aggregate_id: aggregate_id.clone(),
            command,
            context: self.context(),
        };
        self.list.push(Reaction::Command(Box::new(request)));
    }

    pub(crate) fn agent(&mut self, id: &AggregateId, command: AgentCommand<RawText>) {
        self.push(id, AnyCommand::Agent(command));
    }

    pub(crate) fn trade(&mut self, id: &AggregateId, command: TradeCommand<RawText>) {
        self.push(id, AnyCommand::Trade(command));
    }

    pub(crate) fn approval(&mut self, id: &AggregateId, command: ApprovalCommand<RawText>) {
        self.push(id, AnyCommand::Approval(command));
    }

    pub(crate) fn job(&mut self, id: &AggregateId, command: JobCommand<RawText>) {
        self.push(id, AnyCommand::Job(command));
    }

    /// `build` gets the context of the command that will carry the result.
    pub(crate) fn next_bar(&mut self, build: impl FnOnce(CommandContext) -> NextBar) {
        let effect = Effect::NextBar(Box::new(build(self.context())));
        self.list.push(Reaction::Effect(effect));
    }

    pub(crate) fn done(self) -> Vec<Reaction> {
        self.list
    }
}

/// A command that starts something and was not caused by an event: `what` names it once and for
/// all, so that sending it again has no effect.
pub(crate) fn start_request(
    what: &str,
    aggregate_id: AggregateId,
    actor: Identifier,
    department: DepartmentId,
    command: AgentCommand<RawText>,
) -> RawRequest {
    let command_id = Uuid::new_v5(
        &COMMANDS_NAMESPACE,
        format!("start/{aggregate_id}/{what}").as_bytes(),
    );
    let context = CommandContext {
        command_id,
        actor,
        department,
        correlation_id: command_id,
        causation_id: None,
        traceparent: None,
    };
    RawRequest {
        aggregate_id,
        command: AnyCommand::Agent(command),
        context,
    }
}
