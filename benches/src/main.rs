//! `bench all` or `bench <name> …`: each benchmark runs its arms interleaved, writes
//! `target/bench/<name>.json` and prints a table. See `protocol`.

#![allow(clippy::unwrap_used)]

mod machine;
mod protocol;
mod relay;
mod servers;

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
    /// Where the results go.
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
}

/// Name and how it is run. To add one: write `<name>.rs` with `run`, and a line here.
const BENCHMARKS: &[&str] = &["relay"];

fn main() -> ExitCode {
    let mut raw = std::env::args_os().skip(1);
    if raw
        .next()
        .is_some_and(|first| first == sovereign_servers::CHILD_SUBCOMMAND)
    {
        return sovereign_servers::child_main(raw);
    }
    let args = Args::parse();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    match runtime.block_on(run(&args)) {
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
    if wanted("relay") {
        relay::run(args.rounds, &args.out).await?;
    }
    Ok(())
}
