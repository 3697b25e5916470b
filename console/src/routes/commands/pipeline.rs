use std::collections::VecDeque;
use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::body::BodyDataStream;
use bytes::{BufMut, Bytes, BytesMut};
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use sovereign_schemas::{ErrorCode, Outcome, Problem, Status};
use tokio::sync::mpsc::Sender;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::lines::{Line, Lines};
use crate::CommandGate;
use crate::http::state::Shared;

/// Outcomes are sent in chunks of about so many bytes when many are ready.
const CHUNK_BYTES: usize = 64 << 10;
/// When the console is stopped, lines are still answered, but not submitted, for so many
/// milliseconds; an input that goes on longer is cut.
const STOPPING_MS: u64 = 1_000;
/// Milliseconds for the last chunk to leave before a stream is cut.
const LAST_CHUNK_MS: u64 = 50;

pub(super) type Chunk = Result<Bytes, io::Error>;

/// A command that was submitted and is now done.
struct Done {
    slot: u64,
    bytes: usize,
    outcome: Outcome,
}

/// One stream of commands: lines are submitted in input order, up to a number and size at a time,
/// and their outcomes written in input order.
pub(super) struct Pipeline {
    gate: Arc<dyn CommandGate>,
    stopping: CancellationToken,
    in_flight_max: usize,
    bytes_in_flight_max: usize,
    lines: Lines,
    submitted: FuturesUnordered<BoxFuture<'static, Done>>,
    bytes_in_flight: usize,
    /// The encoded outcome of each line from `first_slot` on, once there is one.
    slots: VecDeque<Option<Vec<u8>>>,
    first_slot: u64,
    /// Encoded outcomes in input order that wait for the client.
    outgoing: BytesMut,
    /// No complete line is left in `lines`.
    drained: bool,
    /// No more input is read.
    ended: bool,
    /// Nobody reads the outcomes.
    gone: bool,
    /// Until when input is still answered; set when the console is stopped.
    stopped_until: Option<Instant>,
}

impl Pipeline {
    pub(super) fn new(shared: &Shared, gate: Arc<dyn CommandGate>) -> Self {
        let options = &shared.options;
        Self {
            gate,
            stopping: shared.stopping.clone(),
            in_flight_max: options.commands_in_flight_max,
            bytes_in_flight_max: options.command_bytes_in_flight_max,
            lines: Lines::new(options.line_bytes_max),
            submitted: FuturesUnordered::new(),
            bytes_in_flight: 0,
            slots: VecDeque::new(),
            first_slot: 0,
            outgoing: BytesMut::new(),
            drained: true,
            ended: false,
            gone: false,
            stopped_until: None,
        }
    }

    /// Goes on until all input is answered, or until all that was submitted is done when the
    /// client has gone.
    pub(super) async fn run(mut self, mut input: BodyDataStream, output: Sender<Chunk>) {
        let stopping = self.stopping.clone();
        loop {
            self.advance();
            if self.is_over() {
                return;
            }
            let stopped_until = self.stopped_until;
            tokio::select! {
                chunk = input.next(), if !self.ended && self.drained => self.read(chunk),
                Some(done) = self.submitted.next(), if !self.submitted.is_empty() => {
                    self.settle(done);
                }
                permit = output.reserve(), if !self.gone && !self.outgoing.is_empty() => {
                    match permit {
                        Ok(permit) => permit.send(Ok(self.outgoing.split().freeze())),
                        Err(_) => self.leave(),
                    }
                }
                () = output.closed(), if !self.gone && self.outgoing.is_empty() => self.leave(),
                () = stopping.cancelled(), if stopped_until.is_none() => {
                    let until = Instant::now() + Duration::from_millis(STOPPING_MS);
                    self.stopped_until = Some(until);
                }
                () = sleep_until(stopped_until.unwrap_or_else(Instant::now)),
                    if stopped_until.is_some() && !self.ended => return self.cut(&output).await,
            }
        }
    }

    fn has_room(&self) -> bool {
        self.slots.len() < self.in_flight_max && self.bytes_in_flight < self.bytes_in_flight_max
    }

    fn is_over(&self) -> bool {
        let written = self.gone || (self.slots.is_empty() && self.outgoing.is_empty());
        self.ended && self.submitted.is_empty() && written
    }

    /// The client has gone: reads no more, what was submitted goes on.
    fn leave(&mut self) {
        self.ended = true;
        self.gone = true;
        self.outgoing.clear();
        tracing::debug!(
            in_flight = self.submitted.len(),
            "client left its command stream"
        );
    }

