//! From a row to an event of ours, through the guard.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use sovereign_aggregates::AnyEvent;
use sovereign_guard::admit;
use sovereign_guard::scrub::{Label, Scrubber};
use sovereign_schemas::avro::{self, EventGroup as _};
use sovereign_schemas::events::{
    AgentEvent, ApprovalEvent, ApproverEvent, ForeignRecorded, ImportedEvent, JobEvent,
    PolicyEvent, SchedulesEvent, TradeEvent,
};
use sovereign_schemas::{
    AggregateId, AggregateType, DepartmentId, Departments, ErrorCode, IdError, Intake, Problem,
    RawText, Text, Uuid,
};

use super::json;
use super::known::Key;
use super::source::Row;
use crate::KeyStore;

/// Longest name of a foreign aggregate type, event type or version, in characters.
const NAME_CHARACTERS_MAX: usize = 128;

/// Where the rows of one source aggregate go.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) aggregate_type: AggregateType,
    pub(super) aggregate_id: AggregateId,
}

impl Target {
    pub(super) fn key(&self) -> Key {
        (self.aggregate_type, self.aggregate_id.as_str().to_owned())
    }
}

/// A free text on its way in: words, or as another ledger had sealed them.
#[derive(Debug)]
enum SourceText {
    Words(RawText),
    Sealed(Text),
}

/// What the rows hold besides events.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) secrets: BTreeMap<String, u64>,
    pub(super) metadata_left_out: u64,
}

impl Tally {
    fn secret(&mut self, label: Label) {
        *self.secrets.entry(label.as_str().to_owned()).or_default() += 1;
    }
}

/// Turns rows into events.
#[derive(Debug)]
pub(super) struct Taker {
    scrubber: Scrubber,
    keys: KeyStore,
    departments: Departments,
    /// Source types that are foreign although their names are ours.
    foreign: Vec<String>,
    foreign_department: DepartmentId,
}

impl Taker {
    pub(super) fn new(
        keys: KeyStore,
        departments: Departments,
        foreign: Vec<String>,
        foreign_department: DepartmentId,
    ) -> Self {
        Self {
            scrubber: Scrubber::standard(),
            keys,
            departments,
            foreign,
            foreign_department,
        }
    }

    /// Whether rows of this source type are events of ours.
    pub(super) fn native(&self, source_type: &str) -> Option<AggregateType> {
        let kind: AggregateType = source_type.parse().ok()?;
        // somebody else's policy says nothing about what may happen here, nor do his passkeys, and
        // his jobs are his
        let history = matches!(
            kind,
            AggregateType::Imported
                | AggregateType::Policy
                | AggregateType::Approver
                | AggregateType::Job
                | AggregateType::Schedules
        );
        let foreign = history || self.foreign.iter().any(|f| f == source_type);
        (!foreign).then_some(kind)
    }

    /// What a report may show of an id.
    pub(super) fn shown(&self, text: &str) -> String {
        let clean = self.scrubber.scrub(text).into_text();
        let visible = clean.chars().take(128);
        visible
            .map(|c| if c.is_control() { '?' } else { c })
            .collect()
    }

    /// # Errors
    /// If the aggregate can have no place in the ledger.
    pub(super) fn target(&self, row: &Row) -> Result<Target, Problem> {
        let (kind, id) = (&row.aggregate_type, &row.aggregate_id);
        if let Some(aggregate_type) = self.native(kind) {
            self.name(id).map_err(|p| p.field("aggregate_id"))?;
            let aggregate_id = id.parse().map_err(|e: IdError| {
                Problem::new(ErrorCode::InvalidId, e.to_string()).field("aggregate_id")
            })?;
            return Ok(Target {
                aggregate_type,
                aggregate_id,
            });
        }
        self.foreign_name("aggregate_type", kind)?;
        // a slash in the type would make two aggregates one; a name that is personal or secret must
        // not become the key of records
        let plain = format!("{kind}/{id}").parse::<AggregateId>().ok();
        let plain = plain.filter(|_| !kind.contains('/') && self.harmless(id));
        let aggregate_id = match plain {
            Some(id) => id,
            None => {
                let name = self.keys.pseudonym(&[kind.as_bytes(), id.as_bytes()]);
                format!("hmac-{name}")
                    .parse()
                    .map_err(|e: IdError| Problem::new(ErrorCode::Internal, e.to_string()))?
            }
        };
        Ok(Target {
            aggregate_type: AggregateType::Imported,
            aggregate_id,
        })
    }

