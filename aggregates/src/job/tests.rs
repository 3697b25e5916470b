use std::collections::HashMap;

use sovereign_schemas::events::JobEvent;
use sovereign_schemas::{ErrorCode, Text, Timestamp};

use super::*;
use crate::recorded_text::recorded_text as text;

fn at(us: i64) -> Decision {
    Decision::new(
        "plan_eth_040226_1201".parse().unwrap(),
        Timestamp(us),
        "worker".parse().unwrap(),
    )
}

fn code(text: &str) -> sovereign_schemas::Identifier {
    text.parse().unwrap()
}

fn submit() -> Submit<Text> {
    Submit {
        kind: code("plan"),
        queue: sovereign_schemas::events::JobQueue::Default,
        arguments: text(),
        planned: Some(3),
        run_at: None,
        after: vec![],
        unique_key: None,
        attempts_max: 3,
        backoff_ms: 1_000,
        amount: None,
        currency: None,
        schedule: None,
    }
}

fn effect(repeatable: bool) -> Then<Text> {
    Then::Effect {
        kind: code("http"),
        effect: text(),
        repeatable,
        compensates: None,
    }
}

fn undo(index: u32) -> Then<Text> {
    Then::Effect {
        kind: code("http"),
        effect: text(),
        repeatable: true,
        compensates: Some(index),
    }
}

fn start(attempt: u32, takes_over: bool, then: Then<Text>) -> JobCommand {
    JobCommand::Start(Start {
        attempt,
        takes_over,
        worker: code("worker-1"),
        lease_ms: 10_000,
        then,
    })
}

fn step(attempt: u32, ended: Option<(u32, How)>, then: Then<Text>) -> JobCommand {
    JobCommand::Step(Step {
        attempt,
        ended: ended.map(|(index, how)| Ended {
            index,
            how,
            result: None,
            fill: None,
        }),
        then,
    })
}

fn finish() -> Then<Text> {
    Then::Finish {
        verdict: Verdict::Green,
        result: None,
    }
}

fn abort() -> JobCommand {
    JobCommand::Abort(Abort {
        approval_id: None,
        reason: code("operator"),
    })
}

/// What happened, by name.
fn take(job: &mut Job, command: JobCommand, us: i64) -> Result<Vec<&'static str>, Refusal> {
    let events = job.decide(command, &at(us))?;
    events.iter().for_each(|e| job.evolve(e));
    let name = |e: &JobEvent| sovereign_schemas::avro::EventGroup::event_type(e).as_str();
    Ok(events.iter().map(name).collect())
}

fn queued() -> Job {
    let mut job = Job::default();
    take(&mut job, JobCommand::Submit(submit()), 0).unwrap();
    job
}

fn refusal(job: &Job, command: JobCommand) -> ErrorCode {
    job.decide(command, &at(0)).unwrap_err().problem.code
}

#[test]
fn a_job_with_one_effect_takes_three_commands() {
    let mut job = queued();
    assert_eq!(
        take(&mut job, start(1, false, effect(true)), 0).unwrap(),
        ["JobStarted", "EffectIntended", "EffectStarted"]
    );
    assert_eq!(
        take(&mut job, step(1, Some((0, How::Done)), finish()), 0).unwrap(),
        ["EffectFinished", "JobFinished"]
    );
    assert_eq!(job.status, JobStatus::Green);
}

#[test]
fn a_worker_that_was_replaced_writes_nothing_any_more() {
    let mut job = queued();
    take(&mut job, start(1, false, effect(true)), 0).unwrap();
    take(&mut job, start(2, true, Then::Again(0)), 0).unwrap();
    for then in [finish(), effect(true), Then::Release, Then::Retry] {
        let late = step(1, Some((0, How::Done)), then);
        assert_eq!(refusal(&job, late), ErrorCode::StaleAttempt);
    }
    assert_eq!(
        refusal(&job, start(2, true, effect(true))),
        ErrorCode::StaleAttempt
    );
}

