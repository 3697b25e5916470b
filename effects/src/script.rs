//! Mock answers: what the world says is written in a file, and which of several answers comes
//! follows from a seed and the effect's id. So a run gives the same with any number of workers.

use serde::Deserialize;
use serde_json::{Value, json};
use sovereign_schemas::{ErrorCode, Identifier, Problem};
use toml::Spanned;

use crate::luck::Luck;
use crate::{Effect, Method, Outcome, Path, Request, Tools};

/// Longest script, bytes.
const TEXT_BYTES_MAX: usize = 1 << 20;
const ANSWERS_MAX: usize = 1_024;
const WEIGHT_MAX: u32 = 1_000_000;

/// Answers instead of the world. `docs/EFFECTS.md` has its form.
///
/// # Examples
/// ```
/// use sovereign_effects::{Effect, EffectId, Outcome, Request, Script, Tools};
/// let script = Script::parse(r#"
/// seed = 7
/// [[answers]]
/// kind = "http"
/// target = "orders"
/// path = "/v1/orders"
/// outcome = "done"
/// result = { status = 201 }
/// "#)?;
/// let effect = Effect::from_json(br#"{"kind": "http", "tool": "orders", "method": "POST", "path": "/v1/orders"}"#)?;
/// let outcome = script.answer(&Request::new(EffectId::of("job", 0), effect), &Tools::default());
/// assert_eq!(outcome, Outcome::done(serde_json::json!({"status": 201})));
/// # Ok::<(), sovereign_schemas::Problem>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Script {
    seed: u64,
    answers: Vec<Answer>,
}

#[derive(Debug, Clone, PartialEq)]
struct Answer {
    matches: Matches,
    weight: u32,
    outcome: Outcome,
}

#[derive(Debug, Clone, PartialEq)]
struct Matches {
    kind: String,
    target: Option<Identifier>,
    method: Option<Method>,
    path: Option<Path>,
}

