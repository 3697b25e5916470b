use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sovereign_schemas::{Digest, ErrorCode, Problem, TYPES_NAMESPACE, Uuid};

use crate::parse;
use crate::tools::{Programs, Tools};
use crate::{HttpCall, ModelCall, Order, ProcessRun, RandomDraw, TimerWait};

/// Longest effect, bytes of JSON.
pub const EFFECT_BYTES_MAX: usize = 192 << 10;

/// Names one effect for ever. It is passed on to the target as the idempotency key, so running an
/// effect again under its id does nothing twice where the target knows such keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EffectId(pub Uuid);

impl EffectId {
    /// The id of the effect with this place in a job: a UUID version 5, so that every process that
    /// runs the job comes to the same.
    ///
    /// # Examples
    /// ```
    /// use sovereign_effects::EffectId;
    /// assert_eq!(EffectId::of("trade_eth_040226_1201", 0), EffectId::of("trade_eth_040226_1201", 0));
    /// assert_ne!(EffectId::of("trade_eth_040226_1201", 0), EffectId::of("trade_eth_040226_1201", 1));
    /// ```
    #[must_use]
    pub fn of(job: &str, index: u32) -> Self {
        // the index comes first and has a fixed length, so no two pairs have the same bytes
        let mut name = b"effect\0".to_vec();
        name.extend_from_slice(&index.to_be_bytes());
        name.extend_from_slice(job.as_bytes());
        Self(Uuid::new_v5(&TYPES_NAMESPACE, &name))
    }
}

impl fmt::Display for EffectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What is wanted of the world. `docs/EFFECTS.md` has the form of each kind in JSON.
///
/// # Examples
/// ```
/// use sovereign_effects::Effect;
/// let json = r#"{"kind": "http", "tool": "orders", "method": "POST", "path": "/v1/orders", "body": {"n": 1}}"#;
/// let effect = Effect::from_json(json.as_bytes())?;
/// assert_eq!(effect.kind(), "http");
/// # Ok::<(), sovereign_schemas::Problem>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Effect {
    /// A request to a tool.
    Http(HttpCall),
    /// A question to a language model.
    Model(ModelCall),
    /// Waits until a moment.
    Timer(TimerWait),
    /// Random numbers from the operating system.
    Random(RandomDraw),
    /// An order at an exchange.
    Order(Order),
    /// A program of this machine.
    Process(ProcessRun),
}

impl Effect {
    /// All kinds.
    pub const KINDS: &'static str = "http, model, timer, random, order, process";

    /// Reads and checks an effect.
    ///
    /// # Errors
    /// [`ErrorCode::MalformedJson`], [`ErrorCode::UnknownField`], [`ErrorCode::MissingField`],
    /// [`ErrorCode::WrongType`] or [`ErrorCode::InvalidEffect`], with the field. No value of the
    /// effect is repeated.
    pub fn from_json(json: &[u8]) -> Result<Self, Problem> {
        if json.len() > EFFECT_BYTES_MAX {
            return Err(too_large(json.len()));
        }
        let value = serde_json::from_slice(json).map_err(|error| {
            Problem::new(ErrorCode::MalformedJson, "an effect is not JSON").found(format!(
                "{} at column {}",
                parse::kind(&error),
                error.column()
            ))
        })?;
        Self::from_value(value)
    }

    /// Reads and checks an effect that is parsed already.
    ///
    /// # Errors
    /// As [`Self::from_json`].
    pub fn from_value(value: Value) -> Result<Self, Problem> {
        let Value::Object(mut fields) = value else {
            return Err(Problem::new(ErrorCode::WrongType, "an effect is an object"));
        };
        let kind = match fields.remove("kind") {
            Some(Value::String(kind)) => kind,
            Some(_) => return Err(wrong_kind()),
            None => {
                return Err(Problem::new(ErrorCode::MissingField, "field is missing")
                    .field("kind")
                    .expected(Self::KINDS));
            }
        };
        let fields = Value::Object(fields);
        let effect = match kind.as_str() {
            "http" => Self::Http(read(fields)?),
            "model" => Self::Model(read(fields)?),
            "timer" => Self::Timer(read(fields)?),
            "random" => Self::Random(read(fields)?),
            "order" => Self::Order(read(fields)?),
            "process" => Self::Process(read(fields)?),
            _ => return Err(wrong_kind()),
        };
        effect.check()?;
        Ok(effect)
    }

    /// What the types do not hold.
    fn check(&self) -> Result<(), Problem> {
        let bytes = self.canonical().len();
        if bytes > EFFECT_BYTES_MAX {
            return Err(too_large(bytes));
        }
        match self {
            Self::Http(call) => call.check(),
            Self::Model(call) => call.check(),
            Self::Random(draw) => draw.check(),
            Self::Order(order) => order.check(),
            Self::Process(run) => run.check(),
            Self::Timer(_) => Ok(()),
        }
    }

