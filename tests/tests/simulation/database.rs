//! The ledger's port over the simulated PostgreSQL.

use std::collections::VecDeque;
use std::time::Duration;

use async_trait::async_trait;
use sovereign_event_store::StoreError;
use sovereign_event_store::port::{
    AggregateKey, Backend, Database, Done, FlushSession, Known, Opened, Transaction, WriteSession,
};
use sovereign_schemas::chain::Head;
use sovereign_schemas::{LogError, Position, RecordedEvent, Uuid};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep};

use crate::kernel::{Lost, Process, Server, State};

/// `idle_in_transaction_session_timeout` of the writing session.
const IDLE_IN_TRANSACTION: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(crate) struct SimulatedDatabase {
    pub(crate) process: Process,
    /// Transactions that may be under way at a time.
    pub(crate) in_flight_max: usize,
}

fn unreachable() -> StoreError {
    StoreError::Unreachable("no answer in the simulation".to_owned())
}

fn log_unreachable() -> LogError {
    LogError::Unreachable("no answer in the simulation".to_owned())
}

impl SimulatedDatabase {
    async fn ask<R: Send + 'static>(
        &self,
        op: impl FnMut(&mut State) -> Option<R> + Send + 'static,
    ) -> Result<R, StoreError> {
        let answer = self.process.call(Server::Postgres, op).await;
        answer.map_err(|Lost| unreachable())
    }

    async fn read<R: Send + 'static>(
        &self,
        op: impl FnMut(&mut State) -> Option<R> + Send + 'static,
    ) -> Result<R, LogError> {
        let answer = self.process.call(Server::Postgres, op).await;
        answer.map_err(|Lost| log_unreachable())
    }
}

/// Flushes what is written when it is first asked; takes as long as a disk does.
fn flush() -> impl FnMut(&mut State) -> Option<()> + Send + 'static {
    let mut begun: Option<(usize, Instant)> = None;
    move |state| {
        let (to, done) = *begun.get_or_insert_with(|| {
            let millis = match state.rng.below(20) {
                0 if !state.calm => state.rng.between(20, 400),
                _ => state.rng.between(0, 8),
            };
            let done = Instant::now() + Duration::from_millis(millis);
            (state.postgres.written(), done)
        });
        if state.postgres.flush_lies {
            return Some(());
        }
        if Instant::now() < done {
            return None;
        }
        state.postgres.flush(to);
        Some(())
    }
}

/// Reads, and answers once what was read is durable in the same life of the server.
fn durably<R: Send + 'static>(
    durable: Position,
    mut read: impl FnMut(&mut State) -> (R, Position) + Send + 'static,
) -> impl FnMut(&mut State) -> Option<R> + Send + 'static {
    let (mut found, mut flush) = (None, flush());
    move |state| {
        let (_, newest) = found.get_or_insert_with(|| read(state));
        if *newest > durable {
            flush(state)?;
        }
        found.take().map(|(found, _)| found)
    }
}

#[async_trait]
impl Database for SimulatedDatabase {
    async fn open(
        &self,
        previous: Option<&Backend>,
        unknown: &[Uuid],
    ) -> Result<Opened, StoreError> {
        let previous = previous.and_then(|backend| u64::try_from(backend.process).ok());
        let session = self
            .ask(move |state| {
                if let Some(previous) = previous {
                    state.postgres.end(previous);
                }
                Some(state.postgres.connect())
            })
            .await?;
        let unknown = unknown.to_vec();
        let looked = self.ask(move |state| look(state, session, &unknown)).await;
        let (boot, head, known) = looked?.ok_or_else(unreachable)?;
        let process = self.process.clone();
        let (requests, asked) = mpsc::unbounded_channel();
        tokio::spawn(backend(process.clone(), session, asked));
        Ok(Opened {
            writer: Box::new(Writer {
                process: process.clone(),
                in_flight_max: self.in_flight_max,
                requests,
                answers: VecDeque::new(),
                ready: None,
            }),
            flusher: Box::new(Flusher { process, boot }),
            backend: Backend {
                process: i32::try_from(session).unwrap_or(i32::MAX),
                name: format!("writer {session}"),
            },
            head,
            known,
        })
    }

    async fn identity(&self) -> Result<Uuid, StoreError> {
        Ok(Uuid::from_u128(1))
    }

    async fn head(&self, durable: Position) -> Result<Head, StoreError> {
        self.ask(durably(durable, |state| {
            let head = state.postgres.tables.head.0;
            (head, head.position)
        }))
        .await
    }

    async fn page(
        &self,
        after: Position,
        limit: usize,
        durable: Position,
    ) -> Result<(Vec<RecordedEvent>, Head), LogError> {
        self.read(durably(durable, move |state| {
            let tables = &state.postgres.tables;
            let rows = tables.events.iter().skip(after.0 as usize).take(limit);
            let rows: Vec<RecordedEvent> = rows.map(|e| (**e).clone()).collect();
            let newest = rows.last().map_or(Position::START, RecordedEvent::position);
            ((rows, tables.head.0), newest)
        }))
        .await
    }

