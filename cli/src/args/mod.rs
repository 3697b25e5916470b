//! The command line.

mod jobs;
mod people;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use jobs::{JobsCommand, SchedulesCommand, WorkerArgs};
pub(crate) use people::{ApprovalsCommand, ApproversCommand, PolicyCommand, TokensCommand};

/// Event-sourced engine for organisations of autonomous agents.
///
/// Exit codes: 0 done, 1 failed, 2 wrong usage or input, 3 verification found a difference, 4
/// refused by policy or guard, 5 a server could not be reached, 6 timed out, 130 interrupted.
#[derive(Debug, Parser)]
#[command(name = "sovereign", version, propagate_version = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options that every command takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// Data folder of the engine; `./.sovereign` if neither is given.
    #[arg(long, global = true, env = "SOVEREIGN_DATA", value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// One JSON object, or NDJSON for lists, on stdout.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// No progress and no hints on stderr.
    #[arg(long, global = true)]
    pub(crate) quiet: bool,
    /// No colours, also on a terminal.
    #[arg(long, global = true)]
    pub(crate) no_color: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start the engine, with its own PostgreSQL and Kafka where no address is given.
    Up(Box<UpArgs>),
    /// Stop the engine cleanly.
    Down,
    /// Say how the engine is and where its parts are.
    Status,
    /// Send commands, one JSON object a line; one outcome line each, in input order.
    Send(FileArgs),
    /// Show events, with texts unsealed for the owner of the data folder.
    Log(LogArgs),
    /// Check density, order, chain and copies; exit 3 names the first bad position.
    Verify(VerifyArgs),
    /// Fold a range of events and print digests of the state.
    Replay(ReplayArgs),
    /// Write a recorded file that `verify` and `replay` read with no server.
    Export(ExportArgs),
    /// Bring the events of another store into the ledger.
    #[command(subcommand)]
    Import(ImportCommand),
    /// Remove secrets from text.
    Scrub(ScrubArgs),
    /// Keys of sealed text.
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Work through market bars with the built-in agents, then report.
    Trade(TradeArgs),
    /// List agents with their states, or define, show and draw them.
    Agents {
        #[command(subcommand)]
        command: Option<AgentsCommand>,
    },
    /// Jobs: work that worker processes do, effect by effect.
    #[command(subcommand)]
    Jobs(JobsCommand),
    /// Do jobs of a running engine, in a process of its own, until SIGTERM.
    Worker(WorkerArgs),
    /// Requests that wait for a human.
    #[command(subcommand)]
    Approvals(ApprovalsCommand),
    /// People who approve, and their passkeys.
    #[command(subcommand)]
    Approvers(ApproversCommand),
    /// The policy that says when humans are asked.
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Tokens of the HTTP API.
    #[command(subcommand)]
    Tokens(TokensCommand),
    /// The views that events are folded into.
    #[command(subcommand)]
    Views(ViewsCommand),
    /// Records that a consumer group could not decode or process.
    #[command(subcommand)]
    DeadLetters(DeadLettersCommand),
    /// Print shell completions.
    Completions {
        /// For which shell.
        shell: clap_complete::Shell,
    },
    /// Become a supervised server; for the engine's own use.
    #[command(hide = true, disable_help_flag = true)]
    Child {
        /// Passed on as they are.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<std::ffi::OsString>,
    },
}

