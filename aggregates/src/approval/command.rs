use serde::Deserialize;
use serde_json::Value;
use sovereign_passkeys::Assertion;
use sovereign_schemas::events::ApprovalEvent;
use sovereign_schemas::{
    AggregateId, Decimal, DepartmentId, Digest, ErrorCode, Identifier, Problem, RawText, Text,
};

use crate::parse;

/// What can be asked of an approval. `T` is [`RawText`] before the guard and [`Text`] after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApprovalCommand<T = Text> {
    /// Ask people.
    Request(Box<Request>),
    /// Say yes, with a passkey.
    Give(Box<Give>),
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
    /// Who wants it, if it is another one than who asks; neither may approve it.
    #[serde(default)]
    pub on_behalf_of: Option<AggregateId>,
    /// The department whose action it is; that of the command if left out.
    #[serde(default)]
    pub department: Option<DepartmentId>,
    /// What the action is about, as policies name it; nothing if left out.
    #[serde(default)]
    pub asset: Option<Identifier>,
}

/// Data of [`ApprovalCommand::Give`]. Who gives it is the command's actor.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Give {
    /// What the passkey signed.
    pub assertion: Assertion,
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
    pub const NAMES: &'static str = "request, give, deny, expire";

    pub(crate) fn parse(command: &str, data: Value) -> Result<Self, Problem> {
        Ok(match command {
            "request" => Self::Request(Box::new(parse::data(data)?)),
            "give" => Self::Give(Box::new(parse::data(data)?)),
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
            Self::Give(_) => "give",
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
            Self::Give(c) => ApprovalCommand::Give(c),
            Self::Deny(c) => ApprovalCommand::Deny(Deny {
                reason: f(c.reason)?,
            }),
            Self::Expire(c) => ApprovalCommand::Expire(c),
            Self::Recorded(events) => ApprovalCommand::Recorded(events),
        })
    }

    pub(crate) fn identifiers(&self) -> Vec<(&'static str, &str)> {
        match self {
            Self::Request(c) => {
                let mut all = vec![
                    ("data.action", c.action.as_str()),
                    ("data.target_id", c.target_id.as_str()),
                    ("data.currency", c.currency.as_str()),
                ];
                let who = c.on_behalf_of.as_ref();
                all.extend(who.map(|id| ("data.on_behalf_of", id.as_str())));
                all.extend(c.asset.as_ref().map(|a| ("data.asset", a.as_str())));
                all
            }
            // nothing of an assertion is kept that its passkey has not signed
            Self::Give(_) | Self::Deny(_) | Self::Expire(_) | Self::Recorded(_) => vec![],
        }
    }
}