    /// Its kind, as in JSON.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Http(_) => "http",
            Self::Model(_) => "model",
            Self::Timer(_) => "timer",
            Self::Random(_) => "random",
            Self::Order(_) => "order",
            Self::Process(_) => "process",
        }
    }

    /// The tool, exchange or program that it names; empty if none.
    #[must_use]
    pub fn target(&self) -> &str {
        match self {
            Self::Http(call) => call.tool.as_str(),
            Self::Model(call) => call.tool.as_str(),
            Self::Order(order) => order.exchange.as_str(),
            Self::Process(run) => run.program.as_str(),
            Self::Timer(_) | Self::Random(_) => "",
        }
    }

    /// Its JSON with sorted keys and no spaces.
    #[must_use]
    pub fn canonical(&self) -> Vec<u8> {
        // through a value, because its map is sorted; neither step can fail for these types
        serde_json::to_value(self)
            .and_then(|value| serde_json::to_vec(&value))
            .unwrap_or_default()
    }

    /// SHA-256 of [`Self::canonical`].
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(&[b"sovereign effect v1\0", &self.canonical()])
    }

    /// Whether running it again under the same id is safe: it changes nothing, or its target
    /// answers a known idempotency key with the first answer. Nothing is assumed of targets that
    /// neither `tools` nor `programs` know.
    #[must_use]
    pub fn repeatable(&self, tools: &Tools, programs: &Programs) -> bool {
        match self {
            Self::Http(call) => {
                let keyed = |tool: &crate::tools::Tool| tool.idempotency_header.is_some();
                call.method.is_safe() || tools.tool(&call.tool).is_some_and(keyed)
            }
            // it costs again, and changes nothing
            Self::Model(_) | Self::Timer(_) | Self::Random(_) => true,
            // an exchange knows its orders by effect id
            Self::Order(_) => true,
            Self::Process(run) => programs.get(&run.program).is_some_and(|p| p.repeatable),
        }
    }
}

impl<'de> Deserialize<'de> for Effect {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        Self::from_value(value).map_err(serde::de::Error::custom)
    }
}

fn read<T: DeserializeOwned>(fields: Value) -> Result<T, Problem> {
    parse::fields(fields)
}

fn wrong_kind() -> Problem {
    Problem::new(ErrorCode::WrongType, "no such kind of effect")
        .field("kind")
        .expected(Effect::KINDS)
}

fn too_large(bytes: usize) -> Problem {
    Problem::new(ErrorCode::PayloadTooLarge, "the effect is too large")
        .found(format!("{bytes} bytes"))
        .expected(format!("at most {EFFECT_BYTES_MAX} bytes"))
}

/// An effect to be carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Its id, which is the idempotency key.
    pub id: EffectId,
    /// What is wanted.
    pub effect: Effect,
    /// A time limit below that of the target, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_ms_max: Option<u64>,
}

