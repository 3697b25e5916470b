//! The binary `sovereign`: the only place that wires the rooms together.

mod args;
mod client;
mod commands;
mod config;
mod describe;
mod engine;
mod failure;
mod location;
mod output;
mod reveal;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use args::{Cli, Command};
use commands::{
    agents, approvals, approvers, dead_letters, down, export, import, jobs, keys, log, policy,
    replay, scrub, send, status, tokens, trade, up, verify, views, worker,
};
use failure::{Failure, Result, internal};
use location::Location;
use output::Output;

/// Requests, events and batches are many small pieces that one thread makes and another frees: what
/// the C library's own allocator is slow at (docs/BENCHMARKS.md, api).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // before any thread: this process becomes a server
    let mut raw = std::env::args_os().skip(1);
    if raw
        .next()
        .is_some_and(|first| first == sovereign_servers::CHILD_SUBCOMMAND)
    {
        return sovereign_servers::child_main(raw);
    }
    let cli = Cli::parse();
    let output = Output::new(&cli.global);
    // several crates bring rustls along; the first to choose a provider wins, and any will do
    let _chosen = rustls::crypto::ring::default_provider().install_default();
    match start(cli, output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output.failure(&failure);
            failure.exit_code()
        }
    }
}

fn start(cli: Cli, output: Output) -> Result<()> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if works_alone(&cli.command) {
        // no driver for sockets, no handler for signals: such a command opens no socket at all,
        // which anyone can see with strace
        let runtime = builder.enable_time().build().map_err(internal)?;
        return runtime.block_on(run(cli, output));
    }
    let runtime = builder.enable_all().build().map_err(internal)?;
    let engine = match &cli.command {
        Command::Up(args) => args.foreground,
        Command::Worker(_) => true,
        _ => false,
    };
    runtime.block_on(async {
        if engine {
            // it takes Ctrl-C as a request to stop cleanly
            return run(cli, output).await;
        }
        tokio::select! {
            done = run(cli, output) => done,
            _ = tokio::signal::ctrl_c() => Err(Failure::Interrupted),
        }
    })
}

/// Commands that need neither servers nor the engine.
fn works_alone(command: &Command) -> bool {
    match command {
        Command::Replay(args) => args.offline,
        Command::Scrub(_)
        | Command::Completions { .. }
        | Command::Policy(args::PolicyCommand::Check { .. })
        | Command::Jobs(args::JobsCommand::Schedules {
            command: Some(args::SchedulesCommand::Check { .. }),
        })
        | Command::Approvals(args::ApprovalsCommand::Verify { .. }) => true,
        _ => false,
    }
}

async fn run(cli: Cli, output: Output) -> Result<()> {
    let location = Location::new(&cli.global)?;
    let location = &location;
    match cli.command {
        Command::Up(args) => up::run(location, output, &cli.global, *args).await,
        Command::Down => down::run(location, output).await,
        Command::Status => status::run(location, output).await,
        Command::Send(args) => send::run(location, output, args).await,
        Command::Log(args) => log::run(location, output, args).await,
        Command::Verify(args) => verify::run(location, output, args).await,
        Command::Replay(args) => replay::run(location, output, args).await,
        Command::Export(args) => export::run(location, output, args).await,
        Command::Import(command) => import::run(location, output, command).await,
        Command::Scrub(args) => scrub::run(&args),
        Command::Keys(command) => keys::run(location, output, command).await,
        Command::Trade(args) => trade::run(location, output, args).await,
        Command::Agents { command } => agents::run(location, output, command).await,
        Command::Jobs(command) => jobs::run(location, output, command).await,
        Command::Worker(args) => worker::run(location, output, args).await,
        Command::Approvals(command) => approvals::run(location, output, command).await,
        Command::Approvers(command) => approvers::run(location, output, command).await,
        Command::Policy(command) => policy::run(location, output, command).await,
        Command::Tokens(command) => tokens::run(location, output, command).await,
        Command::Views(command) => views::run(location, output, command).await,
        Command::DeadLetters(command) => dead_letters::run(location, output, command).await,
        Command::Completions { shell } => {
            clap_complete::generate(
                shell,
                &mut Cli::command(),
                "sovereign",
                &mut std::io::stdout(),
            );
            Ok(())
        }
        // taken before the runtime was started
        Command::Child { .. } => Err(Failure::Exit(2)),
    }
}
