//! One HTTP/1.1 connection that is kept open. Written by hand, because the load generator shares the
//! cores with what it measures: it formats, sends and finds the end of an answer, nothing more.

use std::io::Write as _;
use std::net::SocketAddr;

use anyhow::{Context as _, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Longest answer that is read.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Room for an answer, as a rule.
const READ_BYTES: usize = 1 << 14;

pub(crate) struct Connection {
    stream: TcpStream,
    /// Of every request, up to the length of its body.
    head: String,
    out: Vec<u8>,
    read: Vec<u8>,
    /// How much of `read` was used up by answers.
    used: usize,
}

/// An answer: its status and where its body is.
pub(crate) struct Answer<'a> {
    pub(crate) status: u16,
    pub(crate) body: &'a [u8],
}

impl Connection {
    pub(crate) async fn open(addr: SocketAddr, path: &str, token: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: {addr}\r\nauthorization: Bearer {token}\r\n\
             content-type: application/json\r\ncontent-length: "
        );
        Ok(Self {
            stream,
            head,
            out: Vec::new(),
            read: Vec::with_capacity(READ_BYTES),
            used: 0,
        })
    }

    /// Sends a body and waits for its answer.
    pub(crate) async fn post(&mut self, body: &[u8]) -> anyhow::Result<Answer<'_>> {
        self.out.clear();
        self.out.extend_from_slice(self.head.as_bytes());
        write!(self.out, "{}\r\n\r\n", body.len())?;
        self.out.extend_from_slice(body);
        self.stream.write_all(&self.out).await?;
        self.read.drain(..self.used);
        self.used = 0;
        let head = loop {
            if let Some(at) = find(&self.read, b"\r\n\r\n") {
                break at + 4;
            }
            self.more().await?;
        };
        let status = std::str::from_utf8(self.read.get(9..12).context("no status")?)?.parse()?;
        let length = length(&self.read[..head]).context("an answer without a length")?;
        ensure!(length <= ANSWER_BYTES_MAX, "an answer of {length} bytes");
        while self.read.len() < head + length {
            self.more().await?;
        }
        self.used = head + length;
        Ok(Answer {
            status,
            body: &self.read[head..head + length],
        })
    }

    async fn more(&mut self) -> anyhow::Result<()> {
        ensure!(self.stream.read_buf(&mut self.read).await? > 0, "cut off");
        Ok(())
    }
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    memchr::memmem::find(text, what)
}

fn length(head: &[u8]) -> Option<usize> {
    let head = std::str::from_utf8(head).ok()?;
    let mut lines = head.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = lines.find(|(name, _)| name.eq_ignore_ascii_case("content-length"))?;
    value.trim().parse().ok()
}

/// The number behind `"positions":[` of an outcome that took effect now.
pub(crate) fn position_of(outcome: &[u8]) -> Option<u64> {
    find(outcome, b"\"status\":\"accepted\"")?;
    let at = find(outcome, b"\"positions\":[")? + 13;
    let digits = outcome[at..].iter().take_while(|b| b.is_ascii_digit());
    std::str::from_utf8(&outcome[at..at + digits.count()])
        .ok()?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_read_of_what_took_effect() {
        let outcome = br#"{"command_id":"x","status":"accepted","positions":[17,17]}"#;
        assert_eq!(position_of(outcome), Some(17));
        let again = br#"{"command_id":"x","status":"duplicate","positions":[17,17]}"#;
        assert_eq!(position_of(again), None);
        assert_eq!(
            length(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
            Some(5)
        );
    }
}
