use serde::Deserialize;
use serde_json::Value;
use sovereign_passkeys::{Base64Url, Registration};
use sovereign_schemas::events::ApproverEvent;
use sovereign_schemas::{ErrorCode, Identifier, Problem, RawText, Text};

use crate::parse;

/// What can be asked of an approver. `T` is [`RawText`] before the guard and [`Text`] after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApproverCommand<T = Text> {
    /// Let a passkey sign for this person.
    Enrol(Box<Enrol>),
    /// Let it sign no more.
    Revoke(Revoke<T>),
    /// Take these events, which were decided elsewhere. It has no form in JSON.
    Recorded(Vec<ApproverEvent>),
}

/// Data of [`ApproverCommand::Enrol`]. What it says of the passkey must be what the registration
/// says, which is verified against the challenge.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enrol {
    /// Its id, 1 to 1,023 bytes.
    pub credential_id: Base64Url,
    /// Its public key, a `COSE_Key`.
    pub public_key: Base64Url,
    /// For whom it signs: a host name.
    pub rp_id: String,
    /// The page on which it was made, and on which it has to sign.
    pub origin: String,
    /// Which make the authenticator says it is, 16 bytes.
    pub aaguid: Base64Url,
    /// Whether it may be copied to other devices.
    pub backup_eligible: bool,
    /// Its counter now.
    pub sign_count: u32,
    /// What its owner calls it; not sealed, so no free text.
    #[serde(default)]
    pub label: Option<Identifier>,
    /// What the browser gave.
    pub registration: Registration,
    /// What it was asked to answer, 32 random bytes.
    pub challenge: Base64Url,
}

/// Data of [`ApproverCommand::Revoke`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revoke<T> {
    /// Its id.
    pub credential_id: Base64Url,
    /// Why, in words.
    pub reason: T,
}

impl ApproverCommand<RawText> {
    /// The commands by name.
    pub const NAMES: &'static str = "enrol, revoke";

    pub(crate) fn parse(command: &str, data: Value) -> Result<Self, Problem> {
        Ok(match command {
            "enrol" => Self::Enrol(Box::new(parse::data(data)?)),
            "revoke" => Self::Revoke(parse::data(data)?),
            other => {
                return Err(Problem::new(
                    ErrorCode::UnknownCommand,
                    "approvers have no such command",
                )
                .field("command")
                .found(other)
                .expected(Self::NAMES));
            }
        })
    }
}

impl<T> ApproverCommand<T> {
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Enrol(_) => "enrol",
            Self::Revoke(_) => "revoke",
            Self::Recorded(_) => "recorded",
        }
    }

    pub(crate) fn try_map_text<U, E>(
        self,
        mut f: impl FnMut(T) -> Result<U, E>,
    ) -> Result<ApproverCommand<U>, E> {
        Ok(match self {
            Self::Enrol(c) => ApproverCommand::Enrol(c),
            Self::Revoke(c) => ApproverCommand::Revoke(Revoke {
                credential_id: c.credential_id,
                reason: f(c.reason)?,
            }),
            Self::Recorded(events) => ApproverCommand::Recorded(events),
        })
    }

    pub(crate) fn identifiers(&self) -> Vec<(&'static str, &str)> {
        match self {
            // what has no place in a registration is in none that verifies: rp id and origin are a
            // host name and a page of it, the rest is keys
            Self::Enrol(c) => {
                let label = c.label.as_ref().map(|l| ("data.label", l.as_str()));
                label.into_iter().collect()
            }
            Self::Revoke(_) | Self::Recorded(_) => vec![],
        }
    }
}