#[derive(Debug, Clone, Args)]
pub(crate) struct UpArgs {
    /// An existing PostgreSQL 17 or newer instead of one of our own.
    #[arg(
        long,
        env = "SOVEREIGN_DATABASE",
        value_name = "URL",
        hide_env_values = true
    )]
    pub(crate) database: Option<String>,
    /// The database for subject keys, apart from the ledger; `--database` if not given.
    #[arg(
        long,
        env = "SOVEREIGN_KEYS_DATABASE",
        value_name = "URL",
        hide_env_values = true
    )]
    pub(crate) keys_database: Option<String>,
    /// `--database` under a role of its own, with which the HTTP API reads; the engine grants it
    /// what it needs. `--database` itself if not given.
    #[arg(
        long,
        env = "SOVEREIGN_API_DATABASE",
        value_name = "URL",
        hide_env_values = true
    )]
    pub(crate) api_database: Option<String>,
    /// The master key that wraps the subject keys; `master.key` in the data folder if not given.
    /// Engines on one key database need the same.
    #[arg(long, env = "SOVEREIGN_MASTER_KEY", value_name = "FILE")]
    pub(crate) master_key: Option<PathBuf>,
    /// An existing Kafka instead of one of our own: host:port, separated by commas.
    #[arg(long, env = "SOVEREIGN_BROKERS", value_name = "LIST")]
    pub(crate) brokers: Option<String>,
    /// librdkafka client properties for TLS and SASL, one `name=value` a line.
    #[arg(long, env = "SOVEREIGN_KAFKA_PROPERTIES", value_name = "FILE")]
    pub(crate) kafka_properties: Option<PathBuf>,
    /// An existing Confluent-compatible schema registry instead of our own.
    #[arg(
        long,
        env = "SOVEREIGN_REGISTRY",
        value_name = "URL",
        hide_env_values = true
    )]
    pub(crate) registry: Option<String>,
    /// Where the HTTP API listens; a free loopback port, kept over restarts, if not given.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Option<SocketAddr>,
    /// Allow an address of `--listen` that other machines can reach.
    #[arg(long)]
    pub(crate) listen_beyond_loopback: bool,
    /// Where browsers reach the approval page, through a proxy with TLS that passes `Host` on. Passkeys
    /// belong to its host name, so it should not change. `http://localhost:PORT` if not given.
    #[arg(long, env = "SOVEREIGN_PUBLIC_URL", value_name = "URL")]
    pub(crate) public_url: Option<String>,
    /// Settings: departments. `sovereign.toml` in the data folder if not given.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Workers to start beside the engine, as processes of their own that are started again when
    /// they die. They run the agents and do the jobs; with 0 the engine runs the agents itself, and
    /// jobs wait for a `sovereign worker`.
    #[arg(long, value_name = "N", default_value_t = 1, env = "SOVEREIGN_WORKERS",
          value_parser = clap::value_parser!(u8).range(0..=32))]
    pub(crate) workers: u8,
    /// Stay in the foreground and log to stderr.
    #[arg(long)]
    pub(crate) foreground: bool,
    /// Be content if a healthy engine holds the data folder already.
    #[arg(long)]
    pub(crate) ensure: bool,
    /// Report steps as JSON on stdout, for the process that waits for us.
    #[arg(long, hide = true)]
    pub(crate) report: bool,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct FileArgs {
    /// A file, or `-` for standard input.
    #[arg(default_value = "-", value_name = "FILE")]
    pub(crate) file: PathBuf,
}

/// Where a range of events starts: a position or a moment.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Start {
    Position(u64),
    Time(sovereign_schemas::Timestamp),
}

fn start(text: &str) -> Result<Start, String> {
    if let Ok(position) = text.parse::<u64>() {
        if position == 0 {
            return Err("positions start at 1".to_owned());
        }
        return Ok(Start::Position(position));
    }
    text.parse()
        .map(Start::Time)
        .map_err(|e| format!("expected a position, or a moment: {e}"))
}

