//! Events from their JSON, as `cqrs-es` stores write it: for bringing in what another store holds.
//!
//! serde alone would not do: free text may become [`Text`] only in the guard, and names travel
//! unsealed, so whoever takes events in sees both, one by one, through [`Intake`].

use serde_json::{Map, Value};

use crate::{Date, Decimal, Digest, ErrorCode, Problem, Text, Timestamp, Uuid};

/// Decides what becomes of the texts and names of an event that comes in.
pub trait Intake {
    /// A free text, as `Text` serialises: an object of `key_id`, `index`, `nonce` and `bytes`.
    ///
    /// # Errors
    /// Why it cannot be taken.
    fn text(&mut self, value: Value) -> Result<Text, Problem>;

    /// An id or a short code, which travels unsealed.
    ///
    /// # Errors
    /// Why it cannot be taken.
    fn name(&mut self, name: &str) -> Result<(), Problem>;
}

/// A value of an event, read from JSON.
pub trait FromJson: Sized {
    /// Reads one value.
    ///
    /// # Errors
    /// What is wrong with it, without repeating it.
    fn from_json(value: Value, intake: &mut dyn Intake) -> Result<Self, Problem>;
}

macro_rules! through_serde {
    ($($name:ty: $expected:literal,)*) => {$(
        impl FromJson for $name {
            fn from_json(value: Value, _: &mut dyn Intake) -> Result<Self, Problem> {
                serde_json::from_value(value).map_err(|_| {
                    Problem::new(ErrorCode::WrongType, "value has the wrong form")
                        .expected($expected)
                })
            }
        }
    )*};
}

through_serde! {
    i64: "a whole number of 64 bits",
    i32: "a whole number of 32 bits",
    bool: "true or false",
    Uuid: "a UUID",
    Digest: "64 hexadecimal digits",
    Timestamp: "a moment",
    Date: "a date",
    Decimal: "an exact decimal",
}

impl FromJson for String {
    fn from_json(value: Value, intake: &mut dyn Intake) -> Result<Self, Problem> {
        let Value::String(text) = value else {
            return Err(
                Problem::new(ErrorCode::WrongType, "value has the wrong form").expected("a string"),
            );
        };
        intake.name(&text)?;
        Ok(text)
    }
}

/// Bytes are hexadecimal digits, as we write them, or numbers, as serde does.
impl FromJson for Vec<u8> {
    fn from_json(value: Value, _: &mut dyn Intake) -> Result<Self, Problem> {
        let wrong = || {
            Problem::new(ErrorCode::WrongType, "value has the wrong form")
                .expected("bytes as hexadecimal digits, or as numbers")
        };
        if value.is_array() {
            return serde_json::from_value(value).map_err(|_| wrong());
        }
        let text = value.as_str().ok_or_else(wrong)?;
        if !text.len().is_multiple_of(2) || !text.is_ascii() {
            return Err(wrong());
        }
        let pairs = (0..text.len()).step_by(2).map(|at| &text[at..at + 2]);
        pairs
            .map(|pair| u8::from_str_radix(pair, 16).map_err(|_| wrong()))
            .collect()
    }
}

impl<T: FromJson> FromJson for Option<T> {
    fn from_json(value: Value, intake: &mut dyn Intake) -> Result<Self, Problem> {
        match value {
            Value::Null => Ok(None),
            value => T::from_json(value, intake).map(Some),
        }
    }
}

impl FromJson for Text {
    fn from_json(value: Value, intake: &mut dyn Intake) -> Result<Self, Problem> {
        intake.text(value)
    }
}

/// Symbols of an enum as the schema spells them.
pub(crate) fn symbol<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, Problem> {
    serde_json::from_value(value).map_err(|_| Problem::new(ErrorCode::WrongType, "no such choice"))
}

/// The fields of a record.
pub(crate) fn fields(value: Value) -> Result<Map<String, Value>, Problem> {
    match value {
        Value::Object(fields) => Ok(fields),
        _ => Err(
            Problem::new(ErrorCode::WrongType, "value has the wrong form").expected("an object"),
        ),
    }
}

/// Takes one field out; one that may be null may also be missing.
pub(crate) fn field<T: FromJson>(
    fields: &mut Map<String, Value>,
    name: &str,
    intake: &mut dyn Intake,
) -> Result<T, Problem> {
    let found = fields.remove(name);
    let missing = found.is_none();
    T::from_json(found.unwrap_or_default(), intake).map_err(|problem| {
        if missing {
            return Problem::new(ErrorCode::MissingField, "field is missing").field(name);
        }
        let inner = problem.field.clone();
        problem.field(inner.map_or_else(|| name.to_owned(), |inner| format!("{name}.{inner}")))
    })
}

