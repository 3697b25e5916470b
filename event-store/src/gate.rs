//! The way in: a line of JSON becomes a command whose texts went through the guard.

use std::sync::Arc;

use serde_json::{Map, Value};
use sovereign_aggregates::trade::TradeCommand;
use sovereign_aggregates::{AnyCommand, CommandRequest};
use sovereign_guard::admit::{self, CleanText};
use sovereign_guard::scrub::Scrubber;
use sovereign_schemas::{
    AggregateId, AggregateType, CommandContext, DepartmentId, Departments, ErrorCode, IMPORT_ACTOR,
    IdError, Identifier, Problem, RawText, Text, Uuid, command_id_from_text,
};

use crate::KeyStore;

/// A command that was understood, before the guard.
#[derive(Debug, Clone)]
pub struct RawCommand {
    /// Which aggregate.
    pub aggregate_id: AggregateId,
    /// What it is asked to do.
    pub command: AnyCommand<RawText>,
    /// Who asks, why, under which id.
    pub context: CommandContext,
    /// The version the caller expects, if it does.
    pub expected_sequence: Option<u64>,
    /// Whose key seals the texts; by default the agent's, else the actor's.
    pub subject: Option<AggregateId>,
    /// What it came in, if that has an id of its own.
    pub source: Option<Uuid>,
}

/// Scrubs, seals and checks. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Gate {
    scrubber: Arc<Scrubber>,
    departments: Departments,
    keys: KeyStore,
}

/// Longest line: a text of the greatest length, spelled with escapes, fits.
const LINE_BYTES_MAX: usize = 2 << 20;

const FIELDS: &[&str] = &[
    "aggregate",
    "id",
    "command",
    "data",
    "command_id",
    "department",
    "actor",
    "expected_sequence",
    "correlation_id",
    "causation_id",
    "traceparent",
    "subject",
];

impl Gate {
    /// A gate for these departments.
    #[must_use]
    pub fn new(departments: Departments, keys: KeyStore) -> Self {
        Self {
            scrubber: Arc::new(Scrubber::standard()),
            departments,
            keys,
        }
    }

    /// The key store behind it.
    #[must_use]
    pub const fn keys(&self) -> &KeyStore {
        &self.keys
    }

    /// A text as it would be let into an event: what looks like a secret is taken out.
    #[must_use]
    pub fn scrub(&self, text: &str) -> String {
        self.scrubber.scrub(text).into_text()
    }

    /// Understands one line, and says under which id the caller knows the command, if it gave one
    /// that could be read.
    ///
    /// # Errors
    /// Which field is wrong, what was expected, what was found; never the value of a text.
    pub fn parse(&self, line: &[u8]) -> (Option<String>, Result<RawCommand, Problem>) {
        self.parse_or(line, Uuid::now_v7)
    }