    async fn event(&self, position: Position) -> Result<Option<RecordedEvent>, LogError> {
        self.read(move |state| {
            let index = (position.0 as usize).checked_sub(1);
            let found = index.and_then(|i| state.postgres.tables.events.get(i));
            Some(found.map(|e| (**e).clone()))
        })
        .await
    }

    async fn aggregates(
        &self,
        wanted: &[(AggregateKey, u64)],
        up_to: Position,
        limit: usize,
    ) -> Result<Vec<Vec<Result<RecordedEvent, LogError>>>, StoreError> {
        let wanted = wanted.to_vec();
        self.ask(move |state| Some(aggregates(state, &wanted, up_to, limit)))
            .await
    }

    async fn histories(
        &self,
        wanted: &[(AggregateKey, u64)],
        limit: usize,
        durable: Position,
    ) -> Result<Vec<Vec<Result<RecordedEvent, LogError>>>, StoreError> {
        let wanted = wanted.to_vec();
        self.ask(durably(durable, move |state| {
            let found = aggregates(state, &wanted, Position(u64::MAX), limit);
            let events = found.iter().flatten().flatten();
            let newest = events.map(RecordedEvent::position).max();
            (found, newest.unwrap_or(Position::START))
        }))
        .await
    }

    async fn keys(
        &self,
        after: &(String, String),
        up_to: Position,
        limit: usize,
    ) -> Result<Vec<(String, String)>, StoreError> {
        let after = after.clone();
        self.ask(move |state| {
            let events = state.postgres.tables.events.iter();
            let mut keys: Vec<_> = events
                .filter(|e| e.header.sequence == 1 && e.position() <= up_to)
                .map(|e| {
                    (
                        e.header.aggregate_type.to_string(),
                        e.header.aggregate_id.clone(),
                    )
                })
                .filter(|key| *key > after)
                .collect();
            keys.sort_unstable();
            keys.truncate(limit);
            Some(keys)
        })
        .await
    }

    async fn known(&self, command_ids: &[Uuid]) -> Result<Vec<(Uuid, Known)>, StoreError> {
        let ids = command_ids.to_vec();
        self.ask(move |state| Some(known(state, &ids))).await
    }
}

fn aggregates(
    state: &State,
    wanted: &[(AggregateKey, u64)],
    up_to: Position,
    limit: usize,
) -> Vec<Vec<Result<RecordedEvent, LogError>>> {
    let events = &state.postgres.tables.events;
    let of = |(key, after): &(AggregateKey, u64)| {
        let own = events.iter().filter(|e| {
            e.header.aggregate_type == key.aggregate_type.as_str()
                && e.header.aggregate_id == key.id
                && e.header.sequence > *after
                && e.position() <= up_to
        });
        own.take(limit).map(|e| Ok((**e).clone())).collect()
    };
    wanted.iter().map(of).collect()
}

fn known(state: &State, ids: &[Uuid]) -> Vec<(Uuid, Known)> {
    let of = |id: &Uuid| Some((*id, state.postgres.known(*id)?));
    ids.iter().filter_map(of).collect()
}

/// Which life of the server was seen, its head row, and the commands that it knows; `None` if the
/// session is no more.
type Looked = Option<(u64, Head, Vec<(Uuid, Known)>)>;

/// With the lock on the head row, so that no transaction is under way.
fn look(state: &mut State, session: u64, unknown: &[Uuid]) -> Option<Looked> {
    if !state.postgres.lives(session) {
        return Some(None);
    }
    if !state.postgres.try_lock(session) {
        return None;
    }
    let head = state.postgres.tables.head.0;
    let known = known(state, unknown);
    state.postgres.unlock(session);
    Some(Some((state.postgres.boot, head, known)))
}

enum Request {
    /// With whether it was sent before the answer to the one before it.
    Transact(Transaction, bool, oneshot::Sender<Done>),
    Lock(oneshot::Sender<Result<Head, StoreError>>),
    Release(oneshot::Sender<Result<(), StoreError>>),
}

#[derive(Debug)]
struct Writer {
    process: Process,
    in_flight_max: usize,
    requests: mpsc::UnboundedSender<Request>,
    answers: VecDeque<oneshot::Receiver<Done>>,
    /// An answer that has come and was not taken.
    ready: Option<Done>,
}

#[async_trait]
impl WriteSession for Writer {
    fn in_flight_max(&self) -> usize {
        self.in_flight_max
    }

    fn send(&mut self, transaction: &Transaction) {
        let (tell, answer) = oneshot::channel();
        let ahead = !self.answers.is_empty();
        let _ = self
            .requests
            .send(Request::Transact(transaction.clone(), ahead, tell));
        self.answers.push_back(answer);
    }

