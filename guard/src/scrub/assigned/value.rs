//! Where a value begins and ends.

use super::super::ascii;

/// Longest value that is looked at, in bytes.
const VALUE_BYTES_MAX: usize = 1024;

/// A value as it stands in the text, without its quotes.
pub(super) struct Value<'a> {
    pub(super) text: &'a str,
    pub(super) start: usize,
    pub(super) quoted: bool,
    /// A call or an index: `get("x")`, `env["X"]`.
    pub(super) is_expression: bool,
}

/// Reads the value at `at`; `stop` ends an unquoted one besides blanks and punctuation.
pub(super) fn read(text: &str, at: usize, stop: u8) -> Option<Value<'_>> {
    let bytes = text.as_bytes();
    quoted(text, at)
        .or_else(|| bare(text, at, stop))
        .filter(|value| {
            // An assignment that wants its value on the next line has none here.
            !value.text.is_empty() && bytes.get(at).is_some_and(|b| !matches!(b, b'\n' | b'\r'))
        })
}

/// A string literal, with an optional prefix letter (`b"…"`) and escaped quotes (`\"…\"`).
fn quoted(text: &str, at: usize) -> Option<Value<'_>> {
    let bytes = text.as_bytes();
    let prefix = matches!(
        ascii::at(bytes, at),
        b'b' | b'B' | b'r' | b'R' | b'f' | b'u' | b'L' | b'@'
    );
    let literal = matches!(ascii::at(bytes, at + 1), b'"' | b'\'');
    let at = at + usize::from(prefix && literal);
    let open = ascii::run_within(bytes, at, 4, |b| b == b'\\');
    let escapes = open - at;
    let quote = ascii::at(bytes, open);
    if !matches!(quote, b'"' | b'\'' | b'`') {
        return None;
    }
    let start = open + 1;
    let limit = bytes.len().min(start + VALUE_BYTES_MAX);
    let mut end = start;
    loop {
        end = ascii::run(&bytes[..limit], end, |b| {
            b != quote && b != b'\n' && b != b'\\'
        });
        match bytes[..limit].get(end)? {
            b'\\' => {
                let after = ascii::run(&bytes[..limit], end, |b| b == b'\\');
                if escapes > 0 && after - end == escapes && bytes.get(after) == Some(&quote) {
                    break;
                }
                // An escape takes the next character with it when the run is odd.
                end = after + usize::from((after - end) % 2 == 1 && escapes == 0);
            }
            b if *b == quote && escapes == 0 => break,
            b'\n' => return None,
            _ => end += 1,
        }
        if end >= limit {
            return None;
        }
    }
    let text = text.get(start..end)?;
    Some(Value {
        text,
        start,
        quoted: true,
        is_expression: false,
    })
}

fn bare(text: &str, at: usize, stop: u8) -> Option<Value<'_>> {
    let bytes = text.as_bytes();
    let ends = |b: u8| {
        b == stop
            || b.is_ascii_whitespace()
            || matches!(b, b'"' | b'\'' | b'`' | b',' | b';' | b'|' | b'\\' | b'<')
    };
    // `${…}`, `{{…}}` and `<…>` are read whole, blanks and all, so that they are seen as templates.
    let template = [
        ("${", "}"),
        ("$(", ")"),
        ("{{", "}}"),
        ("<", ">"),
        ("[", "]"),
    ];
    let rest = text.get(at..)?;
    if let Some((_, close)) = template.iter().find(|(open, _)| rest.starts_with(open)) {
        let limit = rest.floor_char_boundary(VALUE_BYTES_MAX.min(rest.len()));
        let line = rest[..limit].split('\n').next().unwrap_or_default();
        if let Some(end) = line.find(close) {
            let after = at + end + close.len();
            let end = ascii::run_within(bytes, after, VALUE_BYTES_MAX, |b| {
                !ends(b) && b.is_ascii() && b != b')' && b != b']' && b != b'}'
            });
            let text = text.get(at..end)?;
            return Some(Value {
                text,
                start: at,
                quoted: false,
                is_expression: false,
            });
        }
    }
    let mut end = ascii::run_within(bytes, at, VALUE_BYTES_MAX, |b| !ends(b));
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let (end, is_expression) = close_brackets(bytes, at, end);
    let trimmed = text.get(at..end)?.trim_end_matches(['.', ':', '?']);
    Some(Value {
        text: trimmed,
        start: at,
        quoted: false,
        is_expression,
    })
}

/// Ends the value before a bracket that closes one from outside, and tells calls and indexes.
fn close_brackets(bytes: &[u8], start: usize, end: usize) -> (usize, bool) {
    let mut depth = 0_i32;
    for at in start..end {
        match bytes[at] {
            b'(' | b'[' | b'{' => {
                let name = &bytes[start..at];
                let named = name.iter().all(|&b| {
                    b.is_ascii_alphabetic() || matches!(b, b'_' | b'.' | b':' | b'>' | b'-' | b'!')
                });
                if depth == 0 && !name.is_empty() && named && bytes[at] != b'{' {
                    return (end, true);
                }
                depth += 1;
            }
            b')' | b']' | b'}' => {
                depth -= 1;
                if depth < 0 {
                    return (at, false);
                }
            }
            _ => {}
        }
    }
    (end, false)
}
