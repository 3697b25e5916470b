//! Private key blocks: PEM of every kind (also cut off before its end) and PuTTY key files.

use super::{Label, ascii, span::Candidate};

const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";

/// Longest block in bytes; an RSA key of 16,384 bits takes 13 KiB.
const BLOCK_BYTES_MAX: usize = 64 * 1024;

/// A line of a cut-off block that is shorter than this ends it, unless it ends in `=`.
const LINE_BYTES_MIN: usize = 16;

pub(super) fn find(text: &str, found: &mut Vec<Candidate>) {
    let begins: Vec<usize> = text.match_indices(BEGIN).map(|(at, _)| at).collect();
    if !begins.is_empty() {
        let ends: Vec<usize> = text.match_indices(END).map(|(at, _)| at).collect();
        blocks(text, &begins, &ends, found);
    }
    putty(text, found);
}

fn blocks(text: &str, begins: &[usize], ends: &[usize], found: &mut Vec<Candidate>) {
    let bytes = text.as_bytes();
    for (nth, &start) in begins.iter().enumerate() {
        let Some(head) = header_end(text, start + BEGIN.len()) else {
            continue;
        };
        let limit = begins.get(nth + 1).copied().unwrap_or(bytes.len());
        let closing = ends.get(ends.partition_point(|&end| end < head)).copied();
        let closing = closing.filter(|&end| end < limit && end - start <= BLOCK_BYTES_MAX);
        let end = match closing {
            Some(closing) if !has_body(&bytes[head..closing]) => continue,
            Some(closing) => line_end(text, closing + END.len()),
            None => cut_off_end(bytes, head, limit),
        };
        if end == head {
            continue;
        }
        let (label, rule) = (Label::PrivateKey, "pem-private-key");
        found.push(Candidate {
            start,
            end,
            label,
            rule,
            specific: true,
        });
    }
}

/// A header with nothing, or with dots, behind it explains the format.
fn has_body(bytes: &[u8]) -> bool {
    let mut words = bytes.split(|&b| !(b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/')));
    words.any(|word| word.len() >= LINE_BYTES_MIN)
}

/// End of `RSA PRIVATE KEY-----` when the header names a private key.
fn header_end(text: &str, from: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    let in_name = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b' ';
    let end = ascii::run_within(bytes, from, 64, in_name);
    let name = &text[from..end];
    let private = name.ends_with("PRIVATE KEY") || name.ends_with("PRIVATE KEY BLOCK");
    private.then(|| ascii::run_within(bytes, end, 5, |b| b == b'-'))
}

/// End of the closing line, whatever key it names.
fn line_end(text: &str, from: usize) -> usize {
    let bytes = text.as_bytes();
    let in_name = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b' ';
    let end = ascii::run_within(bytes, from, 64, in_name);
    ascii::run_within(bytes, end, 5, |b| b == b'-')
}

/// End of the last line of base64 after a header that has no closing line.
fn cut_off_end(bytes: &[u8], head: usize, limit: usize) -> usize {
    let mut end = head;
    let mut at = head;
    let mut headers = true;
    while at < limit {
        let from = skip_line_ends(bytes, at).min(limit);
        let in_line = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=');
        let to = ascii::run(bytes, from, in_line).min(limit);
        let line = &bytes[from..to];
        if headers && let Some(after) = header_line(bytes, from, limit) {
            (end, at) = (after, after);
            continue;
        }
        headers = false;
        // After a full line the last one may be short, but it stands alone on its line.
        let alone = matches!(ascii::at(bytes, to), b'\n' | b'\r' | b'\\') || to == limit;
        let follows = end > head && alone && to > from;
        if line.len() < LINE_BYTES_MIN && !line.ends_with(b"=") && !follows {
            break;
        }
        if to == from {
            break;
        }
        (end, at) = (to, to);
        if to - from < LINE_BYTES_MIN || line.ends_with(b"=") {
            break;
        }
    }
    end
}

/// White space between lines; `\n` and `\r` may be written out, as in JSON.
fn skip_line_ends(bytes: &[u8], mut at: usize) -> usize {
    loop {
        // Marks of quoted mail, comments and string literals may begin and end a line.
        let mark = |b: u8| matches!(b, b'>' | b'#' | b'*' | b'|' | b'"' | b'\'');
        at = ascii::run(bytes, at, |b| b.is_ascii_whitespace() || mark(b));
        let written = ascii::run_within(bytes, at, 4, |b| b == b'\\');
        if written == at || !matches!(ascii::at(bytes, written), b'n' | b'r') {
            return at;
        }
        at = written + 1;
    }
}

/// End of a line such as `Proc-Type: 4,ENCRYPTED` (RFC 1421).
fn header_line(bytes: &[u8], from: usize, limit: usize) -> Option<usize> {
    let name = ascii::run_within(bytes, from, 32, |b| b.is_ascii_alphabetic() || b == b'-');
    let known = [
        &b"Proc-Type"[..],
        b"DEK-Info",
        b"Comment",
        b"Version",
        b"Subject",
        b"Hash",
    ];
    if !known.contains(&&bytes[from..name]) || ascii::at(bytes, name) != b':' {
        return None;
    }
    let end = ascii::run_within(bytes, name, 256, |b| {
        (b' '..0x7f).contains(&b) && b != b'\\'
    });
    Some(end.min(limit))
}

/// `PuTTY-User-Key-File-2: …` up to its `Private-MAC` line.
fn putty(text: &str, found: &mut Vec<Candidate>) {
    let mut covered = 0;
    for (start, head) in text.match_indices("PuTTY-User-Key-File-") {
        if start < covered {
            continue;
        }
        let limit = text.floor_char_boundary(start + BLOCK_BYTES_MAX);
        let rest = &text[start + head.len()..limit];
        let next = rest.find("PuTTY-User-Key-File-").unwrap_or(rest.len());
        covered = start + head.len() + next;
        let Some(private) = rest[..next].find("Private-Lines:") else {
            continue;
        };
        let last = rest[private..next]
            .find("Private-MAC:")
            .unwrap_or(next - private)
            + private;
        let end = rest[last..next].find('\n').unwrap_or(next - last) + last;
        let (label, rule) = (Label::PrivateKey, "putty-private-key");
        let end = start + head.len() + end;
        found.push(Candidate {
            start,
            end,
            label,
            rule,
            specific: true,
        });
    }
}
