use std::fmt;
use std::str::FromStr;

use sovereign_schemas::{ErrorCode, Problem};

/// What somebody is to the engine. `docs/API.md` has the table of roles and rights.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Looks: status, agents, approvals, events with sealed texts.
    Viewer,
    /// Looks, sends commands, starts tasks, rebuilds views.
    Operator,
    /// Looks, and decides on approvals.
    Approver,
    /// Looks, reads sealed texts, asks for digests of the live state.
    Auditor,
    /// Everything, tokens and shutdown included, but to act as an agent.
    Admin,
    /// Acts as the agents that its token names, and is told what became of what they asked for.
    Agent,
    /// Enrols one passkey, by an invitation; no token that somebody makes has it.
    Invited,
}

/// One thing that a route needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Right {
    /// Look at what is not sealed.
    Read,
    /// Read sealed texts.
    ReadTexts,
    /// Ask for digests of the live state.
    Audit,
    /// Send commands, except decisions on approvals.
    Command,
    /// Decide on approvals.
    Decide,
    /// Start tasks, rebuild views.
    Operate,
    /// Act as the agents of the token. No role of people has it, not even that of admins.
    Act,
    /// Issue and revoke tokens, invite approvers, stop the engine.
    Administer,
    /// Enrol a passkey for the person whom an invitation names. No role of a token has it: a token
    /// that was stolen must not be able to make itself a passkey.
    Enrol,
}

impl Role {
    /// All that a token can be made with: people from the least, then agents.
    pub const ALL: &'static [Self] = &[
        Self::Viewer,
        Self::Operator,
        Self::Approver,
        Self::Auditor,
        Self::Admin,
        Self::Agent,
    ];

    /// As written in tokens and on the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Approver => "approver",
            Self::Auditor => "auditor",
            Self::Admin => "admin",
            Self::Agent => "agent",
            Self::Invited => "invited",
        }
    }

    pub(crate) const fn may(self, right: Right) -> bool {
        match right {
            Right::Read => !matches!(self, Self::Agent | Self::Invited),
            Right::ReadTexts | Right::Audit => matches!(self, Self::Auditor | Self::Admin),
            Right::Command | Right::Operate => matches!(self, Self::Operator | Self::Admin),
            Right::Decide => matches!(self, Self::Approver | Self::Admin),
            Right::Act => matches!(self, Self::Agent),
            Right::Administer => matches!(self, Self::Admin),
            Right::Enrol => matches!(self, Self::Invited),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        let known = Self::ALL.iter().copied().find(|r| r.as_str() == text);
        known.ok_or_else(|| {
            Problem::new(ErrorCode::WrongType, "no such role")
                .field("role")
                .found(text)
                .expected("viewer, operator, approver, auditor, admin or agent")
        })
    }
}

impl Right {
    #[cfg(test)]
    pub(crate) const ALL: &'static [Self] = &[
        Self::Read,
        Self::ReadTexts,
        Self::Audit,
        Self::Command,
        Self::Decide,
        Self::Operate,
        Self::Act,
        Self::Administer,
        Self::Enrol,
    ];

    /// As written in the OpenAPI document and in refusals.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::ReadTexts => "read-texts",
            Self::Audit => "audit",
            Self::Command => "command",
            Self::Decide => "decide",
            Self::Operate => "operate",
            Self::Act => "act",
            Self::Administer => "administer",
            Self::Enrol => "enrol",
        }
    }

    /// Those who have it, in words.
    pub(crate) fn roles(self) -> String {
        if self == Self::Enrol {
            return "an invitation".to_owned();
        }
        let roles = Role::ALL.iter().filter(|role| role.may(self));
        roles
            .map(|role| role.as_str())
            .collect::<Vec<_>>()
            .join(" or ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_are_those_of_the_documented_table() {
        let page = include_str!("../../../docs/API.md");
        for right in Right::ALL {
            let row = format!("| {} |", right.as_str());
            let row = page
                .lines()
                .find(|line| line.starts_with(&row))
                .unwrap_or_else(|| panic!("docs/API.md lacks {}", right.as_str()));
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            for (index, role) in Role::ALL.iter().enumerate() {
                let yes = cells[index + 2] == "yes";
                assert_eq!(role.may(*right), yes, "{role} {}", right.as_str());
            }
        }
    }

    #[test]
    fn only_admins_have_all_rights_of_people_and_every_person_may_look() {
        let of = |role: Role| {
            let all = Right::ALL.iter().copied();
            all.filter(|right| role.may(*right)).collect::<Vec<_>>()
        };
        for role in Role::ALL {
            assert_eq!(role.as_str().parse::<Role>(), Ok(*role));
            assert!(!role.may(Right::Enrol), "{role}");
            if *role == Role::Agent {
                continue;
            }
            assert!(role.may(Right::Read));
            assert!(!role.may(Right::Act), "{role}");
            let all = of(*role).len() == Right::ALL.len() - 2;
            assert_eq!(all, *role == Role::Admin, "{role}");
        }
        assert_eq!(of(Role::Agent), [Right::Act]);
        assert_eq!(of(Role::Invited), [Right::Enrol]);
        assert!("root".parse::<Role>().is_err());
        assert!("invited".parse::<Role>().is_err(), "no token has it");
    }
}
