//! What a worker proposes next, from what it knows. Pure; the aggregate decides.

use serde::Deserialize as _;
use serde_json::Value;
use sovereign_aggregates::job::{EffectStatus, How, JobEffect};
use sovereign_effects::{Effect, Filled, Outcome, Programs, Tools};
use sovereign_schemas::events::Verdict;
use sovereign_schemas::{ErrorCode, Identifier, Problem};

use crate::history::EffectHistory;
use crate::{Handler, History, Seen, Wanted};

/// What comes next, before its texts are written down.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Proposal {
    /// A new effect.
    Effect {
        effect: Box<Effect>,
        repeatable: bool,
        compensates: Option<u32>,
    },
    /// One that was intended before.
    Again(u32),
    Finish(Verdict, Value),
    Retry,
    Fail(Identifier),
    Abort,
    Release,
    Wait,
}

/// What may be reached, by which it is known what may be repeated.
#[derive(Debug, Clone, Default)]
pub struct Reach {
    /// Of the adopted policy.
    pub tools: Tools,
    /// Of this machine.
    pub programs: Programs,
}

/// What the worker tells of the effect that it ran.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Told {
    pub(crate) index: u32,
    pub(crate) how: How,
    pub(crate) result: Option<Value>,
    pub(crate) fill: Option<Filled>,
}

/// How an effect's failure is called where its own name is no code.
const UNNAMED: &str = "failed";

pub(crate) fn code(text: &str) -> Identifier {
    let parsed = text.parse::<Identifier>().or_else(|_| UNNAMED.parse());
    #[allow(clippy::expect_used)]
    parsed.expect("six letters are an identifier")
}

/// What an order came to, as numbers. An exchange that says "done" without them has said nothing
/// that anybody could use: nobody knows what happened.
pub(crate) fn filled(effect: &Effect, outcome: Outcome) -> (Outcome, Option<Filled>) {
    let (Effect::Order(_), Outcome::Done { result }) = (effect, &outcome) else {
        return (outcome, None);
    };
    match Filled::deserialize(result) {
        Ok(fill) => (outcome, Some(fill)),
        Err(_) => {
            let problem = Problem::new(
                ErrorCode::AnswerIncomplete,
                "the exchange's answer is no fill",
            );
            let problem = problem
                .expected("{\"order_id\", \"price\", \"quantity\", \"commission\", \"filled_at\"}");
            (Outcome::in_doubt(problem), None)
        }
    }
}

impl History {
    /// The state as it will be once the running attempt has been taken over.
    pub(crate) fn taken_over(&mut self) {
        let aborts = self.job.abort.is_some();
        for effect in &mut self.job.effects {
            let repeated = effect.repeatable && (!aborts || effect.compensates.is_some());
            if effect.status == EffectStatus::Started && !repeated {
                effect.status = EffectStatus::InDoubt;
            }
        }
    }

    /// Takes what the ledger accepted: a new effect, or one that is started again.
    pub(crate) fn started(&mut self, effect: Option<(EffectHistory, JobEffect)>, index: u32) {
        if let Some((history, state)) = effect {
            self.effects.push(history);
            self.job.effects.push(state);
        }
        if let Some(effect) = self.job.effects.get_mut(index as usize) {
            effect.unsure |= effect.status == EffectStatus::Started;
            effect.status = EffectStatus::Started;
        }
        if let Some(effect) = self.effects.get_mut(index as usize) {
            effect.seen = None;
        }
    }

    /// Takes what is told of an effect, as the aggregate will.
    pub(crate) fn ended(&mut self, told: &Told) {
        let Some(effect) = self.job.effects.get_mut(told.index as usize) else {
            return;
        };
        let unsure = std::mem::take(&mut effect.unsure);
        effect.status = match &told.how {
            How::Done => EffectStatus::Done,
            How::InDoubt(_) => EffectStatus::InDoubt,
            How::Failed(_) | How::Cancelled if unsure => EffectStatus::InDoubt,
            How::Failed(_) | How::Cancelled => EffectStatus::NotDone,
        };
        let (status, undone) = (effect.status, effect.compensates);
        if let (EffectStatus::Done, Some(undone)) = (status, undone)
            && let Some(undone) = self.job.effects.get_mut(undone as usize)
        {
            undone.status = EffectStatus::Compensated;
        }
        let seen = match (&told.how, status) {
            (How::Done, _) => Some(Seen::Done(told.result.clone().unwrap_or_default())),
            (How::Failed(code), EffectStatus::NotDone) => Some(Seen::Failed(code.to_string())),
            _ => None,
        };
        if let Some(effect) = self.effects.get_mut(told.index as usize) {
            effect.seen = seen;
        }
    }

    /// An effect that would have been repeated, if the job were not given up: nobody knows of it.
    pub(crate) fn left_open(&mut self) -> Option<Told> {
        let started = |e: &JobEffect| e.status == EffectStatus::Started;
        let index = self.job.effects.iter().position(started)?;
        let told = Told {
            index: u32::try_from(index).ok()?,
            how: How::InDoubt(code("given-up")),
            result: None,
            fill: None,
        };
        self.ended(&told);
        Some(told)
    }

