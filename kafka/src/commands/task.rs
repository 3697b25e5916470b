//! One record, carried out to its outcome.

use std::sync::Arc;
use std::time::Duration;

use sovereign_schemas::{Outcome, Problem, Status};
use tokio::sync::watch;

use super::health::Shared;
use super::lookup::Lookup;
use super::request::{Content, Request, is_unreadable};
use super::{Answer, CommandHandler, CommandLine};

/// How often a command is tried that fails for a reason of ours.
const FAULTS_MAX: u32 = 3;
/// Pause before the second try; it doubles.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// What became of a record.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) outcome: Outcome,
    /// Why the sender's bytes are kept as a dead letter, if they are, and after how many tries.
    pub(super) letter: Option<(Problem, u32)>,
}

impl Done {
    fn invalid(problem: Problem, tries: u32) -> Self {
        Self {
            outcome: Outcome::failed(Status::Invalid, problem.clone()),
            letter: Some((problem, tries)),
        }
    }

    fn of(outcome: Outcome) -> Self {
        let garbage = outcome
            .error
            .clone()
            .filter(|problem| outcome.status == Status::Invalid && is_unreadable(problem));
        Self {
            outcome,
            letter: garbage.map(|problem| (problem, 1)),
        }
    }
}

/// All that records need to be carried out.
pub(super) struct Means {
    pub(super) handler: Arc<dyn CommandHandler>,
    pub(super) lookup: Lookup,
    pub(super) shared: Arc<Shared>,
}

impl Means {
    /// Waits for those records before it whose order it must keep, and then as long as it takes:
    /// who cannot be asked now is asked again.
    pub(super) async fn carry_out(
        &self,
        request: &Request,
        before: Vec<watch::Receiver<()>>,
    ) -> Done {
        for mut earlier in before {
            // its sender is dropped when it is done
            while earlier.changed().await.is_ok() {}
        }
        let line = match &request.content {
            Content::Unreadable(problem) => return Done::invalid(problem.clone(), 1),
            Content::Line(line) => line.clone(),
            Content::Avro { schema_id, line } => {
                if let Err(problem) = self.schema(*schema_id).await {
                    return Done::invalid(problem, 1);
                }
                match line {
                    Ok(line) => line.clone(),
                    Err(problem) => return Done::invalid(problem.clone(), 1),
                }
            }
        };
        let command = CommandLine {
            line,
            record: request.id,
            traceparent: request.traceparent.clone(),
        };
        self.command(&command).await
    }

    /// What is wrong with the schema, as soon as the registry can be asked.
    async fn schema(&self, id: u32) -> Result<(), Problem> {
        let mut pause = PAUSE_MIN;
        loop {
            match self.lookup.check(id).await {
                Ok(known) => return known,
                Err(problem) => self.wait(problem, &mut pause).await,
            }
        }
    }

    async fn command(&self, command: &CommandLine) -> Done {
        let (mut pause, mut faults) = (PAUSE_MIN, 0);
        loop {
            match self.handler.handle(command).await {
                Answer::Outcome(outcome) => return Done::of(outcome),
                Answer::NotNow(problem) => self.wait(problem, &mut pause).await,
                Answer::Fault(problem) => {
                    faults += 1;
                    if faults >= FAULTS_MAX {
                        return Done::invalid(problem, faults);
                    }
                    self.wait(problem, &mut pause).await;
                }
            }
        }
    }

    async fn wait(&self, problem: Problem, pause: &mut Duration) {
        let asked = problem.retry_after_ms.map(Duration::from_millis);
        tracing::debug!(code = %problem.code, "command from a record waits");
        self.shared.waits(problem);
        tokio::time::sleep(asked.unwrap_or(*pause).min(PAUSE_MAX).max(*pause)).await;
        *pause = (*pause * 2).min(PAUSE_MAX);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use async_trait::async_trait;
    use bytes::Bytes;
    use sovereign_schemas::ErrorCode;

    use super::*;
    use crate::dead_letters::{Origin, RawRecord};
    use crate::registry::RegistryOptions;

    /// Says these, one after the other.
    struct Says(Mutex<Vec<Answer>>);

    #[async_trait]
    impl CommandHandler for Says {
        async fn handle(&self, _: &CommandLine) -> Answer {
            self.0.lock().unwrap().remove(0)
        }
    }

    async fn done(answers: Vec<Answer>, value: &'static [u8]) -> (Done, usize) {
        let handler = Arc::new(Says(Mutex::new(answers)));
        let means = Means {
            handler: handler.clone(),
            lookup: Lookup::new(RegistryOptions::new("http://127.0.0.1:9")),
            shared: Arc::new(Shared::new(Duration::from_secs(1))),
        };
        let origin = Origin {
            topic: "commands".to_owned(),
            partition: 0,
            offset: 0,
        };
        let record = RawRecord {
            value: Some(Bytes::from_static(value)),
            ..RawRecord::default()
        };
        let request = Request::read(origin, record);
        let done = means.carry_out(&request, Vec::new()).await;
        let left = handler.0.lock().unwrap().len();
        (done, left)
    }

    fn problem(code: ErrorCode) -> Problem {
        Problem::new(code, "x")
    }

    #[tokio::test(start_paused = true)]
    async fn who_cannot_say_now_is_asked_until_he_can() {
        let mut answers = vec![Answer::NotNow(problem(ErrorCode::Busy)); 100];
        let accepted = Outcome::effective(Status::Accepted, None);
        answers.push(Answer::Outcome(accepted.clone()));
        let (done, left) = done(answers, b"{}").await;
        assert_eq!((done.outcome, left), (accepted, 0));
        assert!(done.letter.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_fault_of_ours_is_tried_three_times_and_kept() {
        let answers = vec![Answer::Fault(problem(ErrorCode::Internal)); 5];
        let (done, left) = done(answers, b"{}").await;
        assert_eq!((done.outcome.status, left), (Status::Invalid, 2));
        assert_eq!(
            done.letter.map(|(p, n)| (p.code, n)),
            Some((ErrorCode::Internal, 3))
        );
    }

    #[tokio::test(start_paused = true)]
    async fn garbage_is_kept_and_a_bad_command_is_only_answered() {
        let invalid = |code| {
            vec![Answer::Outcome(Outcome::failed(
                Status::Invalid,
                problem(code),
            ))]
        };
        let (garbage, _) = done(invalid(ErrorCode::MalformedJson), b"garbage").await;
        assert!(garbage.letter.is_some());
        let (bad, _) = done(invalid(ErrorCode::UnknownField), b"{\"x\": 1}").await;
        assert!(bad.letter.is_none() && bad.outcome.status == Status::Invalid);
        let (empty, left) = done(vec![Answer::NotNow(problem(ErrorCode::Busy))], b"").await;
        assert_eq!((empty.outcome.status, left), (Status::Invalid, 1));
        assert!(empty.letter.is_some());
    }
}
