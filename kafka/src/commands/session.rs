//! One session: from joining the group to the first failure.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use rdkafka::consumer::{Consumer as _, ConsumerGroupMetadata};
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::producer::BaseRecord;
use rdkafka::{Offset, TopicPartitionList};
use sovereign_schemas::Timestamp;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::member::{self, Member, News};
use super::queue::{Queue, Ready};
use super::reply::{self, Reply};
use super::request::Request;
use super::run::is_over;
use super::task::{Done, Means};
use super::{CommandsOptions, GROUP, seed};
use crate::client::Error;
use crate::dead_letters::{Failing, Letter, LetterWriter, Origin, Post, RawRecord};
use crate::relay::port::TransactionalPort as _;
use crate::relay::producer::TransactionalProducer;
use crate::telemetry::{Answered, CommandsAtWork, DeadLetter};
use crate::topics::names;

/// How long one poll waits; bounds how late an outcome is noticed.
const POLL: Duration = Duration::from_millis(5);
/// Records taken before outcomes are looked at.
const POLLED_MAX: usize = 500;
/// How long the brokers may take until dead letters are durable.
const LETTERS_PATIENCE: Duration = Duration::from_secs(30);
/// What is in hand when it is told to stop may take so long.
const STOP_PATIENCE: Duration = Duration::from_secs(5);
/// Without room for so long, partitions are paused.
const PAUSE_AFTER: Duration = Duration::from_secs(1);
/// After so long outside of the group it is joined anew.
const OUTSIDE_MAX: Duration = Duration::from_secs(40);
/// How often health and metrics are brought up to date.
const REPORT_EVERY: Duration = Duration::from_millis(200);

/// An outcome on its way from the task that brought it about.
struct Settled {
    partition: i32,
    offset: i64,
    done: Done,
}

pub(super) struct Session<'o> {
    options: &'o CommandsOptions,
    means: Arc<Means>,
    runtime: Handle,
    member: Arc<Member>,
    producer: TransactionalProducer,
    letters: LetterWriter,
    topic: String,
    reply_topic: String,
    reply_partitions: i32,
    queue: Queue,
    /// The membership under which what is in hand was handed out; the brokers take replies under
    /// it until it has ended.
    membership: Option<ConsumerGroupMetadata>,
    paused: bool,
    /// Since when there has been no room.
    full_since: Option<Instant>,
    /// Since when it has been no member.
    outside_since: Option<Instant>,
    lanes: RandomState,
    tell: Sender<Settled>,
    told: Receiver<Settled>,
    reported: Option<Instant>,
}

impl<'o> Session<'o> {
    /// What a predecessor of this name left open is aborted before the group's place is asked for.
    pub(super) fn open(
        options: &'o CommandsOptions,
        name: &str,
        means: Arc<Means>,
        runtime: Handle,
    ) -> Result<Self, Error> {
        let kafka = &options.kafka;
        let id = format!("{GROUP}.{name}");
        let producer = TransactionalProducer::take_over(kafka, &id, options.transaction_timeout);
        let producer = producer.map_err(|error| match error {
            Error::Rights { cause, .. } => Error::Rights {
                what: format!("transactional id {}", kafka.topic(&id)),
                cause,
            },
            other => other,
        })?;
        let seed::Found { reply_partitions } = seed::seed(kafka)?;
        let letters = LetterWriter::open(kafka)?;
        let member = member::join(options, name)?;
        let topic = kafka.topic(names::COMMANDS);
        member::subscribe(&member, &topic)?;
        let (tell, told) = channel();
        Ok(Self {
            options,
            means,
            runtime,
            member: Arc::new(member),
            producer,
            letters,
            topic,
            reply_topic: kafka.topic(names::COMMANDS_REPLY),
            reply_partitions,
            queue: Queue::default(),
            membership: None,
            paused: false,
            full_since: None,
            outside_since: Some(Instant::now()),
            lanes: RandomState::new(),
            tell,
            told,
            reported: None,
        })
    }

    /// Until it is told to stop; any error ends it.
    pub(super) fn run(&mut self, stopped: &watch::Receiver<bool>) -> Result<(), Error> {
        let mut stopping: Option<Instant> = None;
        loop {
            if stopping.is_none() && is_over(stopped) {
                stopping = Some(Instant::now());
            }
            if let Some(since) = stopping
                && (self.queue.count() == 0 || since.elapsed() > STOP_PATIENCE)
            {
                return Ok(());
            }
            if stopping.is_some() || self.has_room() {
                self.poll(stopping.is_some())?;
            }
            while let Ok(settled) = self.told.try_recv() {
                self.settle(settled);
            }
            self.answer()?;
            self.report();
        }
    }

