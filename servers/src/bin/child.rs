//! For tests of this crate, which has no binary of its own: the shim (`child …`) and an engine
//! that does nothing but hold its servers (`up FOLDER`, until its stdin ends).

use std::error::Error;
use std::io::Read;
use std::path::Path;
use std::process::ExitCode;

use sovereign_servers::{CHILD_SUBCOMMAND, DataFolder, Options, Servers, child_main};

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut args = std::env::args_os().skip(1);
    let subcommand = args.next().unwrap_or_default();
    if subcommand == CHILD_SUBCOMMAND {
        return Ok(child_main(args));
    }
    let folder = args
        .next()
        .filter(|_| subcommand == "up")
        .ok_or("usage: up FOLDER")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(up(Path::new(&folder)))?;
    Ok(ExitCode::SUCCESS)
}

async fn up(path: &Path) -> Result<(), Box<dyn Error>> {
    let folder = DataFolder::open(path)?;
    let servers = Servers::start(&folder, Options::default()).await?;
    println!("ready");
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
    servers.stop().await;
    Ok(())
}
