//! Commands at their planned moments.

use std::net::SocketAddr;
use std::time::Instant;

use anyhow::ensure;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{COUNT, due};
use crate::api::AGENTS;
use crate::append::{Random, text};
use crate::http::command;

/// Streams of commands that share the load.
const STREAMS: u64 = 4;
const ACCEPTED: &[u8] = b"\"status\":\"accepted\"";

/// The id of command n; the follower finds n again in it.
pub(super) fn id(round: u64, n: u64) -> String {
    format!("{:08x}-0000-7000-8000-{n:012x}", round + 1)
}

/// What one stream sends: numbers with their chunks, made beforehand, or the making would take
/// cores from the engine while it is measured.
pub(super) type Chunks = Vec<(u64, Vec<u8>)>;

/// All chunks of a round, one element for each stream.
pub(super) fn chunks(round: u64) -> anyhow::Result<Vec<Chunks>> {
    let of = |stream: u64| -> anyhow::Result<Chunks> {
        let mut random = Random(stream);
        let mut chunks = Vec::new();
        for n in (stream..COUNT).step_by(STREAMS as usize) {
            let agent = n as usize % AGENTS;
            let thought = json!({ "text": text(&mut random) });
            let line = command(agent, "record_thought", &thought);
            let mut line: Value = serde_json::from_slice(&line)?;
            line["command_id"] = id(round, n).into();
            let line = format!("{line}\n");
            chunks.push((n, format!("{:x}\r\n{line}\r\n", line.len()).into_bytes()));
        }
        Ok(chunks)
    };
    (0..STREAMS).map(of).collect()
}

/// Sends all of them, and checks that all were accepted.
pub(super) async fn all(
    addr: SocketAddr,
    token: &str,
    start: Instant,
    chunks: Vec<Chunks>,
) -> anyhow::Result<()> {
    let mut streams = tokio::task::JoinSet::new();
    for chunks in chunks {
        streams.spawn(one(addr, token.to_owned(), start, chunks));
    }
    let mut accepted = 0;
    while let Some(done) = streams.join_next().await {
        accepted += done??;
    }
    ensure!(
        accepted == COUNT as usize,
        "{accepted} of {COUNT} were accepted"
    );
    Ok(())
}

async fn one(
    addr: SocketAddr,
    token: String,
    start: Instant,
    chunks: Chunks,
) -> anyhow::Result<usize> {
    let socket = TcpStream::connect(addr).await?;
    socket.set_nodelay(true)?;
    let (mut from, mut to) = socket.into_split();
    let head = format!(
        "POST /api/v1/commands HTTP/1.1\r\nhost: {addr}\r\nauthorization: Bearer {token}\r\n\
         content-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
    );
    let writer = tokio::spawn(async move {
        to.write_all(head.as_bytes()).await?;
        let (mut chunks, mut together) = (chunks.into_iter().peekable(), Vec::new());
        while let Some((n, _)) = chunks.peek() {
            tokio::time::sleep_until(due(start, *n).into()).await;
            // the clock of tokio goes by milliseconds: all that are due by now go at once
            let now = Instant::now();
            while let Some((_, chunk)) = chunks.next_if(|(n, _)| due(start, *n) <= now) {
                together.extend(chunk);
            }
            to.write_all(&together).await?;
            together.clear();
        }
        to.write_all(b"0\r\n\r\n").await?;
        // the half stays open until the answer has ended
        anyhow::Ok(to)
    });
    let mut answer = Vec::new();
    from.read_to_end(&mut answer).await?;
    drop(writer.await??);
    let all = answer.windows(ACCEPTED.len());
    Ok(all.filter(|part| *part == ACCEPTED).count())
}