/// As [`field`], for a name that need not be there.
pub(crate) fn name_or_empty(
    fields: &mut Map<String, Value>,
    name: &str,
    intake: &mut dyn Intake,
) -> Result<String, Problem> {
    if fields.get(name).is_some_and(|value| value == "") {
        fields.remove(name);
        return Ok(String::new());
    }
    field(fields, name, intake)
}

/// Nothing may be left: what an event has no field for would be lost.
pub(crate) fn none_left(fields: &Map<String, Value>) -> Result<(), Problem> {
    match fields.keys().next() {
        None => Ok(()),
        Some(name) => Err(Problem::new(ErrorCode::UnknownField, "no such field")
            .field(name.chars().take(80).collect::<String>())),
    }
}

/// The content of serde's form of an enum, an object with the variant's name as its only key.
pub(crate) fn variant(payload: Value, name: &str) -> Result<Value, Problem> {
    let mut outer = fields(payload)?;
    match outer.remove(name) {
        Some(inner) if outer.is_empty() => Ok(inner),
        _ => Err(
            Problem::new(ErrorCode::WrongType, "payload is no event of this type")
                .expected(format!("an object with the one key {name}")),
        ),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::avro::{self, EventGroup as _};
    use crate::events::{AgentEvent, MarketObserved, TradeEvent, TradeHeld};

    #[derive(Default)]
    struct Names(Vec<String>);

    impl Intake for Names {
        fn text(&mut self, _: Value) -> Result<Text, Problem> {
            let mut datum = vec![0; 16];
            avro::put_long(&mut datum, 0);
            datum.extend_from_slice(&[0; 13]);
            avro::decode(&datum).map_err(|e| Problem::new(ErrorCode::Internal, e.to_string()))
        }
        fn name(&mut self, name: &str) -> Result<(), Problem> {
            self.0.push(name.to_owned());
            Ok(())
        }
    }

    fn bar() -> AgentEvent {
        let price: Decimal = "10.25".parse().unwrap();
        MarketObserved {
            instrument: "AAPL".into(),
            opened_at: Timestamp(1),
            interval_s: 60,
            open: price,
            high: price,
            low: price,
            close: price,
            volume: price,
        }
        .into()
    }

    #[test]
    fn an_event_comes_back_from_its_json_and_shows_its_names() {
        let mut names = Names::default();
        let json = serde_json::to_value(bar()).unwrap();
        let back = AgentEvent::from_json("MarketObserved", 2, json, &mut names).unwrap();
        assert_eq!(back, bar());
        assert_eq!(names.0, ["AAPL"]);
        let held = TradeEvent::from(TradeHeld {
            approval_id: "approval_1".into(),
        });
        let json = serde_json::to_value(&held).unwrap();
        let back = TradeEvent::from_json("TradeHeld", 1, json, &mut names).unwrap();
        assert_eq!(back, held);
    }

    #[test]
    fn an_old_version_is_brought_up() {
        let old = json!({"MarketObserved": {"instrument": "AAPL", "date": "2000-03-01",
            "open": "1", "high": "1", "low": "1", "close": "1", "volume": "1"}});
        let read = AgentEvent::from_json("MarketObserved", 1, old, &mut Names::default()).unwrap();
        let AgentEvent::MarketObserved(bar) = read else {
            panic!("another event")
        };
        assert_eq!(bar.interval_s, 86_400);
    }

    #[test]
    fn what_is_missing_too_much_or_of_another_form_is_named_and_never_repeated() {
        let good = serde_json::to_value(bar()).unwrap();
        let problem = |change: &dyn Fn(&mut Value)| {
            let mut bad = good.clone();
            change(&mut bad["MarketObserved"]);
            let read = AgentEvent::from_json("MarketObserved", 2, bad, &mut Names::default());
            let problem = read.unwrap_err();
            assert!(!problem.to_string().contains("hunter2"), "{problem}");
            (problem.code, problem.field.unwrap_or_default())
        };
        let missing = problem(&|v| drop(v.as_object_mut().unwrap().remove("low")));
        assert_eq!(missing, (ErrorCode::MissingField, "low".into()));
        let unknown = problem(&|v| v["more"] = json!("hunter2"));
        assert_eq!(unknown, (ErrorCode::UnknownField, "more".into()));
        let wrong = problem(&|v| v["open"] = json!("hunter2"));
        assert_eq!(wrong, (ErrorCode::WrongType, "open".into()));
        let other = AgentEvent::from_json("ThoughtRecorded", 1, good, &mut Names::default());
        assert_eq!(other.unwrap_err().code, ErrorCode::WrongType);
        let unknown = AgentEvent::from_json("Nothing", 1, json!({}), &mut Names::default());
        assert_eq!(unknown.unwrap_err().code, ErrorCode::DecodeFailed);
    }
}
