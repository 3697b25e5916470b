//! A job as people and scripts see it: no text of it, only what became of it.

use serde_json::{Map, Value, json};
use sovereign_aggregates::job::{Job, JobStatus};
use sovereign_schemas::events::JobEvent;
use sovereign_schemas::{Problem, RecordedEvent};

/// One JSON object from the events of a job; `None` if there are none.
///
/// # Errors
/// If an event does not decode.
pub fn view(id: &str, events: &[RecordedEvent]) -> Result<Option<Value>, Problem> {
    let mut job = Job::default();
    let mut object = Map::new();
    let mut effects: Vec<Map<String, Value>> = Vec::new();
    let note = |object: &mut Map<String, Value>, name: &str, value: Value| {
        object.insert(name.to_owned(), value);
    };
    for recorded in events {
        let event: JobEvent = recorded.decode().map_err(Problem::from)?;
        job.evolve(&event);
        let at = json!(recorded.header.recorded_at);
        match &event {
            JobEvent::JobSubmitted(e) => {
                note(&mut object, "kind", json!(e.kind));
                note(&mut object, "queue", json!(e.queue.as_str().to_lowercase()));
                note(&mut object, "submitted_at", at);
                note(&mut object, "submitted_by", json!(recorded.header.actor));
                let after: Vec<&str> = e.after.split_whitespace().collect();
                note(&mut object, "after", json!(after));
                note(&mut object, "unique", json!(e.unique_key));
                note(&mut object, "amount", json!(e.amount));
                note(&mut object, "currency", json!(e.currency));
                note(&mut object, "schedule", json!(e.schedule));
                note(&mut object, "run_at", json!(e.run_at));
                note(
                    &mut object,
                    "action_digest",
                    json!(e.action_digest.to_string()),
                );
            }
            JobEvent::JobHeld(e) => note(&mut object, "approval_id", json!(e.approval_id)),
            JobEvent::JobAuthorized(e) => note(&mut object, "authority", json!(e.authority)),
            JobEvent::JobForced(e) => note(&mut object, "forced_by", json!(e.authority)),
            JobEvent::JobStarted(e) => note(&mut object, "worker", json!(e.worker)),
            JobEvent::EffectIntended(e) => {
                let mut effect = Map::new();
                note(&mut effect, "index", json!(e.index));
                note(&mut effect, "effect_id", json!(e.effect_id));
                note(&mut effect, "kind", json!(e.kind));
                note(&mut effect, "compensates", json!(e.compensates));
                effects.push(effect);
            }
            JobEvent::EffectFinished(e) => code(&mut effects, e.index, e.code.as_deref()),
            JobEvent::EffectInDoubt(e) => code(&mut effects, e.index, Some(&e.code)),
            JobEvent::JobCancelled(e) => {
                note(&mut object, "because", json!(e.because));
                note(&mut object, "reason", json!(e.reason));
            }
            JobEvent::JobAborted(e) => note(&mut object, "reason", json!(e.reason)),
            JobEvent::JobFailed(e) => note(&mut object, "reason", json!(e.code)),
            _ => {}
        }
        if job.status.ended() && !object.contains_key("ended_at") {
            note(&mut object, "ended_at", json!(recorded.header.recorded_at));
        }
    }
    if job.status == JobStatus::None {
        return Ok(None);
    }
    for (effect, state) in effects.iter_mut().zip(&job.effects) {
        note(effect, "status", json!(state.status));
    }
    note(&mut object, "job_id", json!(id));
    note(&mut object, "status", json!(job.status.as_str()));
    note(&mut object, "attempt", json!(job.attempt));
    note(&mut object, "tries", json!(job.tries));
    note(&mut object, "due_at", json!(job.due_at));
    note(&mut object, "aborting", json!(job.abort.is_some()));
    note(&mut object, "report", json!(job.report()));
    note(&mut object, "effects", json!(effects));
    Ok(Some(Value::Object(object)))
}

fn code(effects: &mut [Map<String, Value>], index: i32, code: Option<&str>) {
    let found = usize::try_from(index).ok();
    if let Some(effect) = found.and_then(|index| effects.get_mut(index)) {
        effect.insert("code".to_owned(), json!(code));
    }
}
