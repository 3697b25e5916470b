//! Events as JSON, for the command line and for the API.

use std::cell::RefCell;
use std::collections::HashMap;

use serde_json::{Value, json};
use sovereign_aggregates::AnyEvent;
use sovereign_schemas::{Departments, RecordedEvent, Text, Uuid, hex};

use crate::reveal::Revealer;

/// Describes events, with their texts as far as they may and can be read.
#[derive(Debug)]
pub(crate) struct Describer {
    pub(crate) departments: Departments,
    /// Opens texts; none for a reader who has no keys.
    pub(crate) revealer: Option<Revealer>,
}

impl Describer {
    pub(crate) fn department(&self, event: &RecordedEvent) -> String {
        let id = event.header.department;
        let department = self.departments.get(id);
        department.map_or_else(|| id.to_string(), |d| d.name.to_string())
    }

    /// The event as one object, with its payload as [`Self::data`] gives it.
    pub(crate) fn described(&self, event: &RecordedEvent, data: &Value) -> Value {
        let header = &event.header;
        json!({
            "position": header.position, "event_id": header.event_id,
            "aggregate_type": header.aggregate_type, "aggregate_id": header.aggregate_id,
            "sequence": header.sequence, "event_type": header.event_type,
            "event_version": header.event_version, "department": self.department(event),
            "actor": header.actor, "command_id": header.command_id,
            "correlation_id": header.correlation_id, "causation_id": header.causation_id,
            "recorded_at": header.recorded_at, "traceparent": event.traceparent,
            "hash": event.hash, "data": data,
        })
    }

    /// The payload, with its texts open where there is a key and sealed where not.
    pub(crate) async fn data(&self, event: &RecordedEvent) -> Value {
        let decoded = match decoded(event) {
            Ok(decoded) => decoded,
            Err(undecodable) => return undecodable,
        };
        let Some(revealer) = self.revealer.as_ref() else {
            return decoded.json(&sealed);
        };
        let found: RefCell<Vec<Text>> = RefCell::default();
        let without = decoded.json(&|text: &Text| {
            found.borrow_mut().push(text.clone());
            Value::Null
        });
        let found = found.into_inner();
        if found.is_empty() {
            return without;
        }
        let mut texts: HashMap<(Uuid, u64), String> = HashMap::new();
        for text in &found {
            if let Some(plain) = revealer.reveal(text).await {
                texts.insert((text.key_id(), text.index()), plain);
            }
        }
        decoded.json(
            &|text: &Text| match texts.get(&(text.key_id(), text.index())) {
                Some(plain) => plain.as_str().into(),
                None => self::sealed(text),
            },
        )
    }

    /// The payload with all its texts sealed.
    pub(crate) fn sealed_data(&self, event: &RecordedEvent) -> Value {
        decoded(event).map_or_else(|undecodable| undecodable, |event| event.json(&sealed))
    }
}

fn decoded(event: &RecordedEvent) -> Result<AnyEvent, Value> {
    AnyEvent::decode(event).map_err(|error| json!({ "undecodable": error.to_string() }))
}

/// A text that stays closed: everything that its key's holder needs. Plain text is not closed.
fn sealed(text: &Text) -> Value {
    match text.as_plain() {
        Some(plain) => plain.into(),
        None => json!({ "key_id": text.key_id(), "index": text.index(),
            "nonce": hex(text.nonce()), "bytes": hex(text.bytes()) }),
    }
}