    /// The same of what came in something with an id of its own, such as a record: that is also
    /// the command's id, if the caller gave none.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn parse_from(
        &self,
        line: &[u8],
        source: Uuid,
    ) -> (Option<String>, Result<RawCommand, Problem>) {
        let (id, parsed) = self.parse_or(line, || source);
        let parsed = parsed.map(|raw| RawCommand {
            source: Some(source),
            ..raw
        });
        (id, parsed)
    }

    fn parse_or(
        &self,
        line: &[u8],
        command_id: impl FnOnce() -> Uuid,
    ) -> (Option<String>, Result<RawCommand, Problem>) {
        if line.len() > LINE_BYTES_MAX {
            let problem = Problem::new(ErrorCode::LineTooLong, "line is too long")
                .found(format!("{} bytes", line.len()))
                .expected(format!("at most {LINE_BYTES_MAX} bytes"));
            return (None, Err(problem));
        }
        match serde_json::from_slice(line) {
            Ok(object) => self.parse_object_or(object, command_id),
            Err(error) => (None, Err(malformed(line, &error))),
        }
    }

    /// As [`Self::parse`], of a line that was read already.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn parse_object(
        &self,
        object: Map<String, Value>,
    ) -> (Option<String>, Result<RawCommand, Problem>) {
        self.parse_object_or(object, Uuid::now_v7)
    }

    fn parse_object_or(
        &self,
        object: Map<String, Value>,
        command_id: impl FnOnce() -> Uuid,
    ) -> (Option<String>, Result<RawCommand, Problem>) {
        let told = object.get("command_id").and_then(Value::as_str).map(told);
        match self.understand(object, command_id) {
            Ok(raw) => {
                let id = told.unwrap_or_else(|| raw.context.command_id.to_string());
                (Some(id), Ok(raw))
            }
            Err(problem) => (told, Err(problem)),
        }
    }

    fn understand(
        &self,
        mut object: Map<String, Value>,
        command_id: impl FnOnce() -> Uuid,
    ) -> Result<RawCommand, Problem> {
        if let Some(unknown) = object.keys().find(|k| !FIELDS.contains(&k.as_str())) {
            return Err(Problem::new(ErrorCode::UnknownField, "no such field")
                .field(unknown.chars().take(80).collect::<String>())
                .expected(FIELDS.join(", ")));
        }
        let aggregate = required(&object, "aggregate")?.to_owned();
        // an unknown aggregate or command is named before anything else that may be wrong
        let kind: AggregateType = aggregate.parse()?;
        let name = required(&object, "command")?.to_owned();
        let aggregate_id: AggregateId = id("id", required(&object, "id")?)?;
        let data = object
            .remove("data")
            .unwrap_or_else(|| Value::Object(Map::new()));
        let command = AnyCommand::parse(&aggregate, &name, data)?;
        let actor = match optional(&object, "actor")? {
            Some(actor) if actor == IMPORT_ACTOR => {
                return Err(Problem::new(ErrorCode::InvalidId, "is reserved")
                    .field("actor")
                    .found(actor));
            }
            Some(actor) => id("actor", actor)?,
            None => default_actor(kind, &aggregate_id),
        };
        let department = self.department(&object, &command)?;
        let subject = optional(&object, "subject")?
            .map(|s| id("subject", s))
            .transpose()?;
        let command_id = match optional(&object, "command_id")? {
            None => command_id(),
            Some(text) => command_id_from_text(text).ok_or_else(|| {
                Problem::new(ErrorCode::InvalidId, "is empty or too long")
                    .field("command_id")
                    .expected("a UUID, or any text of 1 to 200 bytes")
            })?,
        };
        let correlation_id = uuid(&object, "correlation_id")?.unwrap_or(command_id);
        let causation_id = uuid(&object, "causation_id")?;
        let traceparent = trace(&object)?;
        let expected_sequence = sequence(&object)?;
        let context = CommandContext {
            command_id,
            actor,
            department,
            correlation_id,
            causation_id,
            traceparent,
        };
        Ok(RawCommand {
            aggregate_id,
            command,
            context,
            expected_sequence,
            subject,
            source: None,
        })
    }

    fn department(
        &self,
        object: &Map<String, Value>,
        command: &AnyCommand<RawText>,
    ) -> Result<DepartmentId, Problem> {
        match object.get("department") {
            None | Some(Value::Null) => Ok(command.default_department()),
            Some(Value::String(name)) => Ok(self.departments.find(name)?.id),
            Some(Value::Number(number)) => Ok(self.departments.find(&number.to_string())?.id),
            Some(other) => Err(wrong_type("department", "a name or a number", other)),
        }
    }

    /// Takes a command through the guard: ids must not look sensitive; texts are scrubbed, then
    /// sealed unless their department does not seal.
    ///
    /// # Errors
    /// What the guard refuses, or why a key cannot be had.
    pub async fn admit(&self, raw: RawCommand) -> Result<CommandRequest, Problem> {
        let RawCommand {
            aggregate_id,
            command,
            context,
            expected_sequence,
            subject,
            source,
        } = raw;
        let mut identifiers = vec![
            ("id", aggregate_id.as_str()),
            ("actor", context.actor.as_str()),
        ];
        identifiers.extend(subject.as_ref().map(|s| ("subject", s.as_str())));
        identifiers.extend(command.identifiers());
        for (field, value) in identifiers {
            admit::check_identifier(&self.scrubber, field, value)?;
        }
        let Some(department) = self.departments.get(context.department) else {
            return Err(
                Problem::new(ErrorCode::UnknownDepartment, "no such department")
                    .field("department")
                    .found(context.department.to_string()),
            );
        };
        let subject = subject.unwrap_or_else(|| default_subject(&aggregate_id, &command, &context));
        let mut texts = 0;
        let command = command.try_map_text(|raw| {
            texts += 1;
            admit::clean(&self.scrubber, &raw).map_err(|p| p.field("data"))
        })?;
        let mut alike = None;
        let mut command = if department.seal && texts > 0 {
            self.seal(command, subject.as_str(), texts, &mut alike)
                .await?
        } else {
            command.try_map_text(|text| {
                alike = Some(admit::likeness_of(&text, None));
                Ok::<Text, Problem>(admit::plain(text))
            })?
        };
        // commands that bear one have a single text
        if let (Some(to), Some(alike)) = (command.likeness_mut(), alike) {
            *to = alike.to_vec();
        }
        Ok(CommandRequest {
            aggregate_id,
            command,
            context,
            expected_sequence,
            source,
        })
    }

    async fn seal(
        &self,
        command: AnyCommand<CleanText>,
        subject: &str,
        texts: usize,
        alike: &mut Option<[u8; 8]>,
    ) -> Result<AnyCommand, Problem> {
        let leaves = self
            .keys
            .leaves(subject, texts)
            .await
            .map_err(|e| e.problem())?;
        let mut leaves = leaves.into_iter();
        command.try_map_text(|text| {
            let leaf = leaves.next().ok_or_else(|| {
                Problem::new(ErrorCode::Internal, "fewer keys than texts were reserved")
            })?;
            *alike = Some(admit::likeness_of(&text, Some(&leaf)));
            admit::sealed(&text, &leaf)
                .map_err(|e| Problem::new(ErrorCode::Internal, e.to_string()))
        })
    }
}

