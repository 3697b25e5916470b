//! A connection on which requests go out ahead of the answers: what `sqlx` cannot do, and what a
//! batch in one round trip needs. Only the writing session uses it. Bytes of messages are made and
//! parsed by `postgres-protocol`.

mod startup;
mod tls;

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use fallible_iterator::FallibleIterator as _;
use postgres_protocol::message::backend::{DataRowBody, ErrorFields, Message};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::io::poll_read_buf;

use crate::StoreError;
use crate::error::by_sqlstate;

pub(super) use startup::connect;

/// Room that is kept in the buffers between batches.
const BUFFER_BYTES: usize = 256 << 10;

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// What the server said about a request that it did not carry out.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct ServerError {
    pub(super) code: String,
    pub(super) message: String,
    pub(super) constraint: String,
    pub(super) table: String,
}

impl From<ServerError> for StoreError {
    fn from(error: ServerError) -> Self {
        let text = format!("{} ({})", error.message, error.code);
        by_sqlstate(&error.code, text)
    }
}

/// A broken connection, or one that says what it must not.
pub(super) fn broken(error: &io::Error) -> StoreError {
    StoreError::Unreachable(error.to_string())
}

/// The state of the session after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ready {
    /// Outside a transaction.
    Idle,
    /// Inside one.
    InTransaction,
    /// Inside one that has failed.
    Failed,
}

/// What came back for everything up to one `Sync`.
#[derive(Debug)]
pub(super) struct Answer {
    /// The first thing that went wrong.
    pub(super) error: Option<ServerError>,
    /// Values of the first row, if there was one; NULL is empty.
    pub(super) row: Vec<Vec<u8>>,
    pub(super) ready: Ready,
}

/// See the module.
pub(super) struct Wire {
    stream: Box<dyn Stream>,
    input: BytesMut,
    output: BytesMut,
    unflushed: bool,
    /// Of the answer that is coming in.
    error: Option<ServerError>,
    row: Option<Vec<Vec<u8>>>,
    /// The server's process.
    pub(super) process: i32,
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire")
            .field("process", &self.process)
            .finish_non_exhaustive()
    }
}

impl Wire {
    fn new(stream: Box<dyn Stream>) -> Self {
        Self {
            stream,
            input: BytesMut::with_capacity(8 << 10),
            output: BytesMut::with_capacity(BUFFER_BYTES),
            unflushed: false,
            error: None,
            row: None,
            process: 0,
        }
    }

    /// Where requests are put; they go out while an answer is awaited.
    pub(super) fn output(&mut self) -> &mut BytesMut {
        &mut self.output
    }

    /// Prepares a statement; its answer has to be awaited with the next `Sync`.
    pub(super) fn prepare(&mut self, name: &str, sql: &str) -> io::Result<()> {
        frontend::parse(name, sql, std::iter::empty(), &mut self.output)
    }

    pub(super) fn sync(&mut self) {
        frontend::sync(&mut self.output);
    }

    /// Runs statements without parameters and waits for them. Nothing else may be under way.
    pub(super) async fn simple(&mut self, sql: &str) -> Result<Answer, StoreError> {
        frontend::query(sql, &mut self.output).map_err(|e| broken(&e))?;
        let answer = self.answer().await?;
        match answer.error {
            Some(error) => Err(error.into()),
            None => Ok(answer),
        }
    }

    /// The next answer. Dropping this future loses nothing.
    ///
    /// # Errors
    /// If the connection ends.
    pub(super) async fn answer(&mut self) -> Result<Answer, StoreError> {
        loop {
            let message = match self.next().await {
                Ok(message) => message,
                Err(error) => {
                    // it says why before it closes the connection
                    let said = self.error.take();
                    return Err(said.map_or_else(|| broken(&error), StoreError::from));
                }
            };
            match message {
                Message::ErrorResponse(body) => {
                    let error = server_error(&mut body.fields()).map_err(|e| broken(&e))?;
                    self.error.get_or_insert(error);
                }
                Message::DataRow(body) if self.row.is_none() => {
                    self.row = Some(values(&body).map_err(|e| broken(&e))?);
                }
                Message::ReadyForQuery(body) => {
                    return Ok(Answer {
                        error: self.error.take(),
                        row: self.row.take().unwrap_or_default(),
                        ready: match body.status() {
                            b'I' => Ready::Idle,
                            b'T' => Ready::InTransaction,
                            _ => Ready::Failed,
                        },
                    });
                }
                _ => {}
            }
        }
    }

    async fn next(&mut self) -> io::Result<Message> {
        std::future::poll_fn(|context| self.poll_next(context)).await
    }

    /// Sends what there is to send, and waits for a message at the same time: the server may stop
    /// reading until somebody takes what it has to say.
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Message>> {
        loop {
            self.poll_send(context)?;
            if let Some(message) = Message::parse(&mut self.input)? {
                return Poll::Ready(Ok(message));
            }
            self.input.reserve(8 << 10);
            let stream = Pin::new(&mut *self.stream);
            if ready!(poll_read_buf(stream, context, &mut self.input))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    fn poll_send(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        while !self.output.is_empty() {
            match Pin::new(&mut *self.stream).poll_write(context, &self.output) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(written)) => {
                    self.output.advance(written);
                    self.unflushed = true;
                }
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => return Ok(()),
            }
        }
        if self.unflushed
            && let Poll::Ready(flushed) = Pin::new(&mut *self.stream).poll_flush(context)
        {
            flushed?;
            self.unflushed = false;
        }
        Ok(())
    }
}

fn server_error(fields: &mut ErrorFields<'_>) -> io::Result<ServerError> {
    let mut error = ServerError::default();
    while let Some(field) = fields.next()? {
        let into = match field.type_() {
            b'C' => &mut error.code,
            b'M' => &mut error.message,
            b'n' => &mut error.constraint,
            b't' => &mut error.table,
            // the detail can hold values of a row
            _ => continue,
        };
        *into = String::from_utf8_lossy(field.value_bytes()).into_owned();
    }
    Ok(error)
}

fn values(body: &DataRowBody) -> io::Result<Vec<Vec<u8>>> {
    let buffer = body.buffer();
    body.ranges()
        .map(|range| Ok(range.map_or_else(Vec::new, |range| buffer[range].to_vec())))
        .collect()
}
