//! Who follows: notes when each event came.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::{COUNT, PATIENCE, due, emit, reading};
use crate::protocol::Reading;

/// In front of a command's id in an event, once in each.
const MARK: &[u8] = b"\"command_id\":\"";
const ID_BYTES: usize = 36;
/// Bytes of an event of these commands as the stream sends it; `raw` sends as many.
const FRAME_BYTES: usize = 1_600;

/// Read at once.
const READ_BYTES: usize = 1 << 18;

pub(super) struct Follower(TcpStream);

impl Follower {
    /// Is connected, and told so, when this returns.
    pub(super) async fn open(addr: SocketAddr, token: &str, after: u64) -> anyhow::Result<Self> {
        let mut socket = TcpStream::connect(addr).await?;
        let request = format!(
            "GET /api/v1/events/stream?after={after} HTTP/1.1\r\nhost: {addr}\r\n\
             authorization: Bearer {token}\r\n\r\n"
        );
        socket.write_all(request.as_bytes()).await?;
        let mut read = Vec::new();
        while !read.windows(9).any(|part| part == b"heartbeat") {
            let more = timeout(PATIENCE, socket.read_buf(&mut read)).await??;
            ensure!(more > 0, "{}", String::from_utf8_lossy(&read));
        }
        Ok(Self(socket))
    }

    /// When each of them came, in the order of their numbers; each once.
    pub(super) async fn all(mut self, round: u64) -> anyhow::Result<Vec<Instant>> {
        let mut came = vec![None; COUNT as usize];
        let (mut left, mut read) = (COUNT, Vec::with_capacity(2 * READ_BYTES));
        let prefix = emit::id(round, 0)[..24].to_owned();
        while left > 0 {
            // or it would read what little room there is, again and again
            read.reserve(READ_BYTES);
            let more = timeout(PATIENCE, self.0.read_buf(&mut read));
            let more = more
                .await
                .with_context(|| format!("{left} did not come"))??;
            ensure!(more > 0, "the stream ended");
            let now = Instant::now();
            let mut used = 0;
            while let Some(at) = next(&read[used..]) {
                let id = std::str::from_utf8(&read[used + at..used + at + ID_BYTES])?;
                used += at + ID_BYTES;
                let number = id.strip_prefix(&prefix).context("another's event")?;
                let number = usize::from_str_radix(number, 16)?;
                let place = came.get_mut(number).context("no such number")?;
                ensure!(place.replace(now).is_none(), "{number} came twice");
                left -= 1;
            }
            // a mark may be cut in two
            let keep = read.len().min(MARK.len() + ID_BYTES);
            read.drain(..used.max(read.len() - keep));
        }
        Ok(came.into_iter().flatten().collect())
    }
}

/// Where the next whole id begins.
fn next(read: &[u8]) -> Option<usize> {
    let at = memchr::memmem::find(read, MARK)? + MARK.len();
    (read.len() >= at + ID_BYTES).then_some(at)
}

/// Frames of the same size over a loopback connection, at the same moments.
pub(super) async fn raw() -> anyhow::Result<Reading> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let mut to = TcpStream::connect(listener.local_addr()?).await?;
    to.set_nodelay(true)?;
    let (mut from, _) = listener.accept().await?;
    let start = Instant::now() + Duration::from_millis(300);
    let sender = tokio::spawn(async move {
        let frame = vec![b'x'; FRAME_BYTES];
        for n in 0..COUNT {
            tokio::time::sleep_until(due(start, n).into()).await;
            to.write_all(&frame).await?;
        }
        anyhow::Ok(())
    });
    let (mut came, mut bytes) = (Vec::new(), 0);
    let mut buffer = vec![0; READ_BYTES];
    while came.len() < COUNT as usize {
        let read = timeout(PATIENCE, from.read(&mut buffer)).await??;
        ensure!(read > 0, "the sender ended");
        bytes += read;
        let now = Instant::now();
        came.resize(bytes / FRAME_BYTES, now);
    }
    sender.await??;
    Ok(reading(start, &came))
}
