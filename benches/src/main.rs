//! `bench all` or `bench <name> …`: each benchmark runs its arms interleaved, writes
//! `target/bench/<name>.json` and prints a table. See `protocol`.

#![allow(clippy::unwrap_used)]

mod agents;
mod api;
mod append;
mod http;
mod jobs;
mod machine;
mod protocol;
mod relay;
mod replay;
mod servers;
mod sse;
mod views;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

/// Side-by-side benchmarks: ours, a peer, and the physical limit in one run.
#[derive(Parser, Debug)]
struct Args {
    /// Which benchmarks to run: all, or names.
    #[arg(default_value = "all")]
    names: Vec<String>,
    /// Rounds of each case; the first is dropped.
    #[arg(long, default_value_t = 6)]
    rounds: usize,
    /// Also the parts that take long: a ledger of 5 million events.
    #[arg(long)]
    full: bool,
    /// Only the cases whose name holds this.
    #[arg(long, default_value = "")]
    case: String,
    /// Where the results go.
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
}

/// Name and how it is run. To add one: write `<name>.rs` with `run`, and a line here.
const BENCHMARKS: &[&str] = &[
    "append", "relay", "views", "replay", "jobs", "agents", "api", "sse",
];

fn main() -> ExitCode {
    let mut raw = std::env::args_os().skip(1);
    if raw
        .next()
        .is_some_and(|first| first == sovereign_servers::CHILD_SUBCOMMAND)
    {
        return sovereign_servers::child_main(raw);
    }
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [first, address, folder] = words.as_slice()
        && first == append::UMA_SUBCOMMAND
    {
        return exit(append::uma_serve(address, folder));
    }
    if words.len() == 1 && words[0] == api::ECHO_SUBCOMMAND {
        return exit(api::echo_serve());
    }
    let args = Args::parse();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    exit(runtime.block_on(run(&args)))
}

fn exit(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> anyhow::Result<()> {
    let wanted = |name: &str| args.names.iter().any(|n| n == name || n == "all");
    for name in args.names.iter().filter(|n| *n != "all") {
        anyhow::ensure!(
            BENCHMARKS.contains(&name.as_str()),
            "no benchmark is called {name}; there are {}",
            BENCHMARKS.join(", ")
        );
    }
    if wanted("append") {
        append::run(args.rounds, &args.out, &args.case, args.full).await?;
    }
    if wanted("relay") {
        relay::run(args.rounds, &args.out, &args.case).await?;
    }
    if wanted("views") {
        views::run(args.rounds, &args.out).await?;
    }
    if wanted("replay") {
        replay::run(args.rounds, &args.out, &args.case).await?;
    }
    if wanted("jobs") {
        jobs::run(args.rounds, &args.out).await?;
    }
    if wanted("agents") {
        agents::run(args.rounds, &args.out).await?;
    }
    if wanted("api") {
        api::run(args.rounds, &args.out, &args.case).await?;
    }
    if wanted("sse") {
        sse::run(args.rounds, &args.out).await?;
    }
    let run: Vec<&str> = BENCHMARKS.iter().copied().filter(|n| wanted(n)).collect();
    protocol::summary(&args.out, &run)
}
