use std::collections::HashMap;

use sovereign_schemas::{Digest, ErrorCode, Problem};

use crate::{EffectId, Outcome, Request};

/// Answers from what a log holds, for a run over the past: it opens no connection and has nothing
/// to open one with. What is not recorded fails closed.
///
/// # Examples
/// ```
/// use sovereign_effects::{Effect, EffectId, Outcome, Recording, Request};
/// use sovereign_schemas::ErrorCode;
/// let effect = Effect::from_json(br#"{"kind": "random", "bytes": 4}"#)?;
/// let request = Request::new(EffectId::of("job", 0), effect);
/// let mut recording = Recording::default();
/// let unknown = recording.answer(&request);
/// assert_eq!(unknown.problem().unwrap().code, ErrorCode::NotRecorded);
/// let outcome = Outcome::done(serde_json::json!({"bytes": "00ff00ff"}));
/// recording.insert(request.id, request.effect.digest(), outcome.clone());
/// assert_eq!(recording.answer(&request), outcome);
/// # Ok::<(), sovereign_schemas::Problem>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Recording(HashMap<EffectId, (Digest, Outcome)>);

impl Recording {
    /// Takes what was recorded of an effect: the digest of what was wanted, and what became of it.
    /// The last one counts, as it did then.
    pub fn insert(&mut self, id: EffectId, effect: Digest, outcome: Outcome) {
        self.0.insert(id, (effect, outcome));
    }

    /// How many effects it knows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it knows none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What became of the effect then.
    ///
    /// [`ErrorCode::NotRecorded`] where nothing is recorded under its id, and
    /// [`ErrorCode::RecordingDiffers`] where something else was wanted under it.
    #[must_use]
    pub fn answer(&self, request: &Request) -> Outcome {
        let id = request.id;
        let Some((wanted, outcome)) = self.0.get(&id) else {
            return Outcome::refused(
                Problem::new(ErrorCode::NotRecorded, "nothing is recorded of the effect")
                    .found(id.to_string()),
            );
        };
        let digest = request.effect.digest();
        if *wanted != digest {
            return Outcome::refused(
                Problem::new(
                    ErrorCode::RecordingDiffers,
                    format!("another effect is recorded under the id {id}"),
                )
                .found(digest.to_string())
                .expected(wanted.to_string()),
            );
        }
        outcome.clone()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::Effect;

    #[test]
    fn another_effect_under_a_recorded_id_fails_closed() {
        let effect =
            |bytes: u8| Effect::from_value(json!({"kind": "random", "bytes": bytes})).unwrap();
        let id = EffectId::of("job", 0);
        let mut recording = Recording::default();
        recording.insert(id, effect(4).digest(), Outcome::Cancelled);
        assert_eq!(
            recording.answer(&Request::new(id, effect(4))),
            Outcome::Cancelled
        );
        let other = recording.answer(&Request::new(id, effect(5)));
        assert_eq!(other.problem().unwrap().code, ErrorCode::RecordingDiffers);
        assert!(other.is_final());
    }
}
