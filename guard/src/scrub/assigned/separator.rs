//! What joins a key to its value.

use super::{
    super::ascii,
    Joint,
    key::Key,
    value::{self, Value},
};

/// Blanks on one side of a separator; aligned columns have many.
const BLANKS_MAX: usize = 32;

fn skip_blanks(bytes: &[u8], at: usize) -> usize {
    ascii::run_within(bytes, at, BLANKS_MAX, |b| b == b' ' || b == b'\t')
}

/// End of a quote that may be escaped (`\"` in JSON inside JSON), with bracket (`["key"] =`).
fn skip_closing_quote(bytes: &[u8], at: usize) -> usize {
    let quote = ascii::run_within(bytes, at, 4, |b| b == b'\\');
    if !matches!(ascii::at(bytes, quote), b'"' | b'\'' | b'`' | b'*') {
        return at;
    }
    let end = ascii::run_within(bytes, quote, 2, |b| matches!(b, b'"' | b'\'' | b'`' | b'*'));
    if ascii::at(bytes, end) == b']' {
        end + 1
    } else {
        end
    }
}

/// The value that `key` is given, if it is given one on the same line.
pub(super) fn value_after<'a>(text: &'a str, key: &Key<'_>) -> Option<(Joint, Value<'a>)> {
    let bytes = text.as_bytes();
    if ascii::before(bytes, key.start) == b'<' && ascii::at(bytes, key.end) == b'>' {
        let value = value::read(text, key.end + 1, b'<')?;
        let closed = text[value.start + value.text.len()..].starts_with("</");
        return closed.then_some((Joint::Tight, value));
    }
    let quoted = skip_closing_quote(bytes, key.end);
    let separator = skip_blanks(bytes, quoted);
    let query = matches!(ascii::before(bytes, key.start), b'?' | b'&');
    let stop = if query { b'&' } else { b' ' };
    let (joint, from) = match operator(bytes, separator) {
        Some((joint, after)) => {
            let from = skip_blanks(bytes, after);
            let tight = joint == Joint::Spaced && separator == quoted && from == after;
            (if tight { Joint::Tight } else { joint }, from)
        }
        None => word(bytes, key, separator)?,
    };
    // Markdown: `**Password:** value`.
    let from = if joint == Joint::Colon && bytes[from..].starts_with(b"** ") {
        skip_blanks(bytes, from + 2)
    } else {
        from
    };
    if joint == Joint::Colon
        && let Some(from) = after_type(bytes, from)
    {
        return value::read(text, from, stop).map(|value| (Joint::Spaced, value));
    }
    value::read(text, from, stop).map(|value| (joint, value))
}

/// `=`, `==`, `===`, `:=`, `=>` or `:`; not `::` or `=~`.
fn operator(bytes: &[u8], at: usize) -> Option<(Joint, usize)> {
    let next = ascii::at(bytes, at + 1);
    match ascii::at(bytes, at) {
        b'=' if next == b'~' => None,
        b'=' if next == b'>' => Some((Joint::Spaced, at + 2)),
        b'=' => Some((
            Joint::Spaced,
            ascii::run_within(bytes, at, 3, |b| b == b'='),
        )),
        b':' if next == b'=' => Some((Joint::Spaced, at + 2)),
        b':' if next == b':' => None,
        b':' => Some((Joint::Colon, at + 1)),
        _ => None,
    }
}

/// A joint without an operator: the blank after `--password`, or a verb.
fn word(bytes: &[u8], key: &Key<'_>, at: usize) -> Option<(Joint, usize)> {
    if at == key.end {
        return None;
    }
    if key.name.starts_with("--") {
        let option = ascii::at(bytes, at) == b'-';
        return (!option).then_some((Joint::Tight, at));
    }
    // "Pass to `configure`" is an order.
    if key.name.eq_ignore_ascii_case("pass") {
        return None;
    }
    [&b"is"[..], b"was", b"to", b"are"].iter().find_map(|verb| {
        let end = at + verb.len();
        let spoken = bytes.get(at..end)?.eq_ignore_ascii_case(verb);
        let from = skip_blanks(bytes, end);
        let from = if ascii::at(bytes, from) == b':' {
            skip_blanks(bytes, from + 1)
        } else {
            from
        };
        (spoken && from > end).then_some((Joint::Verb, from))
    })
}

/// Start of the value in `key: Type = value`.
fn after_type(bytes: &[u8], at: usize) -> Option<usize> {
    let in_type = |b: u8| {
        let mark = matches!(
            b,
            b'_' | b'&' | b'\'' | b'<' | b'>' | b'[' | b']' | b'?' | b':'
        );
        b.is_ascii_alphanumeric() || mark
    };
    let end = ascii::run_within(bytes, at, 32, in_type);
    let equals = skip_blanks(bytes, end);
    let assigned = ascii::at(bytes, equals) == b'=' && ascii::at(bytes, equals + 1) == b' ';
    (end > at && equals > end && assigned).then(|| skip_blanks(bytes, equals + 1))
}
