//! The least that a server in the same framework does: it answers with the body.

use std::net::SocketAddr;
use std::process::Stdio;

use anyhow::Context as _;
use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};

pub(crate) const SUBCOMMAND: &str = "echo-serve";

/// What the child does; it says where it listens.
pub(crate) fn serve() -> anyhow::Result<()> {
    tokio::runtime::Runtime::new()?.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("{}", listener.local_addr()?);
        let echo = Router::new().route("/", post(|body: Bytes| async { body }));
        axum::serve(listener, echo).await?;
        Ok(())
    })
}

pub(super) struct Server {
    pub(super) addr: SocketAddr,
    _child: Child,
}

impl Server {
    pub(super) async fn start() -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(SUBCOMMAND)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let said = BufReader::new(child.stdout.take().context("no output")?);
        let addr = said.lines().next_line().await?.context("it says nothing")?;
        Ok(Self {
            addr: addr.parse()?,
            _child: child,
        })
    }
}