    async fn outcome(&mut self) -> Done {
        if self.ready.is_none() {
            let Some(oldest) = self.answers.front_mut() else {
                return Done::Lost(StoreError::Internal("nothing is under way".to_owned()));
            };
            let done = oldest.await.unwrap_or_else(|_| Done::Lost(unreachable()));
            self.answers.pop_front();
            self.ready = Some(done);
        }
        self.process.awake().await;
        self.ready
            .take()
            .unwrap_or_else(|| Done::Lost(unreachable()))
    }

    async fn lock(&mut self) -> Result<Head, StoreError> {
        let (tell, answer) = oneshot::channel();
        let _ = self.requests.send(Request::Lock(tell));
        let answer = answer.await.unwrap_or_else(|_| Err(unreachable()));
        self.process.awake().await;
        answer
    }

    async fn release(&mut self) -> Result<(), StoreError> {
        let (tell, answer) = oneshot::channel();
        let _ = self.requests.send(Request::Release(tell));
        let answer = answer.await.unwrap_or_else(|_| Err(unreachable()));
        self.process.awake().await;
        answer
    }
}

/// The server's side of the writing session: one request after the other, until its client is gone,
/// the session was ended, or a message between them is lost.
async fn backend(process: Process, session: u64, mut asked: mpsc::UnboundedReceiver<Request>) {
    let world = process.world.clone();
    let mut failed = false;
    loop {
        let request = tokio::select! {
            biased;
            () = process.dead() => None,
            () = idle_in_transaction(&process, session) => None,
            request = asked.recv() => request,
        };
        let Some(request) = request else { break };
        // a process that is paused has not sent it yet; one that is dead never will
        tokio::select! {
            biased;
            () = process.dead() => break,
            () = process.awake() => {}
        }
        if !serve(&process, session, request, &mut failed).await {
            break;
        }
    }
    // a server notices a bit later that its client is gone
    process.travel().await;
    world.step(|state| state.postgres.end(session));
}

async fn idle_in_transaction(process: &Process, session: u64) {
    let locked = process.world.state().postgres.locked_by(session);
    if !locked {
        std::future::pending::<()>().await;
    }
    sleep(IDLE_IN_TRANSACTION).await;
}

/// False if the session is over. `failed`: the last transaction did not commit, and what was sent
/// ahead of its answer must not either.
async fn serve(process: &Process, session: u64, request: Request, failed: &mut bool) -> bool {
    let world = &process.world;
    process.travel().await;
    let (lost_before, lost_after) = {
        let mut state = world.state();
        let calm = state.calm;
        let mut lost = || !calm && state.rng.per_mille(4);
        (lost(), lost())
    };
    let boot = world.state().postgres.boot;
    let reaches = process.reaches(Server::Postgres);
    if lost_before || !reaches || !locked(process, session).await {
        return false;
    }
    // the lock is held while the transaction runs
    process.travel().await;
    if !world.state().postgres.lives(session) {
        return false;
    }
    match request {
        Request::Transact(transaction, ahead, tell) => {
            let done = world.step(|state| {
                let done = match ahead && *failed {
                    true => Done::HeadMoved,
                    false => state.postgres.transact(&transaction),
                };
                *failed = !matches!(done, Done::Committed);
                state.note(|| {
                    let (from, to) = (transaction.before.position, transaction.after.position);
                    format!("postgres: session {session} from {from} to {to}: {done:?}")
                });
                state.postgres.unlock(session);
                done
            });
            answer(process, boot, lost_after, tell, done).await
        }
        Request::Lock(tell) => {
            let head = world.state().postgres.tables.head.0;
            answer(process, boot, lost_after, tell, Ok(head)).await
        }
        Request::Release(tell) => {
            world.step(|state| state.postgres.unlock(session));
            answer(process, boot, lost_after, tell, Ok(())).await
        }
    }
}

/// Waits for the lock on the head row; false if the session ends meanwhile.
async fn locked(process: &Process, session: u64) -> bool {
    loop {
        {
            let mut state = process.world.state();
            if !state.postgres.lives(session) {
                return false;
            }
            if state.postgres.try_lock(session) {
                return true;
            }
        }
        sleep(Duration::from_millis(2)).await;
    }
}

/// The answer's way back; false if it does not arrive.
async fn answer<T>(
    process: &Process,
    boot: u64,
    lost: bool,
    tell: oneshot::Sender<T>,
    answer: T,
) -> bool {
    process.travel().await;
    let same = process.world.state().postgres.boot == boot;
    if lost || !same || !process.reaches(Server::Postgres) {
        return false;
    }
    let _ = tell.send(answer);
    true
}

/// A connection to one life of the server: a crash ends it.
#[derive(Debug)]
struct Flusher {
    process: Process,
    boot: u64,
}

#[async_trait]
impl FlushSession for Flusher {
    async fn flush(&mut self) -> Result<(), StoreError> {
        let (boot, mut flush) = (self.boot, flush());
        let same_life = move |state: &mut State| match state.postgres.boot == boot {
            true => flush(state).map(Ok),
            false => Some(Err(Lost)),
        };
        let answer = self.process.call(Server::Postgres, same_life).await;
        answer.and_then(|done| done).map_err(|Lost| unreachable())
    }
}
