//! Commands of one caller: in his name, within his rights, and once for each idempotency key.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use axum::http::HeaderMap;
use bytes::Bytes;
use serde_json::{Map, Value};
use sovereign_schemas::{
    Digest, ErrorCode, Identifier, Outcome, Position, Problem, Status, TYPES_NAMESPACE, Uuid,
};

use crate::access::{ActsAs, Caller, Right};
use crate::http::problem::HttpProblem;
use crate::http::state::Shared;
use crate::{CommandGate, EventFilter};

const KEY_HEADER: &str = "idempotency-key";
/// Longest key.
const KEY_BYTES_MAX: usize = 200;

/// What a client calls its request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key(String);

impl Key {
    pub(crate) const fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// The idempotency key of a request, if it has one.
///
/// # Errors
/// `invalid-id` if there are two, or it is no key.
pub(crate) fn key(headers: &HeaderMap) -> Result<Option<Key>, Problem> {
    let mut values = headers.get_all(KEY_HEADER).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let visible = |text: &&str| text.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
    let text = value.to_str().ok().map(str::trim).filter(visible);
    match text {
        Some(text) if values.next().is_none() && (1..=KEY_BYTES_MAX).contains(&text.len()) => {
            Ok(Some(Key(text.to_owned())))
        }
        _ => Err(Problem::new(ErrorCode::InvalidId, "is no idempotency key")
            .field(KEY_HEADER)
            .expected("one header of 1 to 200 visible ASCII characters")),
    }
}

/// The way in for the commands of one request.
pub(crate) struct CallerGate {
    shared: Shared,
    caller: Caller,
    /// As whom, if the caller is an agent.
    agent: Option<ActsAs>,
    key: Option<Key>,
    /// Commands so far: each has its own number under the key.
    taken: AtomicU64,
}

/// A command as it goes in.
struct Prepared {
    command: Form,
    keyed: Option<Keyed>,
}

enum Form {
    /// As it came, since nothing had to be known of it, or it is no object.
    Line(Bytes),
    Object(Map<String, Value>),
}

/// What a key stands for.
struct Keyed {
    command_id: Uuid,
    /// What its events are tied together by, if the caller does not say: it depends on the whole
    /// command, so the ledger itself tells whether a key was used for another one.
    correlation_id: Option<Uuid>,
    /// It was remembered here before.
    known: bool,
}

impl CallerGate {
    pub(crate) fn new(shared: Shared, caller: Caller, key: Option<Key>) -> Self {
        Self {
            shared,
            caller,
            agent: None,
            key,
            taken: AtomicU64::new(0),
        }
    }

    /// The same for one of the caller's agents: it goes in by the agents' own door.
    pub(crate) fn of_agent(
        shared: Shared,
        caller: Caller,
        agent: ActsAs,
        key: Option<Key>,
    ) -> Self {
        Self {
            agent: Some(agent),
            ..Self::new(shared, caller, key)
        }
    }

    /// In whose name commands go in; nobody's in particular for the owner of the data folder.
    fn actor(&self) -> Option<&Identifier> {
        let agent = self.agent.as_ref().map(ActsAs::agent);
        agent.or(self.caller.actor.as_ref())
    }

    fn prepare(&self, number: u64, line: Bytes) -> Result<Prepared, Problem> {
        if self.caller.actor.is_none() && self.key.is_none() {
            return Ok(Prepared {
                command: Form::Line(line),
                keyed: None,
            });
        }
        let Ok(mut object) = serde_json::from_slice::<Map<String, Value>>(&line) else {
            // the gate says what is wrong with it
            return Ok(Prepared {
                command: Form::Line(line),
                keyed: None,
            });
        };
        self.speak_for_self(&mut object)?;
        let keyed = match &self.key {
            None => None,
            Some(key) => Some(self.under(key, number, &mut object)?),
        };
        Ok(Prepared {
            command: Form::Object(object),
            keyed,
        })
    }

