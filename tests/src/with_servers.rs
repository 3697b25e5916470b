//! Starts a PostgreSQL and a Kafka of its own in a temporary folder, runs a command with their
//! addresses in its environment, stops them, and ends with the command's exit code.
//!
//! `cargo run -p sovereign-tests --bin with-servers -- cargo test --workspace`

use std::os::unix::fs::PermissionsExt as _;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use sovereign_servers::{DataFolder, Options, Servers};

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    let Some(program) = args.next() else {
        eprintln!("usage: with-servers program [args]");
        return ExitCode::from(2);
    };
    if program == sovereign_servers::CHILD_SUBCOMMAND {
        return sovereign_servers::child_main(args);
    }
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(program, args.collect())) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(
    program: std::ffi::OsString,
    args: Vec<std::ffi::OsString>,
) -> anyhow::Result<ExitCode> {
    let folder = tempfile::Builder::new()
        .prefix("sovereign-test-")
        .tempdir()?;
    // the servers run as another user if root starts them, and must be able to reach their files
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o711))?;
    let data = DataFolder::open(&folder.path().join("data"))?;
    let progress = Arc::new(|step: &str| eprintln!("test servers: {step}"));
    let servers = Servers::start(
        &data,
        Options {
            progress,
            ..Options::default()
        },
    )
    .await?;
    let database = servers.superuser_url().context("postgres was asked for")?;
    let brokers = servers.brokers().context("kafka was asked for")?;
    let status = tokio::process::Command::new(&program)
        .args(args)
        .env("SOVEREIGN_TEST_DATABASE", database.expose())
        .env("SOVEREIGN_TEST_BROKERS", brokers)
        .kill_on_drop(true)
        .status()
        .await
        .with_context(|| format!("{} cannot be run", program.display()));
    servers.stop().await;
    let code = status?
        .code()
        .and_then(|c| u8::try_from(c).ok())
        .unwrap_or(1);
    Ok(ExitCode::from(code))
}