    fn read(&mut self, chunk: Option<Result<Bytes, axum::Error>>) {
        match chunk {
            Some(Ok(chunk)) => {
                self.lines.push(&chunk);
                self.drained = false;
            }
            // a line that was cut off is no command
            Some(Err(_)) => self.ended = true,
            None => {
                self.ended = true;
                if let Some((number, line)) = self.lines.finish() {
                    self.admit(number, line);
                }
            }
        }
    }

    /// Does all that can be done without waiting.
    fn advance(&mut self) {
        loop {
            self.collect();
            if self.ended || self.drained || !self.has_room() {
                return;
            }
            match self.lines.next() {
                Some((number, line)) => self.admit(number, line),
                None => self.drained = true,
            }
        }
    }

    fn admit(&mut self, number: u64, line: Line) {
        let invalid = |problem: Problem| Outcome::failed(Status::Invalid, problem.line(number));
        let refused = match line {
            Line::Text(line) if self.stopped_until.is_none() => return self.submit(number, line),
            Line::Text(_) => {
                let message = "the engine is being stopped; the line was not taken";
                Problem::new(ErrorCode::EngineNotRunning, message)
            }
            Line::NotText => Problem::new(ErrorCode::MalformedJson, "the line is not UTF-8")
                .expected("one JSON object in UTF-8"),
            Line::TooLong => Problem::new(ErrorCode::LineTooLong, "the line is too long"),
        };
        self.slots.push_back(Some(encode(&invalid(refused))));
    }

    fn submit(&mut self, number: u64, line: Bytes) {
        let slot = self.first_slot + self.slots.len() as u64;
        let bytes = line.len();
        let gate = Arc::clone(&self.gate);
        self.slots.push_back(None);
        self.bytes_in_flight += bytes;
        let submitted = async move {
            let outcome = AssertUnwindSafe(gate.submit(line)).catch_unwind().await;
            let mut outcome = outcome.unwrap_or_else(|_| {
                tracing::error!(line = number, "command gate panicked");
                let problem = Problem::new(ErrorCode::Internal, "the command failed");
                Outcome::failed(Status::Invalid, problem)
            });
            if let Some(problem) = &mut outcome.error {
                problem.line = Some(number);
            }
            Done {
                slot,
                bytes,
                outcome,
            }
        };
        self.submitted.push(submitted.boxed());
    }

    /// Puts a command's outcome in its place, and those of all that are done as well.
    fn settle(&mut self, done: Done) {
        let mut next = Some(done);
        while let Some(Done {
            slot,
            bytes,
            outcome,
        }) = next
        {
            self.bytes_in_flight -= bytes;
            let at = usize::try_from(slot - self.first_slot).unwrap_or(usize::MAX);
            if let Some(place) = self.slots.get_mut(at) {
                *place = Some(encode(&outcome));
            }
            next = self.submitted.next().now_or_never().flatten();
        }
    }

    /// Moves outcomes whose turn it is from their places to the client's chunk.
    fn collect(&mut self) {
        while self.gone || self.outgoing.len() < CHUNK_BYTES {
            let Some(Some(_)) = self.slots.front() else {
                return;
            };
            if let Some(Some(outcome)) = self.slots.pop_front() {
                self.first_slot += 1;
                if !self.gone {
                    self.outgoing.put_slice(&outcome);
                }
            }
        }
    }

    /// Ends an input that goes on after the console was stopped. The outcomes of what was
    /// submitted are written; then the answer breaks off, so that the client sees that it is not
    /// whole.
    async fn cut(mut self, output: &Sender<Chunk>) {
        self.ended = true;
        loop {
            self.collect();
            if !self.outgoing.is_empty()
                && output
                    .send(Ok(self.outgoing.split().freeze()))
                    .await
                    .is_err()
            {
                self.leave();
            }
            let Some(done) = self.submitted.next().await else {
                break;
            };
            self.settle(done);
        }
        self.collect();
        if self.gone {
            return;
        }
        let _ = output.send(Ok(self.outgoing.split().freeze())).await;
        tokio::time::sleep(Duration::from_millis(LAST_CHUNK_MS)).await;
        let _ = output
            .send(Err(io::ErrorKind::ConnectionAborted.into()))
            .await;
    }
}

fn encode(outcome: &Outcome) -> Vec<u8> {
    let status = match outcome.status {
        Status::Accepted => "accepted",
        Status::Refused => "refused",
        Status::Duplicate => "duplicate",
        Status::Conflict => "conflict",
        Status::Invalid => "invalid",
    };
    metrics::counter!("sovereign_command_lines_total", "status" => status).increment(1);
    // an outcome holds only strings and numbers, which always have a JSON form
    let mut line = serde_json::to_vec(outcome).unwrap_or_default();
    line.push(b'\n');
    line
}
