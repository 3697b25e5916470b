//! `plan`: a list of effects, run in order.

use serde::Deserialize;
use serde_json::{Value, json};
use sovereign_aggregates::job::EFFECTS_MAX;
use sovereign_effects::Effect;
use sovereign_schemas::events::Verdict;
use sovereign_schemas::{ErrorCode, Problem};

use super::{Handler, Seen, Wanted};

/// Most steps: each may need another effect that undoes it.
const STEPS_MAX: usize = EFFECTS_MAX as usize / 2;

/// `{"steps": [{"effect": {…}, "undo": {…}?, "green_if": {"pointer", "equals"}?, "on_failure"?}]}`.
///
/// Steps run one after the other. A step whose result is not as `green_if` says ends the job Red;
/// one that fails fails the job, or ends it Red with `"on_failure": "red"`. What was done is undone
/// from the last to the first, where a step says how, if the job fails or is aborted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Arguments {
    steps: Vec<Step>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    effect: Value,
    #[serde(default)]
    undo: Option<Value>,
    #[serde(default)]
    green_if: Option<GreenIf>,
    #[serde(default)]
    on_failure: OnFailure,
}

/// The result's value at a JSON pointer (RFC 6901) must be this one.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct GreenIf {
    pointer: String,
    equals: Value,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum OnFailure {
    #[default]
    Fail,
    Red,
}

fn read(arguments: &Value) -> Result<Arguments, Problem> {
    // values are not repeated: they could be anything
    let wrong = |e: serde_json::Error| {
        let message = e.to_string();
        let known = ["unknown field", "missing field", "unknown variant"];
        let told = known.iter().any(|k| message.starts_with(k));
        let message = if told {
            message
        } else {
            "the plan is not of this form".to_owned()
        };
        Problem::new(ErrorCode::WrongType, message)
            .field("arguments")
            .expected("{\"steps\": [{\"effect\": {…}, \"undo\"?, \"green_if\"?, \"on_failure\"?}]}")
    };
    Arguments::deserialize(arguments).map_err(wrong)
}

fn effect(value: &Value, at: &str) -> Result<Effect, Problem> {
    Effect::from_value(value.clone()).map_err(|problem| {
        let field = problem.field.clone().unwrap_or_default();
        let gap = if field.is_empty() { "" } else { "." };
        problem.field(format!("arguments.{at}{gap}{field}"))
    })
}

impl Handler for Plan {
    fn check(&self, arguments: &Value) -> Result<Option<u32>, Problem> {
        let Arguments { steps } = read(arguments)?;
        if steps.is_empty() || steps.len() > STEPS_MAX {
            return Err(Problem::new(ErrorCode::WrongType, "number of steps")
                .field("arguments.steps")
                .found(steps.len().to_string())
                .expected(format!("1 to {STEPS_MAX}")));
        }
        for (index, step) in steps.iter().enumerate() {
            effect(&step.effect, &format!("steps[{index}].effect"))?;
            if let Some(undo) = &step.undo {
                effect(undo, &format!("steps[{index}].undo"))?;
            }
            if let Some(green_if) = &step.green_if
                && !(green_if.pointer.is_empty() || green_if.pointer.starts_with('/'))
            {
                return Err(Problem::new(ErrorCode::WrongType, "is no JSON pointer")
                    .field(format!("arguments.steps[{index}].green_if.pointer"))
                    .expected("/a/b"));
            }
        }
        Ok(u32::try_from(steps.len()).ok())
    }

    fn next(&self, arguments: &Value, seen: &[Seen]) -> Result<Wanted, Problem> {
        let Arguments { steps } = read(arguments)?;
        let red = |index: usize, why: &str| Wanted::Done {
            verdict: Verdict::Red,
            result: json!({ "step": index, "reason": why }),
        };
        for (index, (step, seen)) in steps.iter().zip(seen).enumerate() {
            match seen {
                Seen::Failed(code) if step.on_failure == OnFailure::Red => {
                    return Ok(red(index, code));
                }
                Seen::Failed(code) => return Ok(Wanted::Failed(code.clone())),
                Seen::Done(result) => {
                    if let Some(green_if) = &step.green_if
                        && result.pointer(&green_if.pointer) != Some(&green_if.equals)
                    {
                        return Ok(red(index, "not-green"));
                    }
                }
            }
        }
        match steps.get(seen.len()) {
            Some(step) => Ok(Wanted::Effect(Box::new(effect(&step.effect, "steps")?))),
            None => Ok(Wanted::Done {
                verdict: Verdict::Green,
                result: json!({ "steps": steps.len() }),
            }),
        }
    }

    fn undo(&self, arguments: &Value, index: usize) -> Option<Effect> {
        let Arguments { steps } = read(arguments).ok()?;
        let undo = steps.get(index)?.undo.as_ref()?;
        effect(undo, "undo").ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Value {
        let call = |path: &str| json!({"kind": "http", "tool": "orders", "method": "POST", "path": path, "body": {}});
        json!({"steps": [
            {"effect": call("/a"), "undo": call("/undo-a")},
            {"effect": call("/b"), "green_if": {"pointer": "/body/ok", "equals": true}},
            {"effect": call("/c"), "on_failure": "red"},
        ]})
    }

    fn verdict(wanted: &Wanted) -> Option<Verdict> {
        match wanted {
            Wanted::Done { verdict, .. } => Some(*verdict),
            _ => None,
        }
    }

    #[test]
    fn steps_run_in_order_and_end_green() {
        let plan = plan();
        assert_eq!(Plan.check(&plan).unwrap(), Some(3));
        let done = |value: Value| Seen::Done(json!({ "body": value }));
        let mut seen = vec![];
        for path in ["/a", "/b", "/c"] {
            let Wanted::Effect(effect) = Plan.next(&plan, &seen).unwrap() else {
                panic!("an effect")
            };
            assert!(serde_json::to_string(&effect).unwrap().contains(path));
            seen.push(done(json!({"ok": true})));
        }
        let end = Plan.next(&plan, &seen).unwrap();
        assert_eq!(verdict(&end), Some(Verdict::Green));
        assert!(Plan.undo(&plan, 0).is_some());
        assert!(Plan.undo(&plan, 1).is_none());
    }

    #[test]
    fn a_result_that_is_not_green_and_a_failure_that_may_be_red_end_it_red() {
        let plan = plan();
        let done = Seen::Done(json!({"body": {"ok": true}}));
        let not = Seen::Done(json!({"body": {"ok": false}}));
        let failed = Seen::Failed("target-refused".to_owned());
        let ends = |seen: &[Seen]| Plan.next(&plan, seen).unwrap();
        assert_eq!(verdict(&ends(&[done.clone(), not])), Some(Verdict::Red));
        let red = ends(&[done.clone(), done, failed.clone()]);
        assert_eq!(verdict(&red), Some(Verdict::Red));
        assert_eq!(ends(&[failed]), Wanted::Failed("target-refused".to_owned()));
    }

    #[test]
    fn bad_plans_are_refused_with_the_step() {
        let field = |plan: Value| Plan.check(&plan).unwrap_err().field.unwrap();
        assert_eq!(field(json!({"steps": []})), "arguments.steps");
        assert_eq!(field(json!([])), "arguments");
        assert_eq!(
            field(json!({"steps": [{"effect": {"kind": "http"}}], "x": 1})),
            "arguments"
        );
        let unknown = json!({"steps": [{"effect": {"kind": "telepathy"}}]});
        assert_eq!(field(unknown), "arguments.steps[0].effect.kind");
    }
}