    fn settle(&mut self, settled: Settled) {
        let Settled {
            partition,
            offset,
            done,
        } = settled;
        self.queue.settle(partition, offset, done);
    }

    /// Without room it waits for outcomes, at first: pausing a partition throws away what was
    /// fetched of it.
    fn has_room(&mut self) -> bool {
        if !self.is_full() {
            self.full_since = None;
            return true;
        }
        let since = *self.full_since.get_or_insert_with(Instant::now);
        if since.elapsed() > PAUSE_AFTER {
            return true;
        }
        if !self.queue.is_ready()
            && let Ok(settled) = self.told.recv_timeout(POLL)
        {
            self.settle(settled);
        }
        false
    }

    fn is_full(&self) -> bool {
        let options = self.options;
        self.queue.count() >= options.in_flight_max
            || self.queue.bytes() >= options.bytes_in_flight_max
    }

    /// Takes records while there is room for them. Without room it goes on polling, so that the
    /// group does not take this engine for dead.
    fn poll(&mut self, stopping: bool) -> Result<(), Error> {
        let outside = self.outside_since.map(|since| since.elapsed());
        if outside.is_some_and(|outside| outside > OUTSIDE_MAX) {
            // the library may wait for something that does not come any more
            let cause = "the group did not let this engine in".to_owned();
            let what = "group of commands".to_owned();
            return Err(Error::Unreachable { what, cause });
        }
        self.pause(stopping || self.is_full())?;
        let mut wait = if self.queue.is_ready() {
            Duration::ZERO
        } else {
            POLL
        };
        let member = Arc::clone(&self.member);
        for _ in 0..POLLED_MAX {
            let polled = member.poll(wait);
            // rebalances first: what was polled with one came behind it
            self.take_news(member.context().take_news())?;
            match polled {
                None => return Ok(()),
                Some(Ok(message)) => self.take(&message),
                Some(Err(error)) => {
                    self.fatal()?;
                    match member.context().client.explain("commands", &error) {
                        // librdkafka reconnects by itself
                        Error::Unreachable { .. } => {}
                        other => return Err(other),
                    }
                }
            }
            if self.is_full() {
                return Ok(());
            }
            wait = Duration::ZERO;
        }
        Ok(())
    }

    fn pause(&mut self, pause: bool) -> Result<(), Error> {
        if pause == self.paused || self.membership.is_none() {
            return Ok(());
        }
        let done = self.member.assignment().and_then(|all| {
            if pause {
                self.member.pause(&all)
            } else {
                self.member.resume(&all)
            }
        });
        done.map_err(|e| Error::kafka("pause", &e))?;
        self.paused = pause;
        Ok(())
    }

    /// The library gives a membership up if somebody else has its name.
    fn fatal(&self) -> Result<(), Error> {
        match self.member.client().fatal_error() {
            None => Ok(()),
            Some((code, reason)) => {
                tracing::warn!(?code, reason, "membership in the group of commands ended");
                Err(Error::Fenced)
            }
        }
    }

    fn take_news(&mut self, news: News) -> Result<(), Error> {
        if news.revoked {
            self.queue.clear();
            self.membership = None;
            self.outside_since.get_or_insert_with(Instant::now);
            self.means.shared.outside(None);
        }
        let Some(partitions) = news.assigned else {
            return Ok(());
        };
        self.queue.assign(&partitions);
        // what was given up says nothing about what is read again
        (self.tell, self.told) = channel();
        (self.paused, self.full_since) = (false, None);
        self.membership = self.member.group_metadata();
        // lost between the assignment and this call: such a membership would fence nobody
        if self.membership.is_none() || self.member.assignment_lost() {
            return Err(Error::internal("group of commands", "membership was lost"));
        }
        self.outside_since = None;
        tracing::info!(partitions = ?partitions, "commands are taken from partitions");
        self.means.shared.joined(self.queue.partitions());
        Ok(())
    }