/// The caller's own id, for its outcome; one that is too long to be an id is cut, not repeated.
fn told(id: &str) -> String {
    if id.len() <= 200 {
        return id.to_owned();
    }
    id.chars().take(80).chain(['…']).collect()
}

fn default_actor(kind: AggregateType, aggregate_id: &AggregateId) -> Identifier {
    let own = (kind == AggregateType::Agent)
        .then(|| aggregate_id.as_str().parse().ok())
        .flatten();
    own.unwrap_or_else(client)
}

fn client() -> Identifier {
    #[allow(clippy::expect_used)]
    "client".parse().expect("six letters are an identifier")
}

fn default_subject(
    aggregate_id: &AggregateId,
    command: &AnyCommand<RawText>,
    context: &CommandContext,
) -> AggregateId {
    match command {
        AnyCommand::Agent(_) | AnyCommand::Imported(_) => aggregate_id.clone(),
        AnyCommand::Trade(TradeCommand::Propose(propose)) => propose.agent_id.clone(),
        // every identifier is an aggregate id as well: same characters, fewer of them
        _ => context
            .actor
            .as_str()
            .parse()
            .unwrap_or_else(|_| aggregate_id.clone()),
    }
}

fn malformed(line: &[u8], error: &serde_json::Error) -> Problem {
    if let Err(utf8) = std::str::from_utf8(line) {
        let at = utf8.valid_up_to();
        return Problem::new(ErrorCode::MalformedJson, format!("not utf-8 at byte {at}"));
    }
    if error.is_data() {
        return Problem::new(ErrorCode::MalformedJson, "not a JSON object")
            .expected("{\"aggregate\":…,\"id\":…,\"command\":…,\"data\":{…}}");
    }
    let what = if error.is_eof() {
        "ends inside a value"
    } else {
        "is not JSON"
    };
    Problem::new(
        ErrorCode::MalformedJson,
        format!("{what} at column {}", error.column()),
    )
}

fn wrong_type(field: &str, expected: &str, found: &Value) -> Problem {
    let found = match found {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    };
    Problem::new(ErrorCode::WrongType, "field has the wrong type")
        .field(field)
        .expected(expected)
        .found(found)
}

fn optional<'a>(object: &'a Map<String, Value>, field: &str) -> Result<Option<&'a str>, Problem> {
    match object.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(wrong_type(field, "a string", other)),
    }
}

fn required<'a>(object: &'a Map<String, Value>, field: &str) -> Result<&'a str, Problem> {
    optional(object, field)?
        .ok_or_else(|| Problem::new(ErrorCode::MissingField, "field is missing").field(field))
}

fn id<T: std::str::FromStr<Err = IdError>>(field: &str, text: &str) -> Result<T, Problem> {
    text.parse()
        .map_err(|e: IdError| Problem::new(ErrorCode::InvalidId, e.to_string()).field(field))
}

fn uuid(object: &Map<String, Value>, field: &str) -> Result<Option<Uuid>, Problem> {
    let Some(text) = optional(object, field)? else {
        return Ok(None);
    };
    Uuid::try_parse(text).map(Some).map_err(|_| {
        Problem::new(ErrorCode::InvalidId, "is no UUID")
            .field(field)
            .expected("a UUID")
    })
}

fn trace(object: &Map<String, Value>) -> Result<Option<String>, Problem> {
    let Some(text) = optional(object, "traceparent")? else {
        return Ok(None);
    };
    let hex = |part: &str, n: usize| {
        part.len() == n
            && part
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let parts: Vec<&str> = text.split('-').collect();
    let valid = matches!(parts.as_slice(), [v, t, s, f]
        if hex(v, 2) && hex(t, 32) && hex(s, 16) && hex(f, 2) && *v != "ff");
    if !valid {
        return Err(Problem::new(ErrorCode::WrongType, "is no W3C traceparent")
            .field("traceparent")
            .expected("00-<32 hex>-<16 hex>-<2 hex>"));
    }
    Ok(Some(text.to_owned()))
}

fn sequence(object: &Map<String, Value>) -> Result<Option<u64>, Problem> {
    match object.get("expected_sequence") {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value
            .as_u64()
            .map(Some)
            .ok_or_else(|| wrong_type("expected_sequence", "a whole number from 0", value)),
    }
}
