//! Jobs and workers.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// One of the queues of jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum QueueName {
    High,
    Default,
    Low,
}

impl QueueName {
    /// The most urgent is 0.
    pub(crate) const fn number(self) -> u8 {
        match self {
            Self::High => 0,
            Self::Default => 1,
            Self::Low => 2,
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Default => "default",
            Self::Low => "low",
        }
    }
}

#[derive(Debug, Clone, Args)]
pub(crate) struct WorkerArgs {
    /// The queues that it serves.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "high,default,low"
    )]
    pub(crate) queues: Vec<QueueName>,
    /// Jobs at once, 1 to 256. With two or more, one place is kept for the queue high.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) slots: u16,
    /// Who carries effects out: live, mock or recorded.
    #[arg(long, default_value = "live", value_name = "live|mock|recorded")]
    pub(crate) sinks: sovereign_sinks::SinkMode,
    /// The script that mock sinks answer from.
    #[arg(long, value_name = "FILE")]
    pub(crate) script: Option<PathBuf>,
    /// Others take its jobs over when it was silent for so many milliseconds, from 1,000.
    #[arg(long, default_value_t = 10_000, value_name = "MS",
          value_parser = clap::value_parser!(u32).range(1_000..=600_000))]
    pub(crate) lease_ms: u32,
    /// So many seconds effects under way may still take after SIGTERM.
    #[arg(long, default_value_t = 30, value_name = "S",
          value_parser = clap::value_parser!(u16).range(0..=3_600))]
    pub(crate) grace_s: u16,
    /// Do jobs only, and leave the agents to others.
    #[arg(long)]
    pub(crate) jobs_only: bool,
    /// A name for the agents' group that stays when it is started again; one of its own if not
    /// given.
    #[arg(long, hide = true, value_name = "NAME")]
    pub(crate) member: Option<String>,
    /// Stop when this process is not the parent any more.
    #[arg(long, hide = true)]
    pub(crate) parent: Option<i32>,
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum JobsCommand {
    /// Submit jobs, one JSON object a line; prints their ids.
    Submit {
        /// A file, or `-` for standard input.
        #[arg(default_value = "-", value_name = "FILE")]
        file: PathBuf,
    },
    /// Jobs that have not ended.
    List {
        /// Also those that ended.
        #[arg(long)]
        all: bool,
    },
    /// One job with what became of each effect.
    Show {
        /// Its id.
        job: String,
    },
    /// Start a job now that waits for others, or for its time.
    ForceStart {
        /// Its id.
        job: String,
    },
    /// Give a job up: at once, or before its next effect.
    Abort {
        /// Its id.
        job: String,
        /// Why, as a short code.
        #[arg(long, default_value = "operator")]
        reason: String,
    },
    /// Say whether an effect in doubt happened.
    Resolve {
        /// The job's id.
        job: String,
        /// Number of the effect, from 0.
        index: u32,
        /// It happened; the job goes on behind it.
        #[arg(
            long,
            conflicts_with = "not_done",
            required_unless_present = "not_done"
        )]
        done: bool,
        /// It did not; it is run again.
        #[arg(long)]
        not_done: bool,
    },
    /// The queues with what is in them.
    Queues,
    /// Begin nothing of a queue any more; what a worker has goes on.
    Pause {
        /// Which.
        #[arg(value_enum)]
        queue: QueueName,
    },
    /// Let a queue go on.
    Resume {
        /// Which.
        #[arg(value_enum)]
        queue: QueueName,
    },
    /// Pause all queues, and wait until no worker has a job.
    Drain,
    /// Jobs that are done again and again: list them, or show, check and adopt them.
    Schedules {
        #[command(subcommand)]
        command: Option<SchedulesCommand>,
    },
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum SchedulesCommand {
    /// Print the schedules that hold, as they were written.
    Show,
    /// Read schedules and say when they are due, or which line is wrong. Needs no engine.
    Check {
        /// TOML; docs/JOBS.md describes it.
        file: PathBuf,
    },
    /// Let schedules hold from now on, in the place of all before. Their version is one more.
    Adopt {
        /// TOML; docs/JOBS.md describes it.
        file: PathBuf,
    },
}
