use std::time::Instant;

use serde::Serialize;
use sovereign_schemas::chain::Head;
use sovereign_schemas::{Digest, EventHeader, EventLog, EventType, Position, catalog};

use crate::check::{self, printable};
use crate::fold::rate;
use crate::pipeline::{Compare, Own, Visitor, run};
use crate::source::{Header, View};
use crate::table::{Table, WINDOW};
use crate::{Difference, Options, Range, ReplayError, RunManifest, Source, What};

/// What the log is held against, besides itself.
#[derive(Default)]
pub struct Expectations<'a> {
    /// The hash before the first position, if it is known from elsewhere. Otherwise it is zero for
    /// position 1, a file's own statement, or the hash stored with the event before.
    pub previous_hash: Option<Digest>,
    /// A head that a second source names: the log must reach it, with that hash.
    pub head: Option<Head>,
    /// Heads that somebody noted earlier: each position that lies in the range must have its hash.
    /// If there is no last position, the log must reach all of them.
    pub noted: Vec<Head>,
    /// A second copy that must be equal: header, payload and hash. Without a last position it
    /// must also end at the same event.
    pub copy: Option<&'a mut dyn EventLog>,
}

impl std::fmt::Debug for Expectations<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Expectations")
            .field("previous_hash", &self.previous_hash)
            .field("head", &self.head)
            .field("noted", &self.noted)
            .field("copy", &self.copy.is_some())
            .finish()
    }
}

/// What a verification found in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    /// First position.
    pub first: Position,
    /// Last position; one before `first` if the range was empty.
    pub last: Position,
    /// Events checked.
    pub events: u64,
    /// The end of the chain.
    pub head: Head,
    /// Aggregates met.
    pub aggregates: u64,
    /// Events of a type or version that this build does not know: chained, but not decoded.
    pub unknown_events: u64,
    /// Whether a second copy was compared.
    pub compared: bool,
    /// What it rested on.
    pub manifest: RunManifest,
    /// How long it took, milliseconds.
    pub duration_ms: u64,
    /// Events in a second.
    pub events_per_s: u64,
}

struct Check {
    sequences: Table<()>,
    unknown_events: u64,
    scratch: Vec<u8>,
}

impl Check {
    /// The header has one spelling only; another would carry the same meaning under another hash.
    fn form(&mut self, event: &View<'_>) -> Result<(), Difference> {
        let Header::Bytes(bytes) = event.header else {
            return Ok(());
        };
        self.scratch.clear();
        let found = match EventHeader::decode(bytes) {
            Ok(header) => {
                header.encode(&mut self.scratch);
                if self.scratch == bytes {
                    return Ok(());
                }
                "another spelling of it".to_owned()
            }
            Err(error) => error.to_string(),
        };
        Err(Difference::new(
            event.position,
            What::Form,
            "the header in canonical form",
            found,
        ))
    }

    fn payload(&mut self, event: &View<'_>) -> Result<(), Difference> {
        let View {
            event_type,
            event_version,
            ..
        } = *event;
        // checked when the header was read
        let event_type = std::str::from_utf8(event_type).unwrap_or_default();
        let known = catalog::find(event_type, event_version).zip(EventType::parse(event_type));
        let Some((schema, known)) = known else {
            self.unknown_events += 1;
            return Ok(());
        };
        let schema_differs = |expected: String, found: String| {
            Err(Difference::new(
                event.position,
                What::Schema,
                expected,
                found,
            ))
        };
        if schema.fingerprint != event.schema_fingerprint {
            let hex = |bytes: [u8; 8]| format!("{:016x}", u64::from_be_bytes(bytes));
            return schema_differs(
                format!("fingerprint {}", hex(schema.fingerprint)),
                format!("fingerprint {}", hex(event.schema_fingerprint)),
            );
        }
        if known.aggregate_type().as_str().as_bytes() != event.aggregate_type {
            return schema_differs(
                format!("{known} of aggregate type {}", known.aggregate_type()),
                printable(event.aggregate_type),
            );
        }
        check::decodes(known.aggregate_type(), event)
            .map_err(|error| check::undecodable(event, &error))
    }
}

impl Visitor for Check {
    type Output = (u64, u64);

    fn visit(&mut self, events: &Own<'_>) -> Result<(), Difference> {
        for window in events.windows(WINDOW) {
            let found = self.sequences.find_window(window.aggregates(), |()| 0);
            for ((event, key), found) in window.events().zip(found) {
                self.form(&event)?;
                self.sequences.advance(found, key, &event, || Ok(()))?;
                self.payload(&event)?;
            }
        }
        Ok(())
    }

    fn finish(self) -> Self::Output {
        (self.sequences.len() as u64, self.unknown_events)
    }
}

/// Checks that a log is what it claims to be: positions are dense (I1), sequences are dense per
/// aggregate (I2), the chain holds (I3), headers are canonical, payloads decode with the schema
/// that their header names; and it meets `expectations`. A recorded file that is checked as a whole
/// must also be unchanged byte for byte. `progress` is told the last position read.
///
/// If the range does not start at position 1, each aggregate's sequence counts from the first one
/// seen.
///
/// # Errors
/// [`ReplayError::Difference`] names the first bad position, what was expected and what was found;
/// [`ReplayError::Log`] if the log cannot be read.
pub async fn verify(
    source: impl Into<Source<'_>>,
    range: Range,
    expectations: Expectations<'_>,
    options: Options,
    progress: &mut (dyn FnMut(Position) + Send),
) -> Result<VerifyReport, ReplayError> {
    let started = Instant::now();
    let mut source = source.into();
    let compared = expectations.copy.is_some();
    let mut heads: Vec<Head> = expectations.head.into_iter().collect();
    heads.extend(expectations.noted);
    let mut content = None;
    if let Source::File(file) = &source {
        let info = file.info();
        heads.push(Head {
            position: info.last,
            hash: info.last_hash,
        });
        let whole = range.first.is_none_or(|first| first <= info.first)
            && range.last.is_none_or(|last| last >= info.last);
        content = whole.then(|| file.content_check());
    }
    // beside the other threads if there are any, else after them
    let (running, waiting) = match content {
        Some(check) if options.threads > 1 => (Some(check.start()), None),
        other => (None, other),
    };
    let make = |first: Position| Check {
        sequences: Table::new(first != Position(1)),
        unknown_events: 0,
        scratch: Vec::with_capacity(256),
    };
    let compare = Compare {
        copy: expectations.copy,
        heads,
    };
    let previous = expectations.previous_hash;
    let done = run(
        &mut source,
        range,
        previous,
        options,
        compare,
        make,
        progress,
    )
    .await?;
    if let Some(check) = running.or_else(|| waiting.map(|check| check.start())) {
        check.join().await?;
    }
    let (first, head) = (done.first, done.head);
    let events = head.position.0 + 1 - first.0;
    let (duration_ms, events_per_s) = rate(events, started);
    Ok(VerifyReport {
        first,
        last: head.position,
        events,
        head,
        aggregates: done.outputs.iter().map(|(aggregates, _)| aggregates).sum(),
        unknown_events: done.outputs.iter().map(|(_, unknown)| unknown).sum(),
        compared,
        manifest: RunManifest::new(first, head.position, head.hash),
        duration_ms,
        events_per_s,
    })
}