    /// What a command needs besides the right to send commands: decisions on approvals, the policy
    /// that asks for them, and the passkeys that answer are not for everybody.
    fn needs(&self, object: &Map<String, Value>) -> Option<(Right, &'static str)> {
        let field = |name: &str| object.get(name).and_then(Value::as_str);
        match (field("aggregate"), field("command")) {
            (Some("approval"), _) => Some((Right::Decide, "approvals")),
            (Some("policy"), _) => Some((Right::Administer, "the policy")),
            // also admins invite, so that what they do stands in the list of tokens
            (Some("approver"), Some("enrol")) => Some((Right::Enrol, "passkeys")),
            (Some("approver"), Some("revoke")) => {
                let own = self.caller.actor.as_ref().map(|actor| actor.as_str());
                let right = if own.is_some() && own == field("id") {
                    Right::Decide
                } else {
                    Right::Administer
                };
                Some((right, "passkeys of others"))
            }
            (Some("approver"), _) => Some((Right::Administer, "passkeys")),
            _ => None,
        }
    }

    /// A token acts in the name of its actor only, and does what its role may.
    fn speak_for_self(&self, object: &mut Map<String, Value>) -> Result<(), Problem> {
        let needs = self.needs(object);
        if let Some((right, what)) = needs
            && !self.caller.role.may(right)
        {
            let message = format!("the role lacks the right {}, for {what}", right.as_str());
            return Err(Problem::new(ErrorCode::Forbidden, message)
                .field("aggregate")
                .found(self.caller.role.as_str())
                .expected(right.roles()));
        }
        let Some(own) = self.actor() else {
            return Ok(());
        };
        match object.get("actor") {
            None | Some(Value::Null) => {
                object.insert("actor".to_owned(), own.as_str().into());
                Ok(())
            }
            Some(Value::String(actor)) if actor != own.as_str() => {
                let message = "the token acts in the name of another";
                Err(Problem::new(ErrorCode::Forbidden, message)
                    .field("actor")
                    .expected(own.as_str())
                    .remedy("leave actor out, or use a token of that actor"))
            }
            Some(_) => Ok(()),
        }
    }

    fn under(
        &self,
        key: &Key,
        number: u64,
        object: &mut Map<String, Value>,
    ) -> Result<Keyed, Problem> {
        if object.get("command_id").is_some_and(|id| !id.is_null()) {
            let message = "a command under an idempotency key has no id of its own";
            return Err(Problem::new(ErrorCode::InvalidUsage, message)
                .field("command_id")
                .remedy("send either command_id or the header idempotency-key"));
        }
        let content = Value::Object(object.clone()).to_string();
        let fingerprint = Digest::of(&[content.as_bytes()]);
        let actor = self.actor().map_or("", Identifier::as_str);
        // two tokens of one agent mean the same by a key; a person of the agent's name does not
        let whose: &[u8] = match self.agent {
            Some(_) => b"sovereign idempotency key of an agent v1\0",
            None => b"sovereign idempotency key v1\0",
        };
        let number = number.to_string();
        // 32 bytes of a hash are no text that anybody could send as an id
        let name = Digest::of(&[
            whose,
            actor.as_bytes(),
            b"\0",
            key.as_bytes(),
            b"\0",
            number.as_bytes(),
        ]);
        let command_id = Uuid::new_v5(&TYPES_NAMESPACE, &name.0);
        let known = self.remember(command_id, fingerprint)?;
        object.insert("command_id".to_owned(), command_id.to_string().into());
        let told = object.get("correlation_id").is_some_and(|id| !id.is_null());
        let correlation_id = (!told).then(|| Uuid::new_v5(&command_id, &fingerprint.0));
        if let Some(id) = correlation_id {
            object.insert("correlation_id".to_owned(), id.to_string().into());
        }
        Ok(Keyed {
            command_id,
            correlation_id,
            known,
        })
    }