#[derive(Debug, Clone, Args)]
pub(crate) struct LogArgs {
    /// First position, or the moment from which on.
    #[arg(long, value_parser = start, value_name = "P|TIME")]
    pub(crate) from: Option<Start>,
    /// Last position.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..), value_name = "P")]
    pub(crate) to: Option<u64>,
    /// Only events of this department, by name or number.
    #[arg(long, value_name = "D")]
    pub(crate) department: Option<String>,
    /// Only events of this aggregate.
    #[arg(long, value_name = "TYPE/ID")]
    pub(crate) aggregate: Option<String>,
    /// Go on with new events, read from Kafka.
    #[arg(long)]
    pub(crate) follow: bool,
    /// Leave texts sealed.
    #[arg(long)]
    pub(crate) sealed: bool,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Range {
    /// First position.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..), value_name = "P")]
    pub(crate) from: Option<u64>,
    /// Last position.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..), value_name = "P")]
    pub(crate) to: Option<u64>,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct VerifyArgs {
    /// `ledger`, `kafka`, or a recorded file.
    #[arg(long, default_value = "ledger", value_name = "ledger|kafka|FILE")]
    pub(crate) source: String,
    #[command(flatten)]
    pub(crate) range: Range,
    /// Also compare event by event with this copy.
    #[arg(long, value_name = "ledger|kafka|FILE")]
    pub(crate) against: Option<String>,
    /// A head that was noted earlier, elsewhere: the event at that position must have that hash.
    /// May be given several times.
    #[arg(long, value_parser = noted, value_name = "POSITION:HASH")]
    pub(crate) head: Vec<sovereign_schemas::chain::Head>,
    /// Also compare the indexes of the ledger with its rows; takes several times as long.
    #[arg(long)]
    pub(crate) indexes: bool,
    #[command(flatten)]
    pub(crate) work: Work,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Work {
    /// Threads that check and fold, 1 to 64; the result does not depend on it.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) threads: u16,
    /// Events read at once, 1 to 100,000; the result does not depend on it.
    #[arg(long, default_value_t = 4_096, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) batch: u32,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct ReplayArgs {
    /// `ledger`, `kafka`, or a recorded file.
    #[arg(long, default_value = "ledger", value_name = "ledger|kafka|FILE")]
    pub(crate) source: String,
    #[command(flatten)]
    pub(crate) range: Range,
    /// Refuse sources that need the network.
    #[arg(long)]
    pub(crate) offline: bool,
    /// Let the handlers of all jobs decide again over what the log holds of their effects.
    #[arg(long, value_name = "recorded", value_parser = ["recorded"], conflicts_with = "from")]
    pub(crate) sinks: Option<String>,
    #[command(flatten)]
    pub(crate) work: Work,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct ExportArgs {
    /// The file to write; it must not exist.
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) range: Range,
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum ImportCommand {
    /// The table of a postgres-es repository (columns aggregate_type, aggregate_id, sequence,
    /// event_type, event_version, payload, metadata). Can be cut off and repeated: nothing comes
    /// in twice.
    PostgresEs(PostgresEsArgs),
}

#[derive(Clone, Args)]
pub(crate) struct PostgresEsArgs {
    /// The database that holds the table.
    #[arg(
        long,
        env = "SOVEREIGN_IMPORT_DATABASE",
        value_name = "URL",
        hide_env_values = true
    )]
    pub(crate) database: String,
    /// The table: a name, or schema.name.
    #[arg(long, default_value = "events", value_name = "NAME")]
    pub(crate) table: String,
    /// Check everything, count, and write nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Rows that are looked at together, 1 to 5,000; the result does not depend on it.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=5_000))]
    pub(crate) batch: u32,
    /// An aggregate type of the table that is not ours although it is named agent, trade or
    /// approval; may be given several times.
    #[arg(long, value_name = "TYPE")]
    pub(crate) foreign: Vec<String>,
    /// The department of foreign events, by name or number; historian if not given.
    #[arg(long, value_name = "D")]
    pub(crate) department: Option<String>,
}

/// Without the URL, which can hold a password.
impl std::fmt::Debug for PostgresEsArgs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresEsArgs")
            .field("table", &self.table)
            .field("dry_run", &self.dry_run)
            .finish_non_exhaustive()
    }
}

/// A head that somebody noted: `POSITION:HASH`.
fn noted(text: &str) -> Result<sovereign_schemas::chain::Head, String> {
    let form =
        || "expected POSITION:HASH, as sovereign status prints head and head_hash".to_owned();
    let (position, hash) = text.split_once(':').ok_or_else(form)?;
    let position: u64 = position.parse().map_err(|_| form())?;
    if position == 0 {
        return Err("positions start at 1".to_owned());
    }
    Ok(sovereign_schemas::chain::Head {
        position: sovereign_schemas::Position(position),
        hash: hash.parse().map_err(|_| form())?,
    })
}