impl Matches {
    fn fits(&self, effect: &Effect) -> bool {
        let target = |wanted: &Identifier| wanted.as_str() == effect.target();
        let (method, path) = match effect {
            Effect::Http(call) => (Some(call.method), Some(&call.path)),
            _ => (None, None),
        };
        self.kind == effect.kind()
            && self.target.as_ref().is_none_or(target)
            && self.method.is_none_or(|wanted| Some(wanted) == method)
            && self
                .path
                .as_ref()
                .is_none_or(|wanted| path.is_some_and(|path| wanted.holds(path)))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    seed: u64,
    #[serde(default)]
    answers: Vec<Spanned<AnswerText>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AnswerText {
    kind: String,
    #[serde(default)]
    target: Option<Identifier>,
    #[serde(default)]
    method: Option<Method>,
    #[serde(default)]
    path: Option<Path>,
    #[serde(default)]
    weight: Option<u32>,
    outcome: OutcomeName,
    #[serde(default)]
    result: Option<Value>,
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    retry: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum OutcomeName {
    Done,
    Failed,
    InDoubt,
}

impl Script {
    /// Reads a script.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidConfig`], with the line.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        let line = |offset: usize| {
            let before = text.as_bytes().iter().take(offset);
            1 + before.filter(|byte| **byte == b'\n').count() as u64
        };
        if text.len() > TEXT_BYTES_MAX {
            return Err(
                Problem::new(ErrorCode::InvalidConfig, "the script is too long")
                    .found(format!("{} bytes", text.len()))
                    .expected(format!("at most {TEXT_BYTES_MAX} bytes")),
            );
        }
        let file: File = toml::from_str(text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start);
            Problem::new(ErrorCode::InvalidConfig, error.message()).line(line(start))
        })?;
        if file.answers.len() > ANSWERS_MAX {
            let message = format!("more than {ANSWERS_MAX} answers");
            return Err(Problem::new(ErrorCode::InvalidConfig, message));
        }
        let answers = file.answers.into_iter().map(|text| {
            let start = text.span().start;
            answer(text.into_inner()).map_err(|problem| problem.line(line(start)))
        });
        Ok(Self {
            seed: file.seed,
            answers: answers.collect::<Result<_, _>>()?,
        })
    }

    /// What the script says of an effect. Timers are reached at once, random numbers follow from
    /// seed and effect id, and orders are filled by the exchange, unless an answer says otherwise.
    ///
    /// [`ErrorCode::NoMockAnswer`] where it says nothing.
    #[must_use]
    pub fn answer(&self, request: &Request, tools: &Tools) -> Outcome {
        let effect = &request.effect;
        let fitting: Vec<&Answer> = self
            .answers
            .iter()
            .filter(|answer| answer.matches.fits(effect))
            .collect();
        let total: u64 = fitting.iter().map(|answer| u64::from(answer.weight)).sum();
        if total > 0 {
            let mut drawn = Luck::new(self.seed, request.id, "answer").up_to(total - 1);
            for answer in &fitting {
                let weight = u64::from(answer.weight);
                if drawn < weight {
                    return answer.outcome.clone();
                }
                drawn -= weight;
            }
        }
        self.by_itself(request, tools)
    }

    fn by_itself(&self, request: &Request, tools: &Tools) -> Outcome {
        match &request.effect {
            Effect::Timer(timer) => {
                Outcome::done(json!({ "until": timer.until, "reached_at": timer.until }))
            }
            Effect::Random(draw) => {
                let mut luck = Luck::new(self.seed, request.id, "random");
                let drawn = draw.draw(|bytes| -> Result<(), std::convert::Infallible> {
                    luck.fill(bytes);
                    Ok(())
                });
                match drawn {
                    Ok(result) => Outcome::done(result),
                    Err(never) => match never {},
                }
            }
            Effect::Order(order) => tools.fill(request.id, order),
            Effect::Http(_) | Effect::Model(_) | Effect::Process(_) => Outcome::refused(
                Problem::new(
                    ErrorCode::NoMockAnswer,
                    "the script has no answer for the effect",
                )
                .field(request.effect.kind())
                .found(request.effect.target()),
            ),
        }
    }
}

fn answer(text: AnswerText) -> Result<Answer, Problem> {
    let wrong = |field: &str, message: &str| {
        Problem::new(ErrorCode::InvalidConfig, message).field(format!("answers.{field}"))
    };
    if !Effect::KINDS.split(", ").any(|kind| kind == text.kind) {
        return Err(wrong("kind", "is no kind of effect").expected(Effect::KINDS));
    }
    if text.kind != "http" && (text.method.is_some() || text.path.is_some()) {
        return Err(wrong("kind", "only http has a method and a path"));
    }
    let weight = text.weight.unwrap_or(1);
    if !(1..=WEIGHT_MAX).contains(&weight) {
        let problem = wrong("weight", "is out of range");
        return Err(problem.expected(format!("1 to {WEIGHT_MAX}")));
    }
    let outcome = match (text.outcome, text.result, text.message) {
        (OutcomeName::Done, Some(result), None) if text.retry.is_none() => {
            Outcome::done(result).within_limit(Outcome::in_doubt)
        }
        (OutcomeName::Failed, None, message) => Outcome::Failed {
            problem: said(ErrorCode::TargetRefused, message),
            retry: text.retry.unwrap_or(false),
        },
        (OutcomeName::InDoubt, None, message) if text.retry.is_none() => {
            Outcome::in_doubt(said(ErrorCode::AnswerIncomplete, message))
        }
        _ => {
            return Err(wrong("outcome", "does not fit the other fields").expected(
                "done with result; failed with message and retry; in_doubt with message",
            ));
        }
    };
    Ok(Answer {
        matches: Matches {
            kind: text.kind,
            target: text.target,
            method: text.method,
            path: text.path,
        },
        weight,
        outcome,
    })
}

