//! Scrubbing JSON without changing anything else of it.

use serde::de::IgnoredAny;
use sovereign_guard::scrub::{Label, Scrubber};
use sovereign_schemas::{ErrorCode, Problem};

/// Removes secrets from JSON. Each string is looked at as it is meant, with its escapes resolved;
/// then the whole, because a name beside a value can tell what the value is. Numbers and blanks stay
/// as they are; strings are written with as few escapes as JSON allows.
///
/// # Errors
/// If it is not JSON, or a string in it is not Unicode.
pub(super) fn scrub(
    scrubber: &Scrubber,
    json: &str,
    found: &mut impl FnMut(Label),
) -> Result<String, Problem> {
    let malformed = |_| Problem::new(ErrorCode::MalformedJson, "is not JSON");
    serde_json::from_str::<IgnoredAny>(json).map_err(malformed)?;
    let mut out = String::with_capacity(json.len());
    let mut rest = json;
    while let Some(start) = rest.find('"') {
        let end = start + 1 + closing(&rest[start + 1..])?;
        let text: String = serde_json::from_str(&rest[start..=end])
            .map_err(|_| Problem::new(ErrorCode::InvalidText, "a string is not Unicode"))?;
        let scrubbed = scrubber.scrub(&text);
        scrubbed.findings().iter().for_each(|f| found(f.label));
        out.push_str(&rest[..start]);
        out.push_str(&serde_json::to_string(scrubbed.text()).map_err(malformed)?);
        rest = &rest[end + 1..];
    }
    out.push_str(rest);
    let whole = scrubber.scrub(&out);
    whole.findings().iter().for_each(|f| found(f.label));
    Ok(whole.into_text())
}

/// Where the string ends that begins before `text`.
fn closing(text: &str) -> Result<usize, Problem> {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Ok(at),
            _ => {}
        }
    }
    Err(Problem::new(ErrorCode::MalformedJson, "is not JSON"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scrubbed(json: &str) -> (String, Vec<&'static str>) {
        let mut labels = Vec::new();
        let text = scrub(&Scrubber::standard(), json, &mut |l| {
            labels.push(l.as_str())
        })
        .unwrap();
        (text, labels)
    }

    #[test]
    fn json_without_secrets_keeps_its_numbers_blanks_and_order() {
        let json = r#"{"b": 1.10, "a":[12345678901234567890123, -0.0 ,true,null], "ü":"\"x\\y\""}"#;
        assert_eq!(scrubbed(json), (json.to_owned(), vec![]));
    }

    #[test]
    fn secrets_are_found_behind_escapes_and_by_their_names() {
        let (text, labels) = scrubbed(r#"{"note":"node \u0031\u0030.1.2.3 is slow","n":1}"#);
        assert_eq!(
            text,
            r#"{"note":"node [IP_ADDRESS_REDACTED] is slow","n":1}"#
        );
        assert_eq!(labels, ["IP_ADDRESS"]);
        let (text, labels) = scrubbed(r#"{"password":"\u0068unter2-Zk9","n":1}"#);
        assert!(!text.contains("hunter2"), "{text}");
        assert!(
            serde_json::from_str::<serde_json::Value>(&text).is_ok(),
            "{text}"
        );
        assert_eq!(labels.len(), 1);
        let (text, _) = scrubbed(r#"{"10.1.2.3":"a key is a string as well"}"#);
        assert!(!text.contains("10.1.2.3"), "{text}");
    }

    #[test]
    fn what_is_no_json_or_no_unicode_is_refused() {
        let problem = |json: &str| scrub(&Scrubber::standard(), json, &mut |_| ()).unwrap_err();
        assert_eq!(problem("{\"a\":").code, ErrorCode::MalformedJson);
        assert_eq!(problem("").code, ErrorCode::MalformedJson);
        assert_eq!(problem("{\"a\":\"\\ud800\"}").code, ErrorCode::InvalidText);
    }
}
