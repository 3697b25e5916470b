use serde::Deserialize;
use serde_json::Value;
use sovereign_schemas::events::ApprovalEvent;
use sovereign_schemas::{
    AggregateId, Decimal, Digest, ErrorCode, Identifier, Problem, RawText, Text,
};

use crate::parse;

/// What can be asked of an approval. `T` is [`RawText`] before the guard and [`Text`] after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApprovalCommand<T = Text> {
    /// Ask a human.
    Request(Request),
    /// Say no.
    Deny(Deny<T>),
    /// Note that nobody answered in time.
    Expire(Expire),
    /// Take these events, which were decided elsewhere. It has no form in JSON.
    Recorded(Vec<ApprovalEvent>),
}

/// Data of [`ApprovalCommand::Request`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// What would be done.
    pub action: Identifier,
    /// To what.
    pub target_id: AggregateId,
    /// SHA-256 of the exact action.
    pub action_digest: Digest,
    /// Its amount, above zero.
    pub amount: Decimal,
    /// Currency of the amount.
    pub currency: Identifier,
}

/// Data of [`ApprovalCommand::Deny`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deny<T> {
    /// Why, in words.
    pub reason: T,
}

/// Data of [`ApprovalCommand::Expire`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expire {}

impl ApprovalCommand<RawText> {
    /// The commands by name.
    pub const NAMES: &'static str = "request, deny, expire";

    pub(crate) fn parse(command: &str, data: Value) -> Result<Self, Problem> {
        Ok(match command {
            "request" => Self::Request(parse::data(data)?),
            "deny" => Self::Deny(parse::data(data)?),
            "expire" => Self::Expire(parse::data(data)?),
            other => {
                return Err(Problem::new(
                    ErrorCode::UnknownCommand,
                    "approvals have no such command",
                )
                .field("command")
                .found(other)
                .expected(Self::NAMES));
            }
        })
    }
}

impl<T> ApprovalCommand<T> {
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Request(_) => "request",
            Self::Deny(_) => "deny",
            Self::Expire(_) => "expire",
            Self::Recorded(_) => "recorded",
        }
    }

    pub(crate) fn try_map_text<U, E>(
        self,
        mut f: impl FnMut(T) -> Result<U, E>,
    ) -> Result<ApprovalCommand<U>, E> {
        Ok(match self {
            Self::Request(c) => ApprovalCommand::Request(c),
            Self::Deny(c) => ApprovalCommand::Deny(Deny {
                reason: f(c.reason)?,
            }),
            Self::Expire(c) => ApprovalCommand::Expire(c),
            Self::Recorded(events) => ApprovalCommand::Recorded(events),
        })
    }

    pub(crate) fn identifiers(&self) -> Vec<(&'static str, &str)> {
        match self {
            Self::Request(c) => vec![
                ("data.action", c.action.as_str()),
                ("data.target_id", c.target_id.as_str()),
                ("data.currency", c.currency.as_str()),
            ],
            Self::Deny(_) | Self::Expire(_) | Self::Recorded(_) => vec![],
        }
    }
}