impl Request {
    /// With the target's own limits.
    #[must_use]
    pub const fn new(id: EffectId, effect: Effect) -> Self {
        Self {
            id,
            effect,
            time_ms_max: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn effects_survive_json_in_every_kind() {
        for effect in [
            json!({"kind": "http", "tool": "orders", "method": "POST", "path": "/v1", "query": {"a": "b"}, "body": {"n": [1, null]}}),
            json!({"kind": "model", "tool": "llm", "model": "m/x:7b", "tokens_max": 9, "temperature": 0.5,
                "messages": [{"role": "user", "content": "hi"}]}),
            json!({"kind": "timer", "until": "2026-01-01T00:00:00.000001Z"}),
            json!({"kind": "random", "bytes": 16}),
            json!({"kind": "random", "integers": {"count": 3, "low": -1, "high": 9}}),
            json!({"kind": "order", "exchange": "mock", "instrument": "AAPL", "side": "SELL", "quantity": "1.5",
                "price": "10.25", "at": "2000-03-02T00:00:00.000000Z", "price_worst": "10"}),
            json!({"kind": "process", "program": "report", "arguments": ["a"], "input": "b"}),
        ] {
            let read = Effect::from_value(effect.clone()).unwrap();
            assert_eq!(serde_json::to_value(&read).unwrap(), effect);
            assert_eq!(
                serde_json::from_value::<Effect>(effect.clone()).unwrap(),
                read
            );
            assert_eq!(read.kind(), effect["kind"]);
            // the order of keys does not count
            assert_eq!(
                Effect::from_json(&read.canonical()).unwrap().digest(),
                read.digest()
            );
        }
    }

    #[test]
    fn bad_effects_name_the_field_and_repeat_no_value() {
        use ErrorCode::{InvalidAmount, InvalidEffect, MissingField, UnknownField, WrongType};
        let http = |field: &str, value: Value| {
            let mut effect = json!({"kind": "http", "tool": "t", "method": "GET", "path": "/v1"});
            effect[field] = value;
            effect
        };
        let order = |field: &str, value: Value| {
            let mut effect = json!({"kind": "order", "exchange": "mock", "instrument": "A", "side": "BUY",
                "quantity": "1", "price": "1", "at": "2000-01-01"});
            effect[field] = value;
            effect
        };
        for (effect, code, field) in [
            (json!({"tool": "t"}), MissingField, "kind"),
            (json!({"kind": "hunter2"}), WrongType, "kind"),
            (json!({"kind": 7}), WrongType, "kind"),
            (
                json!({"kind": "http", "tool": "t", "method": "GET"}),
                MissingField,
                "path",
            ),
            (http("colour", json!("hunter2")), UnknownField, "colour"),
            (http("method", json!("hunter2")), WrongType, "method"),
            (http("path", json!("/hunter2/..")), InvalidEffect, "path"),
            (http("path", json!(["hunter2"])), WrongType, "path"),
            (
                http("tool", json!("hunter2 hunter2")),
                InvalidEffect,
                "tool",
            ),
            (http("body", json!("hunter2")), InvalidEffect, "body"),
            (
                http("query", json!({"a": ["hunter2"]})),
                WrongType,
                "query.a",
            ),
            (
                json!({"kind": "timer", "until": "hunter2"}),
                InvalidEffect,
                "until",
            ),
            (json!({"kind": "random"}), InvalidEffect, "effect"),
            (
                json!({"kind": "random", "bytes": 0}),
                InvalidEffect,
                "bytes",
            ),
            (
                json!({"kind": "random", "bytes": 4, "integers": {"count": 1, "low": 0, "high": 1}}),
                InvalidEffect,
                "effect",
            ),
            (
                json!({"kind": "random", "integers": {"count": 1, "low": 2, "high": 1}}),
                InvalidEffect,
                "integers.high",
            ),
            (order("quantity", json!("-1")), InvalidAmount, "quantity"),
            (order("price", json!("0")), InvalidAmount, "price"),
            (order("side", json!("hunter2")), WrongType, "side"),
            (
                json!({"kind": "process", "program": "p", "arguments": ["a\u{0}"]}),
                InvalidEffect,
                "arguments[0]",
            ),
            (
                json!({"kind": "model", "tool": "t", "model": "m", "tokens_max": 0, "messages": [{"role": "user", "content": "x"}]}),
                InvalidEffect,
                "tokens_max",
            ),
            (
                json!({"kind": "model", "tool": "t", "model": "m", "tokens_max": 1, "messages": [{"role": "user", "content": "x", "name": "y"}]}),
                UnknownField,
                "messages[0].name",
            ),
        ] {
            let problem = Effect::from_value(effect.clone()).unwrap_err();
            assert_eq!(
                (problem.code, problem.field.as_deref()),
                (code, Some(field)),
                "{effect}"
            );
            assert!(!format!("{problem:?}").contains("hunter2"), "{problem:?}");
        }
        assert_eq!(
            Effect::from_json(b"{").unwrap_err().code,
            ErrorCode::MalformedJson
        );
        assert_eq!(
            Effect::from_json(b"[]").unwrap_err().code,
            ErrorCode::WrongType
        );
        let large =
            json!({"kind": "process", "program": "p", "input": "x".repeat(EFFECT_BYTES_MAX)});
        assert_eq!(
            Effect::from_value(large).unwrap_err().code,
            ErrorCode::PayloadTooLarge
        );
    }

    #[test]
    fn only_what_is_known_to_be_safe_is_repeatable() {
        let tools = Tools::parse(
            "[tools.keyed]\nbase = \"https://example.com\"\nmethods = [\"POST\"]\npaths = [\"/\"]\nidempotency_header = \"k\"\n\
             [tools.plain]\nbase = \"https://example.com\"\nmethods = [\"POST\"]\npaths = [\"/\"]\n",
        )
        .unwrap();
        let programs = Programs::parse(
            "[processes.safe]\npath = \"/bin/a\"\nrepeatable = true\n[processes.once]\npath = \"/bin/b\"\n",
        )
        .unwrap();
        let repeatable = |effect: Value| {
            Effect::from_value(effect)
                .unwrap()
                .repeatable(&tools, &programs)
        };
        let http = |tool: &str, method: &str| json!({"kind": "http", "tool": tool, "method": method, "path": "/"});
        let process = |program: &str| json!({"kind": "process", "program": program});
        assert!(repeatable(http("keyed", "POST")) && repeatable(http("plain", "GET")));
        assert!(!repeatable(http("plain", "POST")) && !repeatable(http("unknown", "POST")));
        assert!(repeatable(process("safe")));
        assert!(!repeatable(process("once")) && !repeatable(process("unknown")));
    }
}
