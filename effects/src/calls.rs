use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Number, Value};
use sovereign_schemas::{Decimal, ErrorCode, Identifier, Problem, Timestamp};

use crate::luck;
use crate::path::Path;

const QUERY_MAX: usize = 64;
const MESSAGES_MAX: usize = 256;
const TOKENS_MAX: u32 = 1 << 20;
const BYTES_MAX: u16 = 1_024;
const INTEGERS_MAX: u16 = 1_024;
const ARGUMENTS_MAX: usize = 64;

fn invalid(field: &str, message: &str) -> Problem {
    Problem::new(ErrorCode::InvalidEffect, message).field(field)
}

/// An HTTP method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    /// Reads.
    Get,
    /// Reads the head only.
    Head,
    /// Makes something.
    Post,
    /// Puts something in the place of another.
    Put,
    /// Changes a part.
    Patch,
    /// Removes.
    Delete,
}

impl Method {
    /// As on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }

    /// Whether it changes nothing at the target (RFC 9110, section 9.2.1).
    #[must_use]
    pub const fn is_safe(self) -> bool {
        matches!(self, Self::Get | Self::Head)
    }
}

/// `{"kind": "http", "tool", "method", "path", "query"?, "body"?}`: a request to a tool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpCall {
    /// Name of the tool.
    pub tool: Identifier,
    /// One of the tool's methods.
    pub method: Method,
    /// Below the tool's base, such as `/v1/orders`.
    pub path: Path,
    /// Names and values behind the question mark; they are encoded here.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub query: BTreeMap<String, String>,
    /// Sent as `application/json`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Value>,
}

impl HttpCall {
    pub(crate) fn check(&self) -> Result<(), Problem> {
        if self.query.len() > QUERY_MAX {
            return Err(
                invalid("query", "has too many names").expected(format!("at most {QUERY_MAX}"))
            );
        }
        if self.body.is_some() && self.method.is_safe() {
            return Err(invalid("body", "GET and HEAD have no body").expected("no body"));
        }
        Ok(())
    }
}

/// Who says something to a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MessageRole {
    /// Instructions.
    System,
    /// The question.
    User,
    /// An earlier answer.
    Assistant,
}

/// One message to a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// Who says it.
    pub role: MessageRole,
    /// What.
    pub content: String,
}

/// `{"kind": "model", "tool", "model", "messages", "tokens_max", "temperature"?, "seed"?}`: an
/// OpenAI-compatible chat completion over a tool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelCall {
    /// Name of the tool.
    pub tool: Identifier,
    /// Name of the model, as its server knows it.
    pub model: Identifier,
    /// The conversation, 1 to 256 messages.
    pub messages: Vec<Message>,
    /// Longest answer, tokens, 1 to 1,048,576.
    pub tokens_max: u32,
    /// 0 to 2; the server's own if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<Number>,
    /// For servers that honour one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<i64>,
}

impl ModelCall {
    pub(crate) fn check(&self) -> Result<(), Problem> {
        if self.messages.is_empty() || self.messages.len() > MESSAGES_MAX {
            let problem = invalid("messages", "has no message, or too many");
            return Err(problem.expected(format!("1 to {MESSAGES_MAX}")));
        }
        if !(1..=TOKENS_MAX).contains(&self.tokens_max) {
            let problem = invalid("tokens_max", "is out of range");
            return Err(problem.expected(format!("1 to {TOKENS_MAX}")));
        }
        let warm = |t: &Number| t.as_f64().is_some_and(|t| (0.0..=2.0).contains(&t));
        if !self.temperature.as_ref().is_none_or(warm) {
            return Err(invalid("temperature", "is out of range").expected("0 to 2"));
        }
        Ok(())
    }
}

/// `{"kind": "timer", "until"}`: waits until a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimerWait {
    /// The moment, RFC 3339. One that is past is reached at once.
    pub until: Timestamp,
}

/// `{"kind": "random", "bytes"}` or `{"kind": "random", "integers": {"count", "low", "high"}}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RandomDraw {
    /// So many bytes, 1 to 1,024.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u16>,
    /// Whole numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub integers: Option<Integers>,
}