    fn harmless(&self, name: &str) -> bool {
        self.scrubber.scrub(name).findings().is_empty()
    }

    fn name(&self, name: &str) -> Result<(), Problem> {
        admit::check_identifier(&self.scrubber, "", name)
    }

    fn foreign_name(&self, field: &str, name: &str) -> Result<(), Problem> {
        let count = name.chars().count();
        if count == 0 || count > NAME_CHARACTERS_MAX || name.chars().any(char::is_control) {
            return Err(Problem::new(ErrorCode::InvalidId, "is no name")
                .field(field)
                .found(format!("{count} characters"))
                .expected(format!(
                    "1 to {NAME_CHARACTERS_MAX} characters, none of them a control character"
                )));
        }
        admit::check_identifier(&self.scrubber, field, name)
    }

    /// Looks whether a row can be taken, and writes nothing.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) async fn check(
        &self,
        row: &Row,
        target: &Target,
        tally: &mut Tally,
    ) -> Result<(), Problem> {
        if target.aggregate_type == AggregateType::Imported {
            let mut found = |label| tally.secret(label);
            for text in self.foreign_texts(row, &mut found)? {
                admit::clean(&self.scrubber, &text)?;
            }
            return Ok(());
        }
        let (_, texts) = self.native_event(row, target, None)?;
        for text in texts {
            let words = self.words(text).await?;
            let (_, findings) = admit::clean_with_findings(&self.scrubber, &words)?;
            findings.iter().for_each(|f| tally.secret(f.label));
        }
        if row.metadata.trim() != "{}" && row.metadata.trim() != "null" {
            tally.metadata_left_out += 1;
        }
        Ok(())
    }

    /// Takes a row for good: its texts are sealed under keys of their own.
    ///
    /// # Errors
    /// As [`Self::check`], or if the database of the keys fails.
    pub(super) async fn take(&self, row: &Row, target: &Target) -> Result<AnyEvent, Problem> {
        let id = target.aggregate_id.as_str();
        if target.aggregate_type == AggregateType::Imported {
            let texts = self.foreign_texts(row, &mut |_| ())?;
            let seal = self.seals(self.foreign_department)?;
            let mut texts = self.admit(texts, id, seal).await?.into_iter();
            let mut next = || {
                let lost = || Problem::new(ErrorCode::Internal, "a text was lost");
                texts.next().ok_or_else(lost)
            };
            let event = ForeignRecorded {
                source_type: row.aggregate_type.clone(),
                source_id: next()?,
                source_sequence: row.sequence,
                event_type: row.event_type.clone(),
                event_version: row.event_version.clone(),
                payload: next()?,
                metadata: next()?,
            };
            return Ok(AnyEvent::Imported(ImportedEvent::from(event)));
        }
        let (event, texts) = self.native_event(row, target, None)?;
        if texts.is_empty() {
            return Ok(event);
        }
        let subject = match &event {
            AnyEvent::Trade(TradeEvent::TradeProposed(e)) => e.agent_id.clone(),
            AnyEvent::Approval(ApprovalEvent::ApprovalDenied(e)) => e.denied_by.clone(),
            _ => id.to_owned(),
        };
        let mut words = Vec::with_capacity(texts.len());
        for text in texts {
            words.push(self.words(text).await?);
        }
        let seal = self.seals(event.default_department())?;
        let admitted = self.admit(words, &subject, seal).await?;
        Ok(self.native_event(row, target, Some(admitted))?.0)
    }

    /// The department of an event.
    pub(super) fn department(&self, event: &AnyEvent) -> DepartmentId {
        match event {
            AnyEvent::Imported(_) => self.foreign_department,
            event => event.default_department(),
        }
    }

    fn seals(&self, department: DepartmentId) -> Result<bool, Problem> {
        let found = self.departments.get(department).ok_or_else(|| {
            Problem::new(ErrorCode::UnknownDepartment, "no such department")
                .field("department")
                .found(department.to_string())
        })?;
        Ok(found.seal)
    }

    async fn admit(
        &self,
        words: Vec<RawText>,
        subject: &str,
        seal: bool,
    ) -> Result<Vec<Text>, Problem> {
        let clean: Result<Vec<_>, Problem> = words
            .iter()
            .map(|w| admit::clean(&self.scrubber, w))
            .collect();
        let clean = clean?;
        if !seal {
            return Ok(clean.into_iter().map(admit::plain).collect());
        }
        let leaves = self.keys.leaves(subject, clean.len()).await;
        let leaves = leaves.map_err(|e| e.problem())?;
        let sealed = clean.iter().zip(&leaves).map(|(text, leaf)| {
            admit::sealed(text, leaf).map_err(|e| Problem::new(ErrorCode::Internal, e.to_string()))
        });
        sealed.collect()
    }

    /// Id, payload and metadata, the latter two scrubbed as JSON.
    fn foreign_texts(
        &self,
        row: &Row,
        found: &mut impl FnMut(Label),
    ) -> Result<Vec<RawText>, Problem> {
        self.foreign_name("event_type", &row.event_type)?;
        self.foreign_name("event_version", &row.event_version)?;
        let scrubbed = self.scrubber.scrub(&row.aggregate_id);
        let mut texts = vec![RawText::new(scrubbed.into_text())];
        for (field, json) in [("payload", &row.payload), ("metadata", &row.metadata)] {
            let text = json::scrub(&self.scrubber, json, found).map_err(|p| p.field(field))?;
            texts.push(RawText::new(text));
        }
        Ok(texts)
    }

    fn native_event(
        &self,
        row: &Row,
        target: &Target,
        texts: Option<Vec<Text>>,
    ) -> Result<(AnyEvent, Vec<SourceText>), Problem> {
        let version: u16 = row.event_version.trim().parse().map_err(|_| {
            Problem::new(ErrorCode::WrongType, "is no version of an event")
                .field("event_version")
                .expected("a number from 1 to 65535")
        })?;
        let payload: Value = serde_json::from_str(&row.payload)
            .map_err(|_| Problem::new(ErrorCode::MalformedJson, "is not JSON").field("payload"))?;
        let mut looking = Looking {
            taker: self,
            found: Vec::new(),
            texts: texts.map(Vec::into_iter),
        };
        let kind = &row.event_type;
        let event = match target.aggregate_type {
            AggregateType::Agent => {
                AgentEvent::from_json(kind, version, payload, &mut looking).map(AnyEvent::Agent)
            }
            AggregateType::Trade => {
                TradeEvent::from_json(kind, version, payload, &mut looking).map(AnyEvent::Trade)
            }
            AggregateType::Approval => {
                ApprovalEvent::from_json(kind, version, payload, &mut looking)
                    .map(AnyEvent::Approval)
            }
            AggregateType::Policy => {
                PolicyEvent::from_json(kind, version, payload, &mut looking).map(AnyEvent::Policy)
            }
            AggregateType::Approver => {
                ApproverEvent::from_json(kind, version, payload, &mut looking)
                    .map(AnyEvent::Approver)
            }
            AggregateType::Job => {
                JobEvent::from_json(kind, version, payload, &mut looking).map(AnyEvent::Job)
            }
            AggregateType::Schedules => {
                SchedulesEvent::from_json(kind, version, payload, &mut looking)
                    .map(AnyEvent::Schedules)
            }
            AggregateType::Imported => {
                ImportedEvent::from_json(kind, version, payload, &mut looking)
                    .map(AnyEvent::Imported)
            }
        };
        let event = event.map_err(|problem| match &problem.field {
            Some(field) => {
                let field = format!("payload.{field}");
                problem.field(field)
            }
            None => problem.field("payload"),
        })?;
        if event.creates() != (row.sequence == 1) {
            let problem = Problem::new(ErrorCode::WrongState, "does not fit the history")
                .field("event_type")
                .found(kind);
            return Err(if event.creates() {
                problem.expected("this event as the first one only")
            } else {
                problem.expected("the event that creates the aggregate")
            });
        }
        Ok((event, looking.found))
    }

    /// The words of a text; of a sealed one only with its key, which must be ours.
    async fn words(&self, text: SourceText) -> Result<RawText, Problem> {
        match text {
            SourceText::Words(words) => Ok(words),
            SourceText::Sealed(text) => {
                let words = self.keys.reveal(&text).await.map_err(|e| e.problem())?;
                Ok(RawText::new(words))
            }
        }
    }
}

