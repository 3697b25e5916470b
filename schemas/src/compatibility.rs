//! Schema evolution as the Confluent registry defines it.

use apache_avro::Schema;
use apache_avro::schema_compatibility::{Compatibility as Resolution, SchemaCompatibility};

/// What a new version of a subject must be able to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Compatibility {
    /// Anything goes.
    None,
    /// The new version reads data of the last.
    Backward,
    /// The new version reads data of all.
    BackwardTransitive,
    /// The last version reads data of the new.
    Forward,
    /// All versions read data of the new.
    ForwardTransitive,
    /// Both ways with the last.
    Full,
    /// Both ways with all.
    FullTransitive,
}

impl Compatibility {
    /// Checks `candidate` against the registered versions, oldest first.
    ///
    /// # Errors
    /// What does not fit, and with which version (1-based).
    pub fn check(self, candidate: &str, registered: &[String]) -> Result<(), String> {
        use Compatibility::{
            Backward, BackwardTransitive, Forward, ForwardTransitive, Full, FullTransitive, None,
        };
        let backward = matches!(self, Backward | BackwardTransitive | Full | FullTransitive);
        let forward = matches!(self, Forward | ForwardTransitive | Full | FullTransitive);
        let transitive = matches!(
            self,
            BackwardTransitive | ForwardTransitive | FullTransitive
        );
        if self == None {
            return parse(candidate).map(|_| ());
        }
        let skip = if transitive {
            0
        } else {
            registered.len().saturating_sub(1)
        };
        for (index, old) in registered.iter().enumerate().skip(skip) {
            let with = |e: String| format!("version {}: {e}", index + 1);
            if backward {
                can_read(candidate, old).map_err(with)?;
            }
            if forward {
                can_read(old, candidate).map_err(with)?;
            }
        }
        parse(candidate).map(|_| ())
    }
}

fn parse(schema: &str) -> Result<Schema, String> {
    Schema::parse_str(schema).map_err(|e| e.to_string())
}

/// Whether `reader` can read what `writer` wrote.
///
/// # Errors
/// Why not, in words.
pub fn can_read(reader: &str, writer: &str) -> Result<(), String> {
    let (reader, writer) = (parse(reader)?, parse(writer)?);
    match SchemaCompatibility::can_read(&writer, &reader).map_err(|e| e.to_string())? {
        Resolution::Full => Ok(()),
        Resolution::Partial => Err("only part of the data could be read".to_owned()),
    }
}

/// The schema as the registry stores and compares it: parsed and written again without blanks.
///
/// # Errors
/// The parser's message, if the text is no Avro schema.
pub fn normalized(schema: &str) -> Result<String, String> {
    parse(schema)?;
    let value: serde_json::Value = serde_json::from_str(schema).map_err(|e| e.to_string())?;
    Ok(value.to_string())
}

/// The full name of a named schema; `None` for a primitive.
#[must_use]
pub fn full_name(schema: &str) -> Option<String> {
    let parsed = parse(schema).ok()?;
    parsed.name().map(|n| n.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_compatible_from_incompatible() {
        let record =
            |fields: &str| format!(r#"{{"type":"record","name":"R","fields":[{fields}]}}"#);
        let one = record(r#"{"name":"a","type":"string"}"#);
        let with_default = record(
            r#"{"name":"a","type":"string"},{"name":"b","type":["null","int"],"default":null}"#,
        );
        let without = record(r#"{"name":"a","type":"string"},{"name":"b","type":"int"}"#);
        let wider = record(r#"{"name":"a","type":["null","string"]}"#);
        assert_eq!(can_read(&with_default, &one), Ok(()));
        assert_eq!(can_read(&one, &with_default), Ok(()));
        assert!(can_read(&without, &one).is_err());
        assert_eq!(can_read(&wider, &one), Ok(()));
        assert!(can_read(&one, &wider).is_err());
        let all = [one.clone()];
        assert!(Compatibility::Backward.check(&without, &all).is_err());
        assert_eq!(Compatibility::None.check(&without, &all), Ok(()));
        assert_eq!(Compatibility::Forward.check(&without, &all), Ok(()));
    }
}