    /// What the outcome of an effect means: what is told of it, and whether it is tried again later.
    /// Nothing is told of one that stays open: it is repeated under its id.
    pub(crate) fn judge(&self, index: u32, outcome: Outcome) -> (Option<Told>, Option<Proposal>) {
        let Some(effect) = self.job.effects.get(index as usize).copied() else {
            return (None, Some(Proposal::Release));
        };
        let again = self.job.tries + 1 < self.job.tries_max()
            && (self.job.abort.is_none() || effect.compensates.is_some());
        let told = |how, result| {
            Some(Told {
                index,
                how,
                result,
                fill: None,
            })
        };
        let problem = |problem: &Problem| serde_json::to_value(problem).ok();
        match outcome {
            Outcome::Done { result } => (told(How::Done, Some(result)), None),
            Outcome::Cancelled if effect.unsure => (None, Some(Proposal::Retry)),
            Outcome::Cancelled => (told(How::Cancelled, None), Some(Proposal::Release)),
            Outcome::Failed { retry: true, .. } if again && effect.unsure => {
                (None, Some(Proposal::Retry))
            }
            Outcome::Failed { problem: p, retry } => {
                let how = How::Failed(code(p.code.as_str()));
                let later = (retry && again).then_some(Proposal::Retry);
                (told(how, problem(&p)), later)
            }
            Outcome::InDoubt { .. } if again && effect.repeatable => (None, Some(Proposal::Retry)),
            Outcome::InDoubt { problem: p } => {
                let how = How::InDoubt(code(p.code.as_str()));
                (told(how, problem(&p)), None)
            }
        }
    }

    /// What comes next: an effect, or an end.
    pub(crate) fn propose(&self, handler: &dyn Handler, reach: &Reach) -> Proposal {
        if self.job.abort.is_some() {
            return self.undo(handler, reach).unwrap_or(Proposal::Abort);
        }
        if self.job.in_doubt().is_some() {
            return Proposal::Wait;
        }
        if self.job.undoes() {
            return self.undo_failed(handler, reach, &self.failure());
        }
        if let Some(index) = self.again(|effect| effect.compensates.is_none()) {
            return Proposal::Again(index);
        }
        let own = self.job.effects.iter().zip(&self.effects);
        let own = own.filter(|(effect, _)| effect.compensates.is_none());
        let seen: Vec<Seen> = own.filter_map(|(_, e)| e.seen.clone()).collect();
        match handler.next(&self.arguments, &seen) {
            Ok(Wanted::Effect(effect)) => Proposal::Effect {
                repeatable: effect.repeatable(&reach.tools, &reach.programs),
                effect,
                compensates: None,
            },
            Ok(Wanted::Done { verdict, result }) => Proposal::Finish(verdict, result),
            Ok(Wanted::Failed(code)) => self.undo_failed(handler, reach, &code),
            Err(problem) => self.undo_failed(handler, reach, problem.code.as_str()),
        }
    }

    fn failure(&self) -> String {
        let failed = self.effects.iter().rev().find_map(|e| match &e.seen {
            Some(Seen::Failed(code)) => Some(code.clone()),
            _ => None,
        });
        failed.unwrap_or_else(|| ErrorCode::Internal.as_str().to_owned())
    }

    fn undo_failed(&self, handler: &dyn Handler, reach: &Reach, failure: &str) -> Proposal {
        let undo = self.undo(handler, reach);
        undo.unwrap_or_else(|| Proposal::Fail(code(failure)))
    }

    /// An effect to start, or to start again.
    fn again(&self, wanted: impl Fn(&JobEffect) -> bool) -> Option<u32> {
        let open = |effect: &JobEffect, history: &EffectHistory| match effect.status {
            EffectStatus::Intended => true,
            EffectStatus::Started => effect.repeatable,
            // one that failed for good is its handler's concern
            EffectStatus::NotDone => history.seen.is_none(),
            _ => false,
        };
        let both = self.job.effects.iter().zip(&self.effects);
        let at = both.enumerate().find(|(_, (e, h))| wanted(e) && open(e, h));
        at.and_then(|(index, _)| u32::try_from(index).ok())
    }

    /// The next effect that undoes another, from the last to the first; an undo that failed for
    /// good is not tried again.
    fn undo(&self, handler: &dyn Handler, reach: &Reach) -> Option<Proposal> {
        if let Some(index) = self.again(|effect| effect.compensates.is_some()) {
            return Some(Proposal::Again(index));
        }
        if self.job.effects.len() >= sovereign_aggregates::job::EFFECTS_MAX as usize {
            return None;
        }
        for (index, effect) in self.job.effects.iter().enumerate().rev() {
            let number = u32::try_from(index).ok()?;
            let tried = self
                .job
                .effects
                .iter()
                .any(|e| e.compensates == Some(number));
            if effect.status != EffectStatus::Done || effect.compensates.is_some() || tried {
                continue;
            }
            if let Some(undo) = handler.undo(&self.arguments, index) {
                return Some(Proposal::Effect {
                    repeatable: undo.repeatable(&reach.tools, &reach.programs),
                    effect: Box::new(undo),
                    compensates: Some(number),
                });
            }
        }
        None
    }
}