/// Uniform whole numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Integers {
    /// How many, 1 to 1,024.
    pub count: u16,
    /// The least.
    pub low: i64,
    /// The largest.
    pub high: i64,
}

impl RandomDraw {
    pub(crate) fn check(&self) -> Result<(), Problem> {
        match (self.bytes, self.integers) {
            (Some(bytes), None) if (1..=BYTES_MAX).contains(&bytes) => Ok(()),
            (None, Some(wanted)) => {
                if !(1..=INTEGERS_MAX).contains(&wanted.count) {
                    let problem = invalid("integers.count", "is out of range");
                    return Err(problem.expected(format!("1 to {INTEGERS_MAX}")));
                }
                if wanted.low > wanted.high {
                    return Err(invalid("integers.high", "is below low"));
                }
                Ok(())
            }
            (Some(_), None) => {
                Err(invalid("bytes", "is out of range").expected(format!("1 to {BYTES_MAX}")))
            }
            _ => Err(invalid("effect", "expected either bytes or integers")),
        }
    }

    /// The result: `{"bytes": HEX}` or `{"integers": [...]}`, from a source of random bytes.
    ///
    /// # Errors
    /// Those of the source.
    pub fn draw<E>(&self, mut fill: impl FnMut(&mut [u8]) -> Result<(), E>) -> Result<Value, E> {
        if let Some(wanted) = self.integers {
            // as wide as two's complement: high - low always fits
            let width = wanted.high.wrapping_sub(wanted.low).cast_unsigned();
            let mut integers = Vec::with_capacity(usize::from(wanted.count));
            for _ in 0..wanted.count {
                let above = luck::up_to(width, &mut fill)?;
                integers.push(wanted.low.wrapping_add_unsigned(above));
            }
            return Ok(serde_json::json!({ "integers": integers }));
        }
        let mut bytes = vec![0; usize::from(self.bytes.unwrap_or_default())];
        fill(&mut bytes)?;
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(serde_json::json!({ "bytes": hex }))
    }
}

/// Buy or sell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Side {
    /// Buys.
    Buy,
    /// Sells.
    Sell,
}

/// `{"kind": "order", "exchange", "instrument", "side", "quantity", "price", "at", "price_worst"?}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// Name of the exchange; `mock` is always there.
    pub exchange: Identifier,
    /// What is traded.
    pub instrument: Identifier,
    /// Buy or sell.
    pub side: Side,
    /// How much of it.
    pub quantity: Decimal,
    /// The market's price when the order arrives, for one unit.
    pub price: Decimal,
    /// The market's moment when the order arrives.
    pub at: Timestamp,
    /// No worse than this for one unit; else it is not filled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price_worst: Option<Decimal>,
}

impl Order {
    pub(crate) fn check(&self) -> Result<(), Problem> {
        let amounts = [
            ("quantity", Some(self.quantity)),
            ("price", Some(self.price)),
            ("price_worst", self.price_worst),
        ];
        for (field, amount) in amounts {
            if amount.is_some_and(|amount| !amount.is_positive()) {
                return Err(
                    Problem::new(ErrorCode::InvalidAmount, "must be above zero").field(field)
                );
            }
        }
        Ok(())
    }
}

/// `{"kind": "process", "program", "arguments"?, "input"?}`: runs a program of this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessRun {
    /// Name of the program in the machine's list.
    pub program: Identifier,
    /// Behind the program's fixed ones. No shell reads them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub arguments: Vec<String>,
    /// Written to its standard input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<String>,
}

impl ProcessRun {
    pub(crate) fn check(&self) -> Result<(), Problem> {
        if self.arguments.len() > ARGUMENTS_MAX {
            let problem = invalid("arguments", "are too many");
            return Err(problem.expected(format!("at most {ARGUMENTS_MAX}")));
        }
        if let Some(at) = self.arguments.iter().position(|a| a.contains('\0')) {
            return Err(invalid(
                &format!("arguments[{at}]"),
                "holds a NUL character",
            ));
        }
        Ok(())
    }
}
