//! The schemas of all events, with their fingerprints.

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::{EventType, events};

/// The schema of [`crate::EventHeader`].
pub const HEADER_SCHEMA: &str = include_str!("../avro/EventHeader.avsc");
/// The schema of [`crate::CommandRecord`].
pub const COMMAND_SCHEMA: &str = include_str!("../avro/CommandRecord.avsc");
/// The schema of one entry of a recorded file.
pub const RECORDED_EVENT_SCHEMA: &str = include_str!("../avro/RecordedEvent.avsc");

/// One version of one event's schema.
#[derive(Debug, Clone)]
pub struct EventSchema {
    /// Record name.
    pub name: &'static str,
    /// Version, as in the event header.
    pub version: u16,
    /// Full record name, the registry's subject.
    pub subject: &'static str,
    /// The schema as JSON.
    pub json: &'static str,
    /// CRC-64-AVRO of the parsing canonical form, little-endian.
    pub fingerprint: [u8; 8],
}

static ALL: LazyLock<Vec<EventSchema>> = LazyLock::new(|| {
    let mut all: Vec<EventSchema> = events::SCHEMA_FILES
        .iter()
        .filter_map(|&(name, version, subject, json)| {
            // a file that does not parse is caught by the test below, and by every append
            let fingerprint = fingerprint(json).ok()?;
            Some(EventSchema {
                name,
                version,
                subject,
                json,
                fingerprint,
            })
        })
        .collect();
    all.sort_by_key(|s| (s.subject, s.version));
    all
});

static BY_TYPE: LazyLock<HashMap<(&'static str, u16), &'static EventSchema>> =
    LazyLock::new(|| ALL.iter().map(|s| ((s.name, s.version), s)).collect());

static COMMAND: LazyLock<Option<EventSchema>> = LazyLock::new(|| {
    Some(EventSchema {
        name: "CommandRecord",
        version: 1,
        subject: "sovereign.CommandRecord",
        json: COMMAND_SCHEMA,
        fingerprint: fingerprint(COMMAND_SCHEMA).ok()?,
    })
});

/// The schema of commands as records.
///
/// # Panics
/// Never: the test `every_event_has_its_schemas` reads the file.
#[must_use]
pub fn command_record() -> &'static EventSchema {
    #[allow(clippy::expect_used)]
    COMMAND.as_ref().expect("it is an Avro schema")
}

/// All that a registry must have: the schemas of all events, and that of commands.
pub fn registered() -> impl Iterator<Item = &'static EventSchema> {
    all().iter().chain([command_record()])
}

/// All schemas of events, by subject and version.
#[must_use]
pub fn all() -> &'static [EventSchema] {
    &ALL
}

/// The schema of one version of an event, if this build knows it.
#[must_use]
pub fn find(event_type: &str, version: u16) -> Option<&'static EventSchema> {
    BY_TYPE.get(&(event_type, version)).copied()
}

/// The schema in which this build writes an event.
///
/// # Panics
/// Never: the test `every_event_has_its_schemas` holds the files to the event types.
#[must_use]
pub fn latest(event_type: EventType) -> &'static EventSchema {
    #[allow(clippy::expect_used)]
    find(event_type.as_str(), event_type.latest_version()).expect("generated from the same files")
}

/// CRC-64-AVRO of a schema's parsing canonical form, in the little-endian order of Avro's
/// single-object encoding.
///
/// # Errors
/// The parser's message, if the text is no Avro schema.
///
/// # Examples
/// ```
/// use sovereign_schemas::catalog::fingerprint;
/// // the value that the Avro specification implies for "int"
/// assert_eq!(u64::from_le_bytes(fingerprint("\"int\"").unwrap()), 0x7275_d51a_3f39_5c8f);
/// ```
pub fn fingerprint(schema: &str) -> Result<[u8; 8], String> {
    let parse = |text: &str| apache_avro::Schema::parse_str(text).map_err(|e| e.to_string());
    let mut canonical = parse(schema)?.canonical_form();
    // apache-avro 0.22 strips a logical type and keeps the object around the primitive type, which
    // the specification's rule [PRIMITIVES] replaces by its name; other libraries do
    for name in [
        "boolean", "bytes", "double", "float", "int", "long", "null", "string",
    ] {
        let object = format!("{{\"type\":\"{name}\"}}");
        canonical = canonical.replace(&object, &format!("\"{name}\""));
    }
    let print = parse(&canonical)?.fingerprint::<apache_avro::rabin::Rabin>();
    print
        .bytes
        .as_slice()
        .try_into()
        .map_err(|_| "fingerprint has not 8 bytes".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_has_its_schemas() {
        assert_eq!(all().len(), events::SCHEMA_FILES.len());
        for event_type in EventType::ALL {
            assert_eq!(latest(*event_type).subject, event_type.full_name());
        }
        assert!(fingerprint(HEADER_SCHEMA).is_ok());
        assert_eq!(registered().count(), all().len() + 1);
        // as docs/FORMATS.md has it
        let print = u64::from_be_bytes(command_record().fingerprint);
        assert_eq!(print, 0x33ef_5043_79da_697c);
        assert!(fingerprint(RECORDED_EVENT_SCHEMA).is_ok());
    }

    #[test]
    fn every_new_version_can_read_the_one_before() {
        for pair in all().windows(2).filter(|p| p[0].subject == p[1].subject) {
            let checked = crate::compatibility::can_read(pair[1].json, pair[0].json);
            assert_eq!(checked, Ok(()), "{} v{}", pair[1].subject, pair[1].version);
        }
    }
}
