//! The policy that holds, as an aggregate: each version is an event, and nobody can take one back.

use std::sync::Arc;

use cqrs_es::Aggregate;
use cqrs_es::event_sink::EventSink;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sovereign_schemas::borrowed::ToBorrowed as _;
use sovereign_schemas::events::{PolicyAdopted, PolicyEvent, PolicyEventRef};
use sovereign_schemas::{ErrorCode, Problem};

use super::Policy;
use crate::{Decision, Refusal, parse};

/// The id of the one aggregate of this type.
pub const POLICY_ID: &str = "main";

/// What can be asked of the policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PolicyCommand {
    /// Let another one hold.
    Adopt(Adopt),
    /// Take these events, which were decided elsewhere. It has no form in JSON.
    Recorded(Vec<PolicyEvent>),
}

/// Data of [`PolicyCommand::Adopt`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Adopt {
    /// TOML, as [`Policy::parse`] reads it.
    pub text: String,
}

impl PolicyCommand {
    /// The commands by name.
    pub const NAMES: &'static str = "adopt";

    pub(crate) fn parse(command: &str, data: Value) -> Result<Self, Problem> {
        match command {
            "adopt" => Ok(Self::Adopt(parse::data(data)?)),
            other => Err(
                Problem::new(ErrorCode::UnknownCommand, "the policy has no such command")
                    .field("command")
                    .found(other)
                    .expected(Self::NAMES),
            ),
        }
    }

    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Adopt(_) => "adopt",
            Self::Recorded(_) => "recorded",
        }
    }

    pub(crate) fn identifiers(&self) -> Vec<(&'static str, &str)> {
        match self {
            // it is not free text: whoever checks an approval has to read it for ever
            Self::Adopt(Adopt { text }) => vec![("data.text", text)],
            Self::Recorded(_) => vec![],
        }
    }
}

/// The policy that holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Stored", into = "Stored")]
pub struct Adopted(Arc<Policy>);

#[derive(Serialize, Deserialize)]
struct Stored {
    version: i32,
    text: String,
}

impl From<Adopted> for Stored {
    fn from(Adopted(policy): Adopted) -> Self {
        Self {
            version: policy.version,
            text: policy.text.clone(),
        }
    }
}

impl From<Stored> for Adopted {
    fn from(Stored { version, text }: Stored) -> Self {
        Self::read(version, &text)
    }
}

impl Default for Adopted {
    fn default() -> Self {
        Self(Policy::built_in())
    }
}

impl Adopted {
    /// The policy.
    #[must_use]
    pub const fn policy(&self) -> &Arc<Policy> {
        &self.0
    }

    /// A text that a newer build took and this one cannot read lets nothing pass: guessing would.
    fn read(version: i32, text: &str) -> Self {
        let policy = Policy::parse(text).unwrap_or_else(|_| Policy::closed(version, text));
        Self(Arc::new(policy))
    }

    /// Which events follow from `command`, if it may happen.
    ///
    /// # Errors
    /// Why it may not.
    pub fn decide(
        &self,
        command: PolicyCommand,
        decision: &Decision,
    ) -> Result<Vec<PolicyEvent>, Refusal> {
        let Adopt { text } = match command {
            PolicyCommand::Recorded(events) => return Ok(events),
            PolicyCommand::Adopt(adopt) => adopt,
        };
        if decision.aggregate_id.as_str() != POLICY_ID {
            return Err(
                Problem::new(ErrorCode::NotFound, "there is one policy only")
                    .field("id")
                    .found(decision.aggregate_id.as_str())
                    .expected(POLICY_ID)
                    .into(),
            );
        }
        let policy = Policy::parse(&text)?;
        let next = self.0.version.saturating_add(1);
        if policy.version != next {
            return Err(
                Problem::new(ErrorCode::InvalidPolicy, "the policy has another version than the next")
                    .field("version")
                    .found(policy.version.to_string())
                    .expected(next.to_string())
                    .remedy("start from the policy that holds (sovereign policy show) and raise its version by one")
                    .into(),
            );
        }
        let event = PolicyAdopted {
            version: policy.version,
            digest: policy.digest(),
            text,
        };
        Ok(vec![event.into()])
    }

    /// Takes one recorded event. Total: never fails, whatever came before.
    pub fn evolve(&mut self, event: &PolicyEvent) {
        self.evolve_borrowed(&event.borrowed());
    }

    /// As [`Self::evolve`], from an event that was not copied out of its datum.
    pub fn evolve_borrowed(&mut self, event: &PolicyEventRef<'_>) {
        let PolicyEventRef::PolicyAdopted(event) = event;
        *self = Self::read(event.version, event.text.as_str());
    }
}

impl Aggregate for Adopted {
    const TYPE: &'static str = "policy";
    type Command = PolicyCommand;
    type Event = PolicyEvent;
    type Error = Refusal;
    type Services = Decision;

    async fn handle(
        &mut self,
        command: PolicyCommand,
        decision: &Decision,
        sink: &EventSink<Self>,
    ) -> Result<(), Refusal> {
        for event in self.decide(command, decision)? {
            sink.write(event, self).await;
        }
        Ok(())
    }

    fn apply(&mut self, event: PolicyEvent) {
        self.evolve(&event);
    }
}

#[cfg(test)]
mod tests {
    use sovereign_schemas::{Decimal, Timestamp};

    use super::super::{Action, BUILT_IN};
    use super::*;

    fn decision(id: &str) -> Decision {
        Decision::new(id.parse().unwrap(), Timestamp(0), "owner".parse().unwrap())
    }

    fn adopt(state: &mut Adopted, text: &str) -> Result<(), Refusal> {
        let command = PolicyCommand::Adopt(Adopt { text: text.into() });
        let events = state.decide(command, &decision(POLICY_ID))?;
        events.iter().for_each(|event| state.evolve(event));
        Ok(())
    }

    #[test]
    fn versions_follow_each_other() {
        let mut state = Adopted::default();
        let text = |version: i32| BUILT_IN.replace("version = 1", &format!("version = {version}"));
        for wrong in [1, 3] {
            let refused = adopt(&mut state, &text(wrong)).unwrap_err().problem;
            assert_eq!(refused.expected.as_deref(), Some("2"));
        }
        adopt(&mut state, &text(2)).unwrap();
        adopt(&mut state, &text(3)).unwrap();
        assert_eq!(state.policy().version, 3);
        assert_eq!(state.policy().text, text(3));
        let other = PolicyCommand::Adopt(Adopt { text: text(4) });
        let refused = state.decide(other, &decision("second")).unwrap_err();
        assert_eq!(refused.problem.code, ErrorCode::NotFound);
        let stored = serde_json::to_string(&state).unwrap();
        assert_eq!(serde_json::from_str::<Adopted>(&stored).unwrap(), state);
    }

    #[test]
    fn a_policy_that_this_build_cannot_read_lets_nothing_pass() {
        let mut state = Adopted::default();
        let text = "version = 2\nmoods = [\"calm\"]\n".to_owned();
        let event = PolicyAdopted {
            version: 2,
            digest: sovereign_schemas::Digest::of(&[text.as_bytes()]),
            text,
        };
        state.evolve(&event.into());
        let cheap = Action {
            department: "trader",
            action: "trade.execute",
            asset: "AAPL",
            amount: Decimal::from_int(1),
        };
        assert_eq!(state.policy().people_for(&cheap), u8::MAX);
        assert!(!state.policy().may_approve("alice", cheap.amount));
        assert_eq!(state.policy().version, 2);
        assert!(adopt(&mut state, &BUILT_IN.replace("version = 1", "version = 3")).is_ok());
    }
}
