//! Answers, in bounded memory.

use std::io::Read as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::read::MultiGzDecoder;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap};
use hyper::{Response, StatusCode};
use serde_json::{Map, Value, json};
use sovereign_effects::tools::Tool;
use sovereign_schemas::Timestamp;

/// A time to wait beyond this is taken for this: a day.
const RETRY_AFTER_MS_MAX: u64 = 86_400_000;
/// Longest `location` that is kept.
const LOCATION_BYTES_MAX: usize = 2_048;

/// A complete answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) location: Option<String>,
    pub(super) retry_after_ms: Option<u64>,
    pub(super) content_type: Option<String>,
    pub(super) body: Vec<u8>,
}

/// Why there is no complete answer.
#[derive(Debug)]
pub(super) enum Broken {
    /// Nothing was written.
    Unsent,
    /// The request has no form on the wire.
    Unsendable,
    /// It ended, or makes no sense.
    Incomplete(&'static str),
    /// More bytes than this.
    TooLarge(usize),
}

impl Broken {
    pub(super) fn of(error: &hyper::Error, head_bytes_max: usize) -> Self {
        if error.is_parse_too_large() {
            return Self::TooLarge(head_bytes_max);
        }
        if error.is_parse() {
            return Self::Incomplete("the answer is no HTTP");
        }
        Self::Incomplete("the connection ended before the answer was complete")
    }
}

/// Reads the rest of an answer; what is beyond the limits is not kept.
pub(super) async fn read(response: Response<Incoming>, tool: &Tool) -> Result<Answer, Broken> {
    let most = tool.answer_bytes_max;
    let (head, mut incoming) = response.into_parts();
    let text = |name| head.headers.get(name).and_then(|value| value.to_str().ok());
    // what is announced as too large is not waited for
    let announced = text(header::CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
    if announced.is_some_and(|length| length > most as u64) && !head.status.is_redirection() {
        return Err(Broken::TooLarge(most));
    }
    let mut body = Vec::new();
    // nothing is done with the body of a redirect
    while !head.status.is_redirection()
        && let Some(frame) = incoming.frame().await
    {
        let frame = frame.map_err(|error| Broken::of(&error, tool.head_bytes_max))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if body.len() + data.len() > most {
            return Err(Broken::TooLarge(most));
        }
        body.extend_from_slice(&data);
    }
    let body = unpacked(body, &head.headers, most)?;
    let location = text(header::LOCATION).filter(|text| text.len() <= LOCATION_BYTES_MAX);
    Ok(Answer {
        status: head.status,
        location: location.map(str::to_owned),
        retry_after_ms: text(header::RETRY_AFTER).and_then(retry_after_ms),
        content_type: text(header::CONTENT_TYPE).map(|text| text.chars().take(128).collect()),
        body,
    })
}

/// The body without its compression. A small body can stand for a huge one: it is cut off at the
/// limit.
fn unpacked(body: Vec<u8>, headers: &HeaderMap, most: usize) -> Result<Vec<u8>, Broken> {
    let mut encodings = headers.get_all(header::CONTENT_ENCODING).iter();
    let encoding = match (encodings.next(), encodings.next()) {
        (None, _) => return Ok(body),
        (Some(only), None) => only
            .to_str()
            .unwrap_or_default()
            .trim()
            .to_ascii_lowercase(),
        (Some(_), Some(_)) => return Err(Broken::Incomplete("the answer is encoded twice")),
    };
    match encoding.as_str() {
        "identity" | "" => Ok(body),
        // an answer to HEAD, or none at all
        "gzip" | "x-gzip" if body.is_empty() => Ok(body),
        "gzip" | "x-gzip" => {
            let mut out = Vec::new();
            let limit = most as u64 + 1;
            let read = MultiGzDecoder::new(body.as_slice())
                .take(limit)
                .read_to_end(&mut out);
            read.map_err(|_| Broken::Incomplete("the answer's compression is broken"))?;
            if out.len() > most {
                return Err(Broken::TooLarge(most));
            }
            Ok(out)
        }
        _ => Err(Broken::Incomplete(
            "the answer has an encoding that was not asked for",
        )),
    }
}

/// Seconds, or a date (RFC 9110, section 10.2.3).
fn retry_after_ms(text: &str) -> Option<u64> {
    let text = text.trim();
    if text.bytes().all(|b| b.is_ascii_digit()) && !text.is_empty() {
        let seconds = text.parse::<u64>().unwrap_or(u64::MAX);
        return Some(seconds.saturating_mul(1_000).min(RETRY_AFTER_MS_MAX));
    }
    let date = jiff::fmt::rfc2822::DateTimeParser::new()
        .parse_timestamp(text)
        .ok()?;
    let left_us = date.as_microsecond().saturating_sub(Timestamp::now().0);
    Some((left_us.max(0).unsigned_abs() / 1_000).min(RETRY_AFTER_MS_MAX))
}

impl Answer {
    /// What is recorded: `{"status", "content_type"?, "location"?, "redirects"?, "encoding",
    /// "body"}`, where `encoding` is `json`, `text` or `base64`.
    pub(super) fn result(self, redirects: u32) -> Value {
        let mut result = Map::new();
        result.insert("status".to_owned(), json!(self.status.as_u16()));
        let essence = self.content_type.as_deref().unwrap_or_default();
        let essence = essence
            .split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .to_ascii_lowercase();
        let is_json = essence == "application/json" || essence.ends_with("+json");
        if let Some(content_type) = self.content_type {
            result.insert("content_type".to_owned(), Value::String(content_type));
        }
        if let Some(location) = self.location {
            result.insert("location".to_owned(), Value::String(location));
        }
        if redirects > 0 {
            result.insert("redirects".to_owned(), json!(redirects));
        }
        let read = is_json
            .then(|| serde_json::from_slice::<Value>(&self.body).ok())
            .flatten();
        let (encoding, body) = match (read, String::from_utf8(self.body)) {
            (Some(value), _) => ("json", value),
            (None, Ok(text)) => ("text", Value::String(text)),
            (None, Err(bytes)) => ("base64", Value::String(STANDARD.encode(bytes.as_bytes()))),
        };
        result.insert("encoding".to_owned(), json!(encoding));
        result.insert("body".to_owned(), body);
        Value::Object(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date_and_at_most_a_day() {
        assert_eq!(retry_after_ms("2"), Some(2_000));
        assert_eq!(
            retry_after_ms("99999999999999999999"),
            Some(RETRY_AFTER_MS_MAX)
        );
        assert_eq!(retry_after_ms("Sun, 06 Nov 1994 08:49:37 GMT"), Some(0));
        assert_eq!(
            retry_after_ms("Fri, 24 Dec 9999 23:59:59 GMT"),
            Some(RETRY_AFTER_MS_MAX)
        );
        for nonsense in ["", "-1", "soon", "1.5"] {
            assert_eq!(retry_after_ms(nonsense), None, "{nonsense}");
        }
    }
}
