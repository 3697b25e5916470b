//! Tokens known by their structure instead of a prefix: JWT, Telegram, Discord, URL credentials.

use serde::de::IgnoredAny;

use super::{Label, ascii, judge, span::Candidate};

/// Longest authority of a URL (user, password, host, port) that is looked at, in bytes.
const AUTHORITY_BYTES_MAX: usize = 512;

pub(super) fn find(text: &str, found: &mut Vec<Candidate>) {
    jwts(text, found);
    telegram(text, found);
    discord(text, found);
    url_credentials(text, found);
}

fn token(start: usize, end: usize, rule: &'static str) -> Candidate {
    Candidate {
        start,
        end,
        label: Label::Token,
        rule,
        specific: true,
    }
}

/// RFC 7519: three (signed) or five (encrypted) base64url parts, the first of which is JSON.
fn jwts(text: &str, found: &mut Vec<Candidate>) {
    let bytes = text.as_bytes();
    let mut next = 0;
    for (start, _) in text.match_indices('e') {
        // Base64 of `{`, then a quote or white space, begins with "ey", "ew" or "e3" (never met).
        let begins = matches!(ascii::at(bytes, start + 1), b'y' | b'w');
        if start < next || !begins || ascii::is_url_safe(ascii::before(bytes, start)) {
            continue;
        }
        let mut ends = [0; 5];
        let mut parts = 0;
        let mut from = start;
        while parts < 5 {
            ends[parts] = ascii::run(bytes, from, ascii::is_url_safe);
            parts += 1;
            if ascii::at(bytes, ends[parts - 1]) != b'.' {
                break;
            }
            from = ends[parts - 1] + 1;
        }
        let payload = if parts >= 3 { ends[1] - ends[0] - 1 } else { 0 };
        let encrypted = parts == 5 && ends[4] > ends[3] + 1;
        // "dir" encryption leaves the second part empty.
        if parts < 3 || (payload == 0 && !encrypted) || !is_json_object(&bytes[start..ends[0]]) {
            next = ends[0];
            continue;
        }
        next = if encrypted { ends[4] } else { ends[2] };
        found.push(token(start, next, "jwt"));
    }
}

fn is_json_object(part: &[u8]) -> bool {
    let decoded = ascii::decode_base64(part);
    decoded.is_some_and(|json| {
        json.starts_with(b"{") && serde_json::from_slice::<IgnoredAny>(&json).is_ok()
    })
}

/// Bot tokens of Telegram: 8 to 10 digits, a colon, 35 characters that begin with `AA`.
fn telegram(text: &str, found: &mut Vec<Candidate>) {
    let bytes = text.as_bytes();
    for (colon, _) in text.match_indices(":AA") {
        let start = ascii::run_back(bytes, colon, 11, |b| b.is_ascii_digit());
        let end = ascii::run_within(bytes, colon + 1, 36, ascii::is_url_safe);
        let before = ascii::before(bytes, start);
        let alone = !before.is_ascii_alphanumeric() || bytes[..start].ends_with(b"bot");
        if (8..=10).contains(&(colon - start)) && end == colon + 36 && alone {
            found.push(token(start, end, "telegram-bot-token"));
        }
    }
}

/// Bot tokens of Discord: the bot's id in base64 (begins with M, N or O), a time and a signature.
fn discord(text: &str, found: &mut Vec<Candidate>) {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let Some(gap) = bytes[at..].iter().position(|&b| ascii::is_url_safe(b)) else {
            break;
        };
        let start = at + gap;
        let first = ascii::run(bytes, start, ascii::is_url_safe);
        at = first.max(at + 1);
        if !matches!(ascii::at(bytes, start), b'M' | b'N' | b'O')
            || !(23..=28).contains(&(first - start))
            || ascii::at(bytes, first) != b'.'
        {
            continue;
        }
        let second = ascii::run_within(bytes, first + 1, 8, ascii::is_url_safe);
        let third = ascii::run_within(bytes, second + 1, 41, ascii::is_url_safe);
        let timed = (6..=7).contains(&(second - first - 1)) && ascii::at(bytes, second) == b'.';
        let signed = (27..=40).contains(&third.saturating_sub(second + 1));
        let digit = bytes[start..third].iter().any(u8::is_ascii_digit);
        if timed && signed && digit {
            found.push(token(start, third, "discord-bot-token"));
            at = third;
        }
    }
}

/// `scheme://user:password@host`: the password; `scheme://token@host`: the token.
fn url_credentials(text: &str, found: &mut Vec<Candidate>) {
    let bytes = text.as_bytes();
    for (colon, _) in text.match_indices("://") {
        if !ascii::before(bytes, colon).is_ascii_alphanumeric() {
            continue;
        }
        let start = colon + 3;
        let in_authority = |b: u8| {
            !b.is_ascii_whitespace()
                && !matches!(
                    b,
                    b'/' | b'?' | b'#' | b'"' | b'\'' | b'`' | b'\\' | b',' | b')'
                )
        };
        let end = ascii::run_within(bytes, start, AUTHORITY_BYTES_MAX, in_authority);
        let Some(at) = bytes[start..end].iter().rposition(|&b| b == b'@') else {
            continue;
        };
        let at = start + at;
        let user = start
            + bytes[start..at]
                .iter()
                .position(|&b| b == b':')
                .unwrap_or(at - start);
        let (from, label, rule) = if user < at {
            (user + 1, Label::Password, "url-password")
        } else {
            (start, Label::Token, "url-token")
        };
        let Some(value) = text.get(from..at) else {
            continue;
        };
        let secret = if user < at {
            // `[user[:password]@]` is a grammar.
            !value.is_empty()
                && !value.ends_with(']')
                && !judge::is_stand_in(&ascii::without_placeholders(value))
        } else {
            value.len() >= 20 && judge::is_random(value)
        };
        if secret {
            found.push(Candidate {
                start: from,
                end: at,
                label,
                rule,
                specific: false,
            });
        }
    }
}