/// Collects the texts of an event, or puts admitted ones in their place.
struct Looking<'a> {
    taker: &'a Taker,
    found: Vec<SourceText>,
    texts: Option<std::vec::IntoIter<Text>>,
}

impl Intake for Looking<'_> {
    fn text(&mut self, value: Value) -> Result<Text, Problem> {
        if let Some(texts) = &mut self.texts {
            let lost = || Problem::new(ErrorCode::Internal, "a text was lost");
            return texts.next().ok_or_else(lost);
        }
        self.found.push(source_text(value)?);
        let nothing = admit::clean(&self.taker.scrubber, &RawText::new(""))?;
        Ok(admit::plain(nothing))
    }

    fn name(&mut self, name: &str) -> Result<(), Problem> {
        name.parse::<AggregateId>()
            .map_err(|e| Problem::new(ErrorCode::InvalidId, e.to_string()))?;
        admit::check_identifier(&self.taker.scrubber, "name", name).map_err(|mut problem| {
            problem.field = None;
            problem
        })
    }
}

/// A text as it serialises.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TextJson {
    key_id: Uuid,
    index: u64,
    nonce: String,
    bytes: String,
}

fn source_text(value: Value) -> Result<SourceText, Problem> {
    let wrong = || {
        Problem::new(ErrorCode::WrongType, "is no text")
            .expected("key_id, index, and nonce and bytes in hexadecimal digits")
    };
    let TextJson {
        key_id,
        index,
        nonce,
        bytes,
    } = serde_json::from_value(value).map_err(|_| wrong())?;
    let (nonce, bytes) = (
        unhex(&nonce).ok_or_else(wrong)?,
        unhex(&bytes).ok_or_else(wrong)?,
    );
    if key_id.is_nil() {
        let words = String::from_utf8(bytes)
            .map_err(|_| Problem::new(ErrorCode::InvalidText, "text is not utf-8"))?;
        return Ok(SourceText::Words(RawText::new(words)));
    }
    // the form in which a ledger would have recorded it
    let mut datum = key_id.as_bytes().to_vec();
    avro::put_long(&mut datum, i64::try_from(index).map_err(|_| wrong())?);
    if nonce.len() != 12 {
        return Err(wrong());
    }
    datum.extend_from_slice(&nonce);
    avro::put_bytes(&mut datum, &bytes);
    Ok(SourceText::Sealed(avro::decode(&datum)?))
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) {
        return None;
    }
    let digits: Option<Vec<u8>> = text
        .chars()
        .map(|c| c.to_digit(16).map(|d| d as u8))
        .collect();
    Some(
        digits?
            .chunks(2)
            .map(|pair| pair[0] << 4 | pair[1])
            .collect(),
    )
}
