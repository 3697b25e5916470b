use crate::avro::{DecodeError, Reader, Wire};
use crate::{ErrorCode, Problem};

/// A command as an Avro record (`avro/CommandRecord.avsc`): the fields of one line of
/// `sovereign send`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CommandRecord {
    /// Kind of aggregate.
    pub aggregate: String,
    /// Which one.
    pub id: String,
    /// What it is asked to do.
    pub command: String,
    /// The command's own fields, as the text of one JSON object.
    pub data: String,
    /// Takes effect once.
    pub command_id: Option<String>,
    /// Whose topic carries the events.
    pub department: Option<String>,
    /// Who asks.
    pub actor: Option<String>,
    /// The sequence at which the caller believes the aggregate to stand.
    pub expected_sequence: Option<i64>,
    /// Ties together what one outside stimulus set off.
    pub correlation_id: Option<String>,
    /// The event that caused the command.
    pub causation_id: Option<String>,
    /// W3C trace context.
    pub traceparent: Option<String>,
    /// Whose key seals the texts.
    pub subject: Option<String>,
}

impl CommandRecord {
    /// Appends the Avro datum.
    pub fn encode(&self, out: &mut Vec<u8>) {
        for text in [&self.aggregate, &self.id, &self.command, &self.data] {
            text.put(out);
        }
        self.command_id.put(out);
        self.department.put(out);
        self.actor.put(out);
        self.expected_sequence.put(out);
        self.correlation_id.put(out);
        self.causation_id.put(out);
        self.traceparent.put(out);
        self.subject.put(out);
    }

    /// Reads exactly one datum.
    ///
    /// # Errors
    /// If the bytes are not exactly one.
    pub fn decode(datum: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Reader::new(datum);
        let record = Self {
            aggregate: Wire::take(&mut input)?,
            id: Wire::take(&mut input)?,
            command: Wire::take(&mut input)?,
            data: Wire::take(&mut input)?,
            command_id: Wire::take(&mut input)?,
            department: Wire::take(&mut input)?,
            actor: Wire::take(&mut input)?,
            expected_sequence: Wire::take(&mut input)?,
            correlation_id: Wire::take(&mut input)?,
            causation_id: Wire::take(&mut input)?,
            traceparent: Wire::take(&mut input)?,
            subject: Wire::take(&mut input)?,
        };
        input.finish()?;
        Ok(record)
    }

    /// The same command as one line of `sovereign send`. `data` goes in as it is, so that numbers
    /// keep their spelling.
    ///
    /// # Errors
    /// [`ErrorCode::MalformedJson`] if `data` is not one JSON value.
    ///
    /// # Examples
    /// ```
    /// use sovereign_schemas::CommandRecord;
    /// let record = CommandRecord {
    ///     aggregate: "agent".into(),
    ///     id: "scout".into(),
    ///     command: "register".into(),
    ///     data: "{\"role\": \"analyst\"}".into(),
    ///     ..CommandRecord::default()
    /// };
    /// let line = record.to_line().unwrap();
    /// let expected = r#"{"aggregate":"agent","id":"scout","command":"register","data":{"role": "analyst"}}"#;
    /// assert_eq!(line, expected);
    /// ```
    pub fn to_line(&self) -> Result<String, Problem> {
        // exactly one value: whoever writes `{}, "actor": "x"` cannot leave the field
        let one: Result<serde::de::IgnoredAny, _> = serde_json::from_str(&self.data);
        if let Err(error) = one {
            let message = format!("is not JSON at column {}", error.column());
            return Err(Problem::new(ErrorCode::MalformedJson, message)
                .field("data")
                .expected("the text of one JSON object"));
        }
        let text = |text: &str| serde_json::Value::from(text).to_string();
        let mut line = format!(
            "{{\"aggregate\":{},\"id\":{},\"command\":{},\"data\":{}",
            text(&self.aggregate),
            text(&self.id),
            text(&self.command),
            self.data
        );
        for (name, value) in [
            ("command_id", &self.command_id),
            ("department", &self.department),
            ("actor", &self.actor),
            ("correlation_id", &self.correlation_id),
            ("causation_id", &self.causation_id),
            ("traceparent", &self.traceparent),
            ("subject", &self.subject),
        ] {
            if let Some(value) = value {
                line.push_str(&format!(",\"{name}\":{}", text(value)));
            }
        }
        if let Some(sequence) = self.expected_sequence {
            line.push_str(&format!(",\"expected_sequence\":{sequence}"));
        }
        line.push('}');
        Ok(line)
    }
}

#[cfg(test)]
mod tests {
    use apache_avro::reader::datum::GenericDatumReader;
    use apache_avro::types::Value;

    use super::*;

    fn record(data: &str) -> CommandRecord {
        CommandRecord {
            aggregate: "agent".into(),
            id: "a \"quoted\" id".into(),
            command: "record_thought".into(),
            data: data.into(),
            command_id: Some("c-1".into()),
            expected_sequence: Some(7),
            ..CommandRecord::default()
        }
    }

    #[test]
    fn a_record_is_read_back_and_nothing_may_be_left_over() {
        let record = record("{}");
        let mut datum = Vec::new();
        record.encode(&mut datum);
        assert_eq!(CommandRecord::decode(&datum), Ok(record));
        assert!(CommandRecord::decode(&datum[..datum.len() - 1]).is_err());
        datum.push(0);
        assert!(CommandRecord::decode(&datum).is_err());
    }

    #[test]
    fn the_codec_is_that_of_the_schema() {
        let schema = apache_avro::Schema::parse_str(crate::catalog::COMMAND_SCHEMA).unwrap();
        let record = record("{\"text\": \"x\"}");
        let mut datum = Vec::new();
        record.encode(&mut datum);
        let reader = GenericDatumReader::builder(&schema).build().unwrap();
        let read = reader.read_value(&mut datum.as_slice()).unwrap();
        let Value::Record(fields) = &read else {
            panic!("no record")
        };
        let text = |at: usize| (fields[at].0.as_str(), fields[at].1.clone());
        assert_eq!(text(3), ("data", Value::String(record.data)));
        let union = |value| Value::Union(1, Box::new(value));
        assert_eq!(text(4), ("command_id", union(Value::String("c-1".into()))));
        assert_eq!(text(7), ("expected_sequence", union(Value::Long(7))));
        assert_eq!(
            text(11),
            ("subject", Value::Union(0, Box::new(Value::Null)))
        );
    }

    #[test]
    fn a_line_holds_what_is_there_and_data_cannot_leave_its_field() {
        let line = record("{\"price\": 1.10}").to_line().unwrap();
        assert!(line.contains("\"data\":{\"price\": 1.10}"), "{line}");
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["id"], "a \"quoted\" id");
        assert_eq!(value["expected_sequence"], 7);
        assert!(value.get("actor").is_none());
        for bad in ["", "{", "{}, \"actor\": \"root\"", "{}}"] {
            let problem = record(bad).to_line().unwrap_err();
            assert_eq!(problem.field.as_deref(), Some("data"), "{bad}");
        }
    }
}
