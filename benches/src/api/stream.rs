//! Commands as NDJSON: a few connections with one long request each.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use anyhow::ensure;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{AGENTS, line};
use crate::append::{Plan, Random};
use crate::http::{Engine, command};
use crate::protocol::Reading;

/// Of each connection.
const LINES: usize = 20_000;
const ACCEPTED: &[u8] = b"\"status\":\"accepted\"";

/// One connection for each token.
pub(super) async fn run(
    engine: &Engine,
    tokens: &[String],
    plan: &Arc<Plan>,
) -> anyhow::Result<Reading> {
    let before = engine.settle().await?;
    // made before the clock starts
    let bodies: Vec<Vec<u8>> = (0..tokens.len())
        .map(|number| body(plan, number as u64))
        .collect();
    let started = Instant::now();
    let mut sent = tokio::task::JoinSet::new();
    for (body, token) in bodies.into_iter().zip(tokens) {
        sent.spawn(send(engine.addr, token.clone(), body));
    }
    let mut accepted = 0;
    while let Some(done) = sent.join_next().await {
        accepted += done??;
    }
    let took = started.elapsed();
    let all = LINES * tokens.len();
    ensure!(accepted == all, "{accepted} of {all} were accepted");
    let head = engine.settle().await?;
    ensure!(head - before == all as u64, "from {before} to {head}");
    Ok(Reading::new(all as f64 / took.as_secs_f64()))
}

/// All agents that commands go to.
pub(crate) async fn register_all(engine: &Engine, token: &str) -> anyhow::Result<()> {
    let mut body = Vec::new();
    for agent in 0..AGENTS {
        body.extend(command(agent, "register", &json!({ "role": "trader" })));
        body.push(b'\n');
    }
    let accepted = send(engine.addr, token.to_owned(), body).await?;
    ensure!(accepted == AGENTS, "{accepted} agents were registered");
    Ok(())
}

fn body(plan: &Plan, seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    let mut body = Vec::new();
    for _ in 0..LINES {
        let unit = plan.next(&mut random);
        body.extend(line(unit, &mut random));
        body.push(b'\n');
    }
    body
}

/// How many were accepted.
async fn send(addr: SocketAddr, token: String, body: Vec<u8>) -> anyhow::Result<usize> {
    let head = format!(
        "POST /api/v1/commands HTTP/1.1\r\nhost: {addr}\r\nauthorization: Bearer {token}\r\n\
         content-type: application/x-ndjson\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    let (mut from, mut to) = TcpStream::connect(addr).await?.into_split();
    let writer = tokio::spawn(async move {
        to.write_all(head.as_bytes()).await?;
        to.write_all(&body).await?;
        // the half stays open until the answer has ended
        anyhow::Ok(to)
    });
    let mut answer = Vec::new();
    from.read_to_end(&mut answer).await?;
    drop(writer.await??);
    let all = answer.windows(ACCEPTED.len());
    Ok(all.filter(|part| *part == ACCEPTED).count())
}