#[test]
fn what_is_safe_to_repeat_is_repeated_and_all_else_waits_for_a_human() {
    let mut job = queued();
    take(&mut job, start(1, false, effect(true)), 0).unwrap();
    assert_eq!(
        take(&mut job, start(2, true, Then::Again(0)), 0).unwrap(),
        ["JobLost", "JobStarted", "EffectStarted"]
    );
    take(&mut job, step(2, Some((0, How::Done)), effect(false)), 0).unwrap();
    assert!(job.doubtful());
    assert_eq!(
        refusal(&job, start(3, true, Then::Again(1))),
        ErrorCode::EffectInDoubt
    );
    assert_eq!(
        take(&mut job, JobCommand::Lose(Lose { attempt: 2 }), 0).unwrap(),
        ["JobLost", "EffectInDoubt"]
    );
    assert_eq!(job.status, JobStatus::InDoubt);
    assert_eq!(
        refusal(&job, start(3, true, Then::Again(1))),
        ErrorCode::WrongState
    );
    let resolve = |index, done| {
        JobCommand::Resolve(Resolve {
            index,
            done,
            result: None,
        })
    };
    assert_eq!(refusal(&job, resolve(0, true)), ErrorCode::WrongState);
    take(&mut job, resolve(1, false), 0).unwrap();
    assert_eq!(job.status, JobStatus::Queued);
    assert_eq!(
        take(&mut job, start(3, false, Then::Again(1)), 0).unwrap(),
        ["JobStarted", "EffectStarted"]
    );
}

#[test]
fn a_job_that_began_nothing_is_aborted_at_once_with_a_true_report() {
    let mut job = queued();
    assert_eq!(take(&mut job, abort(), 0).unwrap(), ["JobAborted"]);
    assert_eq!(job.report(), "0:not_done 1:not_done 2:not_done");
    assert_eq!(
        refusal(&job, start(1, false, effect(true))),
        ErrorCode::WrongState
    );
    assert_eq!(refusal(&Job::default(), abort()), ErrorCode::NotFound);
}

#[test]
fn a_running_job_is_aborted_before_its_next_effect_and_undoes_what_it_can() {
    let mut job = queued();
    take(&mut job, start(1, false, effect(true)), 0).unwrap();
    take(&mut job, step(1, Some((0, How::Done)), effect(false)), 0).unwrap();
    assert_eq!(take(&mut job, abort(), 0).unwrap(), ["JobAbortRequested"]);
    assert_eq!(refusal(&job, abort()), ErrorCode::WrongState);
    let goes_on = step(1, Some((1, How::Done)), effect(true));
    assert_eq!(refusal(&job, goes_on), ErrorCode::JobAborting);
    let ends = step(1, Some((1, How::Done)), finish());
    assert_eq!(refusal(&job, ends), ErrorCode::JobAborting);
    take(&mut job, step(1, Some((1, How::Done)), undo(0)), 0).unwrap();
    assert_eq!(
        take(&mut job, step(1, Some((2, How::Done)), Then::Abort), 0).unwrap(),
        ["EffectFinished", "EffectCompensated", "JobAborted"]
    );
    assert_eq!(job.report(), "0:compensated 1:done 2:not_done");
}

#[test]
fn a_failure_says_nothing_about_an_earlier_attempt_that_was_lost() {
    let mut job = queued();
    take(&mut job, start(1, false, effect(true)), 0).unwrap();
    take(&mut job, start(2, true, Then::Again(0)), 0).unwrap();
    let failed = || Some((0, How::Failed(code("tool-unreachable"))));
    let fails = step(2, failed(), Then::Fail(code("tool-unreachable")));
    assert_eq!(refusal(&job, fails), ErrorCode::EffectInDoubt);
    // the effect is still open, and is repeated later under its id
    let mut later = job.clone();
    let retried = take(&mut later, step(2, None, Then::Retry), 0).unwrap();
    assert_eq!(retried, ["JobRetryScheduled"]);
    let waits = take(&mut job, step(2, failed(), Then::Wait), 0).unwrap();
    assert_eq!(waits, ["EffectInDoubt"]);
    assert_eq!(job.status, JobStatus::InDoubt);
}