#[derive(Debug, Clone, Args)]
pub(crate) struct ScrubArgs {
    /// A file, or `-` for standard input.
    #[arg(default_value = "-", value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Write what was found as NDJSON: label, rule, start, end (bytes of the input), line.
    #[arg(long, value_name = "FILE")]
    pub(crate) findings: Option<PathBuf>,
    /// Treat each line as a text of its own.
    #[arg(long)]
    pub(crate) lines: bool,
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum KeysCommand {
    /// Print the key of one subject, for reading its texts elsewhere.
    Show {
        /// Whose texts: an agent id, or the person a command named.
        #[arg(long, value_name = "S")]
        subject: String,
    },
}

#[derive(Debug, Clone, Args)]
pub(crate) struct TradeArgs {
    /// Daily bars as CSV, also gzipped: symbol, date, open, high, low, close, volume.
    pub(crate) file: PathBuf,
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum AgentsCommand {
    /// Let an agent be made of something else from now on.
    Define {
        /// TOML; docs/AGENTS.md describes it.
        file: PathBuf,
    },
    /// Show one agent with its definition.
    Show {
        /// Its id.
        name: String,
    },
    /// Draw the state machine; of one agent the part that it uses, and where it stands.
    Graph {
        /// Its id.
        name: Option<String>,
        /// How.
        #[arg(long, default_value = "mermaid")]
        format: GraphFormat,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum GraphFormat {
    Mermaid,
    Svg,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ViewName {
    Agents,
    Trades,
    Approvals,
    Departments,
    Passkeys,
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum ViewsCommand {
    /// Every build of every view: version, position, and what it is there for.
    List,
    /// Build a view again from position 1, beside its rows, and switch when it has caught up.
    Rebuild {
        /// Which view.
        view: ViewName,
    },
    /// Let the version before the one that serves serve again.
    Rollback {
        /// Which view.
        view: ViewName,
        /// Even if it is behind and nobody brings it up.
        #[arg(long)]
        stale: bool,
    },
    /// Let another version serve that is there.
    Switch {
        /// Which view.
        view: ViewName,
        /// Which version.
        #[arg(value_name = "VERSION")]
        to: u32,
        /// Even if it is behind and nobody brings it up.
        #[arg(long)]
        stale: bool,
    },
    /// Drop what is kept of a view besides the version that serves.
    Drop {
        /// Which view.
        view: ViewName,
        /// Only this version, even while it is being built.
        #[arg(long, value_name = "VERSION")]
        only: Option<u32>,
        /// Do not wait a minute for those who may still read it.
        #[arg(long)]
        at_once: bool,
    },
    /// Print the rows of a view as NDJSON.
    Show {
        /// Which view.
        view: ViewName,
    },
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum DeadLettersCommand {
    /// List letters; only those that wait for somebody, unless all are wanted.
    List {
        /// Also those that are done or dropped.
        #[arg(long)]
        all: bool,
        /// Only those of this consumer group; `view.<name>` for a view.
        #[arg(long, value_name = "GROUP")]
        group: Option<String>,
    },
    /// Show one letter: its failure, its original bytes, and the event that this build makes of them.
    Show {
        /// Its id.
        #[arg(value_parser = crate::commands::dead_letters::id)]
        id: uuid::Uuid,
    },
    /// Decode letters with this build and give them back to the groups that failed.
    Retry {
        /// Their ids.
        #[arg(required = true, value_parser = crate::commands::dead_letters::id)]
        ids: Vec<uuid::Uuid>,
        /// Also those that were given back before and not answered: they may come twice.
        #[arg(long)]
        again: bool,
    },
    /// Record that letters are not needed. Nothing is erased.
    Drop {
        /// Their ids.
        #[arg(required = true, value_parser = crate::commands::dead_letters::id)]
        ids: Vec<uuid::Uuid>,
        /// Why, in words; it is scrubbed and kept.
        #[arg(long)]
        reason: String,
    },
}
