//! A job as its events tell it, with the words of its texts.

use serde_json::Value;
use sovereign_aggregates::job::Job;
use sovereign_schemas::events::{EffectEnd, JobEvent};
use sovereign_schemas::{ErrorCode, Problem, RecordedEvent, Text, Uuid};

use crate::{Reveal, Seen};

/// One effect with what is known of it.
#[derive(Debug, Clone, PartialEq)]
pub struct EffectHistory {
    /// Its id.
    pub id: Uuid,
    /// What was wanted.
    pub effect: Value,
    /// What became of it, if that is known.
    pub seen: Option<Seen>,
}

/// All that a worker needs to go on with a job.
#[derive(Debug, Clone)]
pub struct History {
    /// The state that the aggregate has.
    pub job: Job,
    /// Which handler.
    pub kind: String,
    /// What it is given.
    pub arguments: Value,
    /// Its effects, by number.
    pub effects: Vec<EffectHistory>,
    /// The effect that ended last: if a retry follows, it is tried again.
    ended: Option<i32>,
    /// The submission's header: actor, department and correlation are taken on from it.
    pub submission: RecordedEvent,
}

pub(crate) async fn json(keys: &dyn Reveal, text: &Text) -> Result<Value, Problem> {
    let words = keys.reveal(text).await?;
    // a result that is no JSON any more, because the guard took something out, is a text
    Ok(serde_json::from_str(&words).unwrap_or(Value::String(words)))
}

impl History {
    /// Reads a job; `None` if there is none.
    ///
    /// # Errors
    /// If an event does not decode, or a text cannot be read.
    pub async fn read(
        keys: &dyn Reveal,
        events: Vec<RecordedEvent>,
    ) -> Result<Option<Self>, Problem> {
        let mut history: Option<Self> = None;
        for recorded in events {
            let event: JobEvent = recorded.decode().map_err(Problem::from)?;
            match (&mut history, &event) {
                (None, JobEvent::JobSubmitted(e)) => {
                    let mut job = Job::default();
                    job.evolve(&event);
                    history = Some(Self {
                        job,
                        kind: e.kind.clone(),
                        arguments: json(keys, &e.arguments).await?,
                        effects: Vec::new(),
                        ended: None,
                        submission: recorded,
                    });
                }
                (None, _) => {
                    return Err(Problem::new(
                        ErrorCode::DecodeFailed,
                        "a job does not begin with its submission",
                    ));
                }
                (Some(history), _) => history.take(keys, &event).await?,
            }
        }
        Ok(history)
    }

    /// Takes the next event.
    pub(crate) async fn take(
        &mut self,
        keys: &dyn Reveal,
        event: &JobEvent,
    ) -> Result<(), Problem> {
        self.job.evolve(event);
        match event {
            JobEvent::EffectIntended(e) => self.effects.push(EffectHistory {
                id: e.effect_id,
                effect: json(keys, &e.effect).await?,
                seen: None,
            }),
            JobEvent::JobRetryScheduled(_) => {
                if let Some(index) = self.ended.take() {
                    self.saw(index, None);
                }
            }
            JobEvent::EffectFinished(e) => {
                self.ended = Some(e.index);
                let seen = match e.end {
                    EffectEnd::Done => Seen::Done(match &e.result {
                        Some(text) => json(keys, text).await?,
                        None => Value::Null,
                    }),
                    EffectEnd::Failed => Seen::Failed(e.code.clone().unwrap_or_default()),
                    EffectEnd::Cancelled => return Ok(()),
                };
                self.saw(e.index, Some(seen));
            }
            JobEvent::EffectResolved(e) => {
                let seen = match &e.result {
                    _ if !e.done => None,
                    Some(text) => Some(Seen::Done(json(keys, text).await?)),
                    None => Some(Seen::Done(Value::Null)),
                };
                self.saw(e.index, seen);
            }
            // it is tried again
            JobEvent::EffectStarted(e) => self.saw(e.index, None),
            _ => {}
        }
        Ok(())
    }

    fn saw(&mut self, index: i32, seen: Option<Seen>) {
        let found = usize::try_from(index).ok();
        if let Some(effect) = found.and_then(|index| self.effects.get_mut(index)) {
            effect.seen = seen;
        }
    }
}