    /// Whether the same command was remembered under this id.
    fn remember(&self, id: Uuid, fingerprint: Digest) -> Result<bool, Problem> {
        let known = self.shared.fingerprints.lock();
        let mut known = known.unwrap_or_else(PoisonError::into_inner);
        match known.get(&id) {
            Some(first) if *first != fingerprint => Err(reused()),
            Some(_) => Ok(true),
            None => {
                known.put(id, fingerprint);
                Ok(false)
            }
        }
    }

    fn forget(&self, id: Uuid) {
        let known = self.shared.fingerprints.lock();
        known.unwrap_or_else(PoisonError::into_inner).pop(&id);
    }

    /// What the ledger knew before this process did must have been the same command.
    async fn settle(&self, keyed: Keyed, outcome: Outcome) -> Outcome {
        if outcome.status == Status::Invalid {
            // it was not taken: the caller may correct it
            self.forget(keyed.command_id);
            return outcome;
        }
        let (Status::Duplicate, false, Some((first, _)), Some(expected)) = (
            outcome.status,
            keyed.known,
            outcome.positions,
            keyed.correlation_id,
        ) else {
            return outcome;
        };
        let before = Position(first.0.saturating_sub(1));
        let everything = EventFilter::default();
        let events = &self.shared.services.events;
        let found = match events.page(before, 1, &everything).await {
            Ok((found, _)) => found,
            Err(problem) => {
                self.forget(keyed.command_id);
                return Outcome::failed(Status::Invalid, problem).of(keyed.command_id.to_string());
            }
        };
        let same = found
            .first()
            .is_some_and(|event| event.header.correlation_id == expected);
        if same {
            return outcome;
        }
        self.forget(keyed.command_id);
        Outcome::failed(Status::Refused, reused()).of(keyed.command_id.to_string())
    }
}

fn reused() -> Problem {
    Problem::new(
        ErrorCode::IdempotencyKeyReused,
        "the key was used for another command",
    )
    .field(KEY_HEADER)
}

#[async_trait]
impl CommandGate for CallerGate {
    async fn submit(&self, line: Bytes) -> Outcome {
        let number = self.taken.fetch_add(1, Ordering::Relaxed) + 1;
        // the request itself was counted when its sender was identified
        if number > 1
            && let Err(problem) = self.caller.take(&self.shared)
        {
            return Outcome::failed(Status::Invalid, problem);
        }
        let prepared = match self.prepare(number, line) {
            Ok(prepared) => prepared,
            Err(problem) if problem.code.exit_code() == 4 => {
                return Outcome::failed(Status::Refused, problem);
            }
            Err(problem) => return Outcome::failed(Status::Invalid, problem),
        };
        let services = &self.shared.services;
        let outcome = match (&self.agent, prepared.command) {
            (Some(acts), command) => {
                let line = match command {
                    Form::Line(line) => line,
                    Form::Object(object) => Value::Object(object).to_string().into(),
                };
                services.agents.submit(acts.agent(), line).await
            }
            (None, Form::Line(line)) => services.commands.submit(line).await,
            (None, Form::Object(object)) => services.commands.submit_object(object).await,
        };
        match prepared.keyed {
            None => outcome,
            Some(keyed) => self.settle(keyed, outcome).await,
        }
    }
}

/// [`one`], as long as a request may take.
pub(crate) async fn within(
    shared: &Shared,
    gate: CallerGate,
    line: Bytes,
) -> Result<Outcome, HttpProblem> {
    let limit_ms = shared.options.request_timeout_ms;
    let limit = Duration::from_millis(limit_ms);
    match tokio::time::timeout(limit, one(gate, line)).await {
        Ok(outcome) => Ok(outcome?),
        Err(_) => Err(HttpProblem::timed_out(limit_ms)),
    }
}

/// One command from its request to its outcome. Goes on to its end also when the client has gone.
async fn one(gate: CallerGate, line: Bytes) -> Result<Outcome, Problem> {
    let gate: Arc<dyn CommandGate> = Arc::new(gate);
    let submitted = tokio::spawn(async move { gate.submit(line).await });
    submitted.await.map_err(|_| {
        tracing::error!("command gate panicked");
        Problem::new(ErrorCode::Internal, "the command failed")
    })
}