fn said(code: ErrorCode, message: Option<String>) -> Problem {
    Problem::new(
        code,
        message.unwrap_or_else(|| "so says the script".to_owned()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::EffectId;

    fn request(index: u32, effect: Value) -> Request {
        Request::new(
            EffectId::of("job", index),
            Effect::from_value(effect).unwrap(),
        )
    }

    #[test]
    fn weights_choose_by_effect_id_and_a_repeat_is_answered_alike() {
        let script = Script::parse(
            "seed = 3\n\
             [[answers]]\nkind = \"http\"\nweight = 3\noutcome = \"done\"\nresult = 1\n\
             [[answers]]\nkind = \"http\"\noutcome = \"in_doubt\"\nmessage = \"who knows\"\n",
        )
        .unwrap();
        let http = json!({"kind": "http", "tool": "t", "method": "GET", "path": "/"});
        let answer = |index| script.answer(&request(index, http.clone()), &Tools::default());
        let done = (0..1_000)
            .filter(|index| answer(*index) == Outcome::done(json!(1)))
            .count();
        assert!((700..800).contains(&done), "{done}");
        assert!((0..50).all(|index| answer(index) == answer(index)));
    }

    #[test]
    fn answers_fit_by_kind_target_method_and_path() {
        let script = Script::parse(
            "[[answers]]\nkind = \"http\"\ntarget = \"t\"\nmethod = \"POST\"\npath = \"/v1\"\noutcome = \"failed\"\nretry = true\n",
        )
        .unwrap();
        let http = |tool: &str, method: &str, path: &str| {
            let effect = json!({"kind": "http", "tool": tool, "method": method, "path": path});
            script.answer(&request(0, effect), &Tools::default())
        };
        assert!(!http("t", "POST", "/v1/x").is_final());
        for other in [
            http("u", "POST", "/v1"),
            http("t", "GET", "/v1"),
            http("t", "POST", "/v2"),
        ] {
            assert_eq!(other.problem().unwrap().code, ErrorCode::NoMockAnswer);
        }
    }

    #[test]
    fn what_needs_no_world_is_answered_without_a_script() {
        let script = Script::default();
        let answer = |index, effect| script.answer(&request(index, effect), &Tools::default());
        let random = json!({"kind": "random", "bytes": 8});
        assert_eq!(answer(0, random.clone()), answer(0, random.clone()));
        assert_ne!(answer(0, random.clone()), answer(1, random));
        let until = "2999-01-01T00:00:00.000000Z";
        let timer = answer(0, json!({"kind": "timer", "until": until}));
        assert_eq!(
            timer,
            Outcome::done(json!({"until": until, "reached_at": until}))
        );
        let order = json!({"kind": "order", "exchange": "mock", "instrument": "A", "side": "BUY",
            "quantity": "1", "price": "1", "at": "2000-01-01"});
        assert!(matches!(answer(0, order), Outcome::Done { .. }));
    }

    #[test]
    fn bad_scripts_are_named_with_their_line() {
        for (text, line) in [
            ("colour = 1\n", 1),
            (
                "\n[[answers]]\nkind = \"magic\"\noutcome = \"done\"\nresult = 1\n",
                2,
            ),
            (
                "[[answers]]\nkind = \"timer\"\npath = \"/\"\noutcome = \"done\"\nresult = 1\n",
                1,
            ),
            ("[[answers]]\nkind = \"http\"\noutcome = \"done\"\n", 1),
            (
                "[[answers]]\nkind = \"http\"\noutcome = \"failed\"\nresult = 1\n",
                1,
            ),
            (
                "[[answers]]\nkind = \"http\"\noutcome = \"in_doubt\"\nretry = true\n",
                1,
            ),
            (
                "[[answers]]\nkind = \"http\"\nweight = 0\noutcome = \"failed\"\n",
                1,
            ),
            ("[[answers]]\nkind = \"http\"\noutcome = \"maybe\"\n", 3),
        ] {
            let problem = Script::parse(text).unwrap_err();
            assert_eq!(
                (problem.code, problem.line),
                (ErrorCode::InvalidConfig, Some(line)),
                "{text}{problem}"
            );
        }
    }
}