    fn take(&mut self, message: &BorrowedMessage<'_>) {
        let (partition, offset) = (message.partition(), message.offset());
        if !self.queue.has(partition) {
            return;
        }
        let origin = Origin {
            topic: message.topic().to_owned(),
            partition,
            offset,
        };
        let request = Arc::new(Request::read(origin, RawRecord::of(message)));
        let lanes = request.lanes(|bytes| self.lanes.hash_one(bytes));
        let (before, ended) = self.queue.enter(partition, &lanes);
        let (means, tell) = (Arc::clone(&self.means), self.tell.clone());
        let own = Arc::clone(&request);
        let task = self.runtime.spawn(async move {
            let done = means.carry_out(&own, before).await;
            // first: who hears of it finds the lane free
            drop(ended);
            // nobody listens any more if the partition is another's
            let _ = tell.send(Settled {
                partition,
                offset,
                done,
            });
        });
        self.queue.push(request, lanes, task.abort_handle());
    }

    /// Writes the replies that are due, and moves the group's place behind their records: both or
    /// neither.
    fn answer(&mut self) -> Result<(), Error> {
        let Some(membership) = &self.membership else {
            return Ok(());
        };
        if !self.queue.is_ready() || self.member.assignment_lost() {
            return Ok(());
        }
        let (ready, behind) = self.queue.take(self.options.batch_max);
        for one in &ready {
            bury(&mut self.letters, &self.options.kafka.topic(GROUP), one)?;
        }
        self.letters.flush(LETTERS_PATIENCE)?;
        let offsets = offsets(&self.topic, &behind)?;
        let written = write(
            &mut self.producer,
            (&self.reply_topic, self.reply_partitions),
            &ready,
        )
        .and_then(|()| self.runtime.block_on(self.producer.flush()))
        .and_then(|()| self.producer.move_group(&offsets, membership))
        .and_then(|()| self.runtime.block_on(self.producer.commit()));
        if let Err(error) = written {
            // the next session would abort it as well, but its readers need not wait for that
            self.runtime.block_on(self.producer.abort());
            return Err(error);
        }
        self.means.shared.replied(ready.len());
        let outcomes = ready.iter().map(|r| (&r.done.outcome, r.since));
        Answered { outcomes }.emit();
        Ok(())
    }

    fn report(&mut self) {
        if self.reported.is_some_and(|at| at.elapsed() < REPORT_EVERY) || self.membership.is_none()
        {
            return;
        }
        self.reported = Some(Instant::now());
        let lag = self.queue.lag(&self.member.context().ends());
        let in_flight = self.queue.count();
        self.means
            .shared
            .at_work(in_flight, self.queue.oldest(), lag);
        CommandsAtWork { in_flight, lag }.emit();
    }
}

/// The sender's bytes, if nobody could make a command of them: durable before the group's place
/// moves over them.
fn bury(letters: &mut LetterWriter, group: &str, ready: &Ready) -> Result<(), Error> {
    let Some((problem, tries)) = &ready.done.letter else {
        return Ok(());
    };
    if letters.is_full() {
        letters.flush(LETTERS_PATIENCE)?;
    }
    let now = Timestamp::now();
    let failing = Failing::new(problem.code.as_str(), &problem.message, *tries, now, now);
    let (origin, record) = (ready.request.origin.clone(), ready.request.record.clone());
    let letter = Box::new(Letter::new(group, origin, failing, record));
    DeadLetter { letter: &letter }.emit();
    letters.add(Post::Letter(letter));
    Ok(())
}

fn offsets(topic: &str, behind: &BTreeMap<i32, i64>) -> Result<TopicPartitionList, Error> {
    let mut list = TopicPartitionList::with_capacity(behind.len());
    for (partition, offset) in behind {
        list.add_partition_offset(topic, *partition, Offset::Offset(*offset))
            .map_err(|e| Error::kafka("offsets", &e))?;
    }
    Ok(list)
}

/// A reply lies on the partition of the same number as its record's, where there is one: so each
/// partition's last reply tells where the group stands.
fn write(
    producer: &mut TransactionalProducer,
    (topic, partitions): (&str, i32),
    ready: &[Ready],
) -> Result<(), Error> {
    producer.begin()?;
    for Ready { request, done, .. } in ready {
        let Reply { value, headers } = reply::reply(request, &done.outcome);
        let partition = request.origin.partition.rem_euclid(partitions);
        let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic)
            .partition(partition)
            .payload(value.as_slice())
            .headers(headers);
        if let Some(key) = reply::key(request) {
            record = record.key(key);
        }
        producer.enqueue(record)?;
    }
    Ok(())
}
