//! A started program as three pipes, and what reads and writes them.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
};
use tokio::sync::mpsc;

use super::program::Program;
use super::session::Pace;

/// Lines of a program that wait to be looked at; then its pipe fills, and it has to wait.
const LINES_MAX: usize = 64;
/// A longer line on standard error is cut.
const ERROR_LINE_BYTES: usize = 1_024;
/// Lines on standard error in a second that are kept.
const ERROR_LINES_PER_S: u32 = 50;

/// Starts programs.
#[async_trait]
pub trait Launch: Send + Sync {
    /// Starts one; `run` is a name that no other start has.
    ///
    /// # Errors
    /// If no process can be made.
    async fn launch(&self, program: &Program, run: &str) -> io::Result<Started>;
}

/// A started program.
pub struct Started {
    /// Where it reads.
    pub stdin: Box<dyn AsyncWrite + Send + Unpin>,
    /// Where it writes lines of the protocol.
    pub stdout: Box<dyn AsyncRead + Send + Unpin>,
    /// Where it complains.
    pub stderr: Box<dyn AsyncRead + Send + Unpin>,
    /// Its processes.
    pub running: Box<dyn Running>,
}

impl fmt::Debug for Started {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Started").finish_non_exhaustive()
    }
}

/// The processes of a started program.
#[async_trait]
pub trait Running: Send {
    /// Waits until it has ended, and says how. May be dropped and asked again.
    async fn ended(&mut self) -> String;
    /// Kills all of it.
    async fn end(self: Box<Self>);
}

/// What comes out of a program.
#[derive(Debug)]
pub(super) enum Heard {
    Line(Vec<u8>),
    TooLong,
}

/// Reads lines until the end, or until one is too long.
pub(super) fn hear(
    stdout: Box<dyn AsyncRead + Send + Unpin>,
    bytes_max: usize,
) -> mpsc::Receiver<Heard> {
    let (tell, heard) = mpsc::channel(LINES_MAX);
    tokio::spawn(async move {
        let mut stdout = BufReader::new(stdout);
        loop {
            let mut line = Vec::new();
            // one byte more than a line may have, and its end
            let mut limited = (&mut stdout).take(bytes_max as u64 + 2);
            match limited.read_until(b'\n', &mut line).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            let ends = line.last() == Some(&b'\n');
            if ends {
                line.pop();
            }
            let said = if line.len() > bytes_max {
                Heard::TooLong
            } else if ends {
                Heard::Line(line)
            } else {
                // cut off in the middle of a line: it is ending
                return;
            };
            let last = matches!(said, Heard::TooLong);
            if tell.send(said).await.is_err() || last {
                return;
            }
        }
    });
    heard
}

/// Writes lines in their order; so many may wait.
pub(super) fn tell(
    mut stdin: Box<dyn AsyncWrite + Send + Unpin>,
    waiting: usize,
) -> mpsc::Sender<String> {
    let (tell, mut lines) = mpsc::channel::<String>(waiting);
    tokio::spawn(async move {
        while let Some(mut line) = lines.recv().await {
            line.push('\n');
            if stdin.write_all(line.as_bytes()).await.is_err() || stdin.flush().await.is_err() {
                return;
            }
        }
    });
    tell
}

/// Keeps a line of the standard error of the program of this name.
pub type Complaints = Arc<dyn Fn(&str, &str) + Send + Sync>;

/// Takes all that a program complains, and keeps as much of it as a person can read.
pub(super) fn complaints(
    mut stderr: Box<dyn AsyncRead + Send + Unpin>,
    program: String,
    keep: Complaints,
) {
    tokio::spawn(async move {
        let begun = tokio::time::Instant::now();
        let mut pace = Pace::new(ERROR_LINES_PER_S);
        let (mut buffer, mut line) = (vec![0; 8_192], Vec::new());
        loop {
            let Ok(count @ 1..) = stderr.read(&mut buffer).await else {
                return;
            };
            for byte in &buffer[..count] {
                if *byte != b'\n' {
                    if line.len() < ERROR_LINE_BYTES {
                        line.push(*byte);
                    }
                    continue;
                }
                let fits = pace.take_if_free(begun.elapsed());
                if fits {
                    keep(&program, &String::from_utf8_lossy(&line));
                }
                line.clear();
            }
            tokio::time::sleep(Duration::ZERO).await;
        }
    });
}