#[test]
fn a_lost_job_that_is_to_be_aborted_repeats_nothing() {
    let mut job = queued();
    take(&mut job, start(1, false, effect(true)), 0).unwrap();
    take(&mut job, abort(), 0).unwrap();
    assert_eq!(
        take(&mut job, start(2, true, Then::Abort), 0).unwrap(),
        ["JobLost", "EffectInDoubt", "JobStarted", "JobAborted"]
    );
    assert_eq!(job.report(), "0:in_doubt 1:not_done 2:not_done");
}

#[test]
fn retries_wait_longer_each_time_and_end() {
    let mut job = queued();
    let mut now = 0;
    for attempt in 1..=2 {
        let first = if attempt == 1 {
            effect(true)
        } else {
            Then::Again(0)
        };
        take(&mut job, start(attempt, false, first), now).unwrap();
        let failed = Some((0, How::Failed(code("tool-unreachable"))));
        take(&mut job, step(attempt, failed, Then::Retry), now).unwrap();
        let due = job.due_at.unwrap().0;
        let full = 1_000_000 << (attempt - 1);
        assert!((full / 2..=full).contains(&(due - now)), "{}", due - now);
        let early = start(attempt + 1, false, Then::Again(0));
        let early = job.decide(early, &at(due - 1)).unwrap_err();
        assert_eq!(early.problem.code, ErrorCode::NotDue);
        now = due;
    }
    take(&mut job, start(3, false, Then::Again(0)), now).unwrap();
    let failed = || Some((0, How::Failed(code("tool-unreachable"))));
    let again = step(3, failed(), Then::Retry);
    assert_eq!(refusal(&job, again), ErrorCode::WrongState);
    let last = step(3, failed(), Then::Fail(code("tool-unreachable")));
    take(&mut job, last, now).unwrap();
    assert_eq!(job.status, JobStatus::Failed);
}

#[test]
fn a_job_waits_until_it_is_unblocked_and_is_cancelled_only_while_it_waits() {
    let mut waiting = Submit {
        after: vec!["b".parse().unwrap(), "a".parse().unwrap()],
        ..submit()
    };
    let mut job = Job::default();
    let events = job.decide(JobCommand::Submit(waiting.clone()), &at(0));
    let JobEvent::JobSubmitted(submitted) = &events.unwrap()[0] else {
        panic!("submitted")
    };
    assert_eq!(submitted.after, "a b");
    take(&mut job, JobCommand::Submit(waiting.clone()), 0).unwrap();
    assert_eq!(
        refusal(&job, start(1, false, effect(true))),
        ErrorCode::WrongState
    );
    let cancel = || {
        JobCommand::Cancel(Cancel {
            because: "a".parse().unwrap(),
            reason: code("dependency-red"),
        })
    };
    let mut cancelled = job.clone();
    take(&mut cancelled, cancel(), 0).unwrap();
    assert_eq!(cancelled.status, JobStatus::Cancelled);
    take(&mut job, JobCommand::Unblock, 0).unwrap();
    assert_eq!(refusal(&job, cancel()), ErrorCode::WrongState);
    waiting.after = vec!["plan_eth_040226_1201".parse().unwrap()];
    let itself = JobCommand::Submit(waiting);
    assert_eq!(refusal(&Job::default(), itself), ErrorCode::JobDependency);
}

/// xorshift64*, Vigna 2016.
struct Luck(u64);

impl Luck {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % n.max(1)
    }
}

/// Where a simulated worker stands.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Hand {
    Free,
    /// Has recorded that it starts the effect, and has not sent it.
    Started {
        attempt: u32,
        index: u32,
    },
    /// Has sent it, and has not recorded what became of it.
    Sent {
        attempt: u32,
        index: u32,
        done: bool,
    },
}

/// Two workers, a target, and somebody who aborts.
struct World {
    luck: Luck,
    job: Job,
    now: i64,
    /// Which worker holds the lease.
    lease: Option<usize>,
    hands: [Hand; 2],
    /// How often the target was told to, by effect.
    told: HashMap<u32, u32>,
    repeatable: [bool; 5],
}

