//! Who decides and who may: approvals, approvers, the policy, tokens.

use std::path::PathBuf;

use clap::Subcommand;

use super::noted;

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum ApprovalsCommand {
    /// List requests; only those that wait, unless all are wanted.
    List {
        /// Also those that ended.
        #[arg(long)]
        all: bool,
    },
    /// Show one request.
    Show {
        /// Its id.
        id: String,
    },
    /// Say no.
    Deny {
        /// Its id.
        id: String,
        /// Why, in words; it is scrubbed and sealed.
        #[arg(long)]
        reason: String,
    },
    /// Prove from a recorded file alone who approved what. Needs no engine and no network.
    Verify {
        /// Written by sovereign export, from position 1 on.
        file: PathBuf,
        /// Print only this approval.
        #[arg(long, value_name = "ID")]
        approval: Option<String>,
        /// A head that was noted earlier, elsewhere: the file must hold it.
        #[arg(long, value_parser = noted, value_name = "POSITION:HASH")]
        head: Option<sovereign_schemas::chain::Head>,
    },
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum ApproversCommand {
    /// Make a link with which a person enrols one passkey. It ends after a day and with its first
    /// use; one made before is withdrawn.
    Invite {
        /// The person, as the actor of his tokens.
        name: String,
    },
    /// List people with passkeys.
    List,
    /// Show the passkeys of one person, the revoked ones among them.
    Show {
        /// The person.
        name: String,
    },
    /// Let a passkey sign no more.
    Revoke {
        /// The person.
        name: String,
        /// Id of the credential, as show prints it.
        credential: String,
        /// Why, in words; it is scrubbed and sealed.
        #[arg(long)]
        reason: String,
    },
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Print the policy that holds.
    Show,
    /// Read a policy and say what it says, or which line is wrong. Needs no engine.
    Check {
        /// TOML; docs/POLICY.md describes it.
        file: PathBuf,
    },
    /// Let a policy hold from now on. Its version is one more than that of the one before.
    Adopt {
        /// TOML; docs/POLICY.md describes it.
        file: PathBuf,
    },
}

fn role(text: &str) -> Result<sovereign_console::Role, String> {
    text.parse()
        .map_err(|_| "expected viewer, operator, approver, auditor, admin or agent".to_owned())
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum TokensCommand {
    /// Make a token and print it, this once.
    Create {
        /// How people call it.
        name: String,
        /// viewer, operator, approver, auditor, admin or agent; docs/API.md says what each may.
        #[arg(long, value_parser = role, value_name = "ROLE")]
        role: sovereign_console::Role,
        /// In whose name its bearer acts; the name of the token if not given.
        #[arg(long)]
        actor: Option<String>,
        /// An agent as which its bearer acts, for the role agent; may be given several times.
        #[arg(long = "agent", value_name = "ID", conflicts_with = "actor")]
        agents: Vec<String>,
        /// Days until it ends, 1 to 3,660.
        #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..=3_660))]
        days: u32,
    },
    /// List tokens; only those that are valid, unless all are wanted.
    List {
        /// Also those that ended within 30 days.
        #[arg(long)]
        all: bool,
    },
    /// End a token at once.
    Revoke {
        /// Its name.
        name: String,
    },
}
