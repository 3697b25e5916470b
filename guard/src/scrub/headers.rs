//! Credentials in HTTP headers: `Authorization: Basic …` and `Bearer …` anywhere.

use super::{Label, ascii, judge, span::Candidate};

/// Credentials shorter than this are not looked at.
const CREDENTIAL_BYTES_MIN: usize = 8;

pub(super) fn find(text: &str, found: &mut Vec<Candidate>) {
    let bytes = text.as_bytes();
    // Both schemes share no letter to search by; the `e` of "Bearer " and the `c` of "Basic " do.
    for (space, _) in text.match_indices(' ') {
        let scheme = ascii::run_back(bytes, space, 16, |b| b.is_ascii_alphabetic());
        let name = &bytes[scheme..space];
        let bearer = name.eq_ignore_ascii_case(b"bearer");
        let basic = name.eq_ignore_ascii_case(b"basic");
        let named = name.eq_ignore_ascii_case(b"token") || name.eq_ignore_ascii_case(b"apikey");
        if !bearer && !basic && !named {
            continue;
        }
        let header = is_header(bytes, scheme);
        let start = ascii::run_within(bytes, space, 8, |b| b == b' ');
        let end = ascii::run(bytes, start, |b| {
            ascii::is_url_safe(b) || matches!(b, b'.' | b'~' | b'+' | b'/' | b'=' | b':' | b'|')
        });
        let end = start + text[start..end].trim_end_matches(['.', ':']).len();
        let value = &text[start..end];
        if value.len() < CREDENTIAL_BYTES_MIN || judge::is_stand_in(value) {
            continue;
        }
        let random = judge::is_random(value);
        let secret = match (basic, header) {
            (true, _) => is_basic(value),
            (false, true) => (random || value.len() >= 20) && !judge::is_words(value),
            (false, false) => bearer && random && value.len() >= 16 && !judge::is_words(value),
        };
        if secret {
            let (label, rule) = if basic {
                (Label::Password, "authorization-basic")
            } else {
                (Label::Token, "authorization-bearer")
            };
            found.push(Candidate {
                start,
                end,
                label,
                rule,
                specific: false,
            });
        }
    }
}

/// True when the scheme at `at` is the value of an `authorization` header or field.
fn is_header(bytes: &[u8], at: usize) -> bool {
    let name_end = ascii::run_back(bytes, at, 8, |b| {
        matches!(b, b' ' | b':' | b'=' | b'"' | b'\'' | b'\\' | b',' | b'>')
    });
    let name = &bytes[name_end.saturating_sub(13)..name_end];
    name_end < at && name.eq_ignore_ascii_case(b"authorization")
}

/// RFC 7617: base64 of `user:password`.
fn is_basic(value: &str) -> bool {
    ascii::decode_base64(value.as_bytes()).is_some_and(|decoded| {
        decoded.contains(&b':') && decoded.iter().all(|&b| b >= b' ' && b != 0x7f)
    })
}