impl World {
    fn new(seed: u64) -> Self {
        let mut luck = Luck(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let mut job = Job::default();
        let five = Submit {
            planned: Some(5),
            attempts_max: 50,
            ..submit()
        };
        take(&mut job, JobCommand::Submit(five), 0).unwrap();
        let repeatable = std::array::from_fn(|_| luck.below(2) == 0);
        Self {
            luck,
            job,
            now: 0,
            lease: None,
            hands: [Hand::Free; 2],
            told: HashMap::new(),
            repeatable,
        }
    }

    /// What a handler would say: five effects, those that are done undone if it is given up.
    fn then(&self, job: &Job) -> Then<Text> {
        let undoable = |index: &u32| {
            let effect = job.effects[*index as usize];
            effect.status == EffectStatus::Done
                && effect.compensates.is_none()
                && index.is_multiple_of(2)
        };
        let begun = job.effects.len() as u32;
        let open = job.effects.iter().position(|e| {
            let again = matches!(e.status, EffectStatus::NotDone | EffectStatus::Intended)
                || e.status == EffectStatus::Started && e.repeatable;
            again && (job.abort.is_none() || e.compensates.is_some())
        });
        if let Some(open) = open {
            return Then::Again(open as u32);
        }
        if job.abort.is_some() {
            return (0..begun).rev().find(undoable).map_or(Then::Abort, undo);
        }
        match self.repeatable.get(begun as usize) {
            Some(repeatable) => effect(*repeatable),
            None => finish(),
        }
    }

    /// The state as it will be when the command's first part has happened.
    fn seen(&self, ended: Option<(u32, &How)>, takes_over: bool) -> Job {
        let mut job = self.job.clone();
        if let Some((index, how)) = ended {
            let status = match how {
                How::Done => EffectStatus::Done,
                How::InDoubt(_) => EffectStatus::InDoubt,
                How::Failed(_) | How::Cancelled if job.effects[index as usize].unsure => {
                    EffectStatus::InDoubt
                }
                How::Failed(_) | How::Cancelled => EffectStatus::NotDone,
            };
            let undone = job.effects[index as usize].compensates;
            job.effects[index as usize].status = status;
            if let (Some(undone), EffectStatus::Done) = (undone, status) {
                job.effects[undone as usize].status = EffectStatus::Compensated;
            }
        }
        if takes_over && job.abort.is_some() {
            for effect in &mut job.effects {
                let undoes = effect.compensates.is_some();
                if effect.status == EffectStatus::Started && !(undoes && effect.repeatable) {
                    effect.status = EffectStatus::InDoubt;
                }
            }
        }
        job
    }

    fn hand(&self, attempt: u32) -> Hand {
        let under_way = |e: &JobEffect| e.status == EffectStatus::Started;
        match self.job.effects.iter().position(under_way) {
            Some(index) if self.job.status == JobStatus::Running => Hand::Started {
                attempt,
                index: index as u32,
            },
            _ => Hand::Free,
        }
    }

    fn work(&mut self, worker: usize) {
        let holds = self.lease == Some(worker);
        match self.hands[worker] {
            Hand::Free => self.claim(worker),
            // a worker sends nothing once its lease has ended
            Hand::Started { .. } if !holds => self.hands[worker] = Hand::Free,
            Hand::Started { attempt, index } => {
                let done = self.luck.below(4) > 0;
                if done {
                    *self.told.entry(index).or_default() += 1;
                }
                self.hands[worker] = Hand::Sent {
                    attempt,
                    index,
                    done,
                };
            }
            Hand::Sent {
                attempt,
                index,
                done,
            } => {
                self.hands[worker] = Hand::Free;
                self.report(worker, attempt, index, done);
            }
        }
    }

    fn claim(&mut self, worker: usize) {
        if self.lease.is_some_and(|holder| holder != worker) || self.job.status.ended() {
            return;
        }
        let attempt = self.job.attempt + 1;
        let takes_over = self.job.status == JobStatus::Running;
        if takes_over && self.job.doubtful() {
            let lose = JobCommand::Lose(Lose {
                attempt: self.job.attempt,
            });
            take(&mut self.job, lose, self.now).unwrap();
            return;
        }
        if self.job.status == JobStatus::InDoubt {
            let index = self.job.in_doubt().unwrap();
            // somebody looks at the target
            let done = self.told.contains_key(&index);
            let resolve = JobCommand::Resolve(Resolve {
                index,
                done,
                result: None,
            });
            take(&mut self.job, resolve, self.now).unwrap();
            return;
        }
        self.now = self.now.max(self.job.due_at.map_or(0, |due| due.0));
        let then = self.then(&self.seen(None, true));
        let ends = matches!(then, Then::Abort | Then::Finish { .. });
        take(&mut self.job, start(attempt, takes_over, then), self.now).unwrap();
        self.lease = (!ends).then_some(worker);
        self.hands[worker] = self.hand(attempt);
    }

    fn report(&mut self, worker: usize, attempt: u32, index: u32, done: bool) {
        let how = match (done, self.luck.below(5)) {
            (_, 0) if !self.repeatable.get(index as usize).copied().unwrap_or(true) => {
                How::InDoubt(code("no-answer"))
            }
            (true, _) => How::Done,
            (false, _) => How::Failed(code("refused")),
        };
        let seen = self.seen(Some((index, &how)), false);
        let then = if self.job.abort.is_none() && seen.in_doubt().is_some() {
            Then::Wait
        } else {
            self.then(&seen)
        };
        let command = step(attempt, Some((index, how)), then);
        match take(&mut self.job, command, self.now) {
            Ok(_) if self.job.status == JobStatus::Running => {
                self.hands[worker] = self.hand(attempt);
            }
            Ok(_) => self.lease = None,
            Err(refusal) => {
                let code = refusal.problem.code;
                let fenced = code == ErrorCode::StaleAttempt || self.lease != Some(worker);
                assert!(fenced, "{refusal}");
            }
        }
    }

    fn turn(&mut self) {
        let worker = self.luck.below(2) as usize;
        match self.luck.below(100) {
            // it dies
            0..12 => {
                self.hands[worker] = Hand::Free;
                if self.lease == Some(worker) {
                    self.lease = None;
                }
            }
            // it is paused beyond its lease
            12..20 => {
                if self.lease == Some(worker) {
                    self.lease = None;
                }
            }
            20..22 => {
                // refused if it is to be aborted already, or has ended
                let _ = take(&mut self.job, abort(), self.now);
            }
            _ => self.work(worker),
        }
    }

    fn check(&self, seed: u64) {
        for (index, effect) in self.job.effects.iter().enumerate() {
            let told = self.told.get(&(index as u32)).copied().unwrap_or(0);
            assert!(
                effect.repeatable || told <= 1,
                "seed {seed}: effect {index} was done {told} times"
            );
            match effect.status {
                EffectStatus::Done | EffectStatus::Compensated => {
                    assert!(told > 0, "seed {seed}: effect {index} was not done");
                }
                EffectStatus::NotDone | EffectStatus::Intended => {
                    assert!(
                        told == 0,
                        "seed {seed}: effect {index} was done, and is reported as not done"
                    );
                }
                EffectStatus::Started | EffectStatus::InDoubt => {}
            }
        }
    }
}

#[test]
fn two_workers_that_die_pause_and_are_aborted_do_nothing_twice_and_report_the_truth() {
    let mut ends = HashMap::new();
    for seed in 1..=5_000 {
        let mut world = World::new(seed);
        let mut turns = 0;
        while !world.job.status.ended() {
            world.turn();
            world.check(seed);
            turns += 1;
            assert!(turns < 10_000, "seed {seed} does not end: {:?}", world.job);
        }
        *ends.entry(world.job.status.as_str()).or_insert(0) += 1;
    }
    assert!(ends["green"] > 500 && ends["aborted"] > 500, "{ends:?}");
}
