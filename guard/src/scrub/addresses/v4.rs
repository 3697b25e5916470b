//! IPv4 in dotted decimal, with port or prefix length.

use super::{
    super::{ascii, span::Candidate},
    address, context,
};

/// Longest dotted number looked at: `255.255.255.255.` is 16 bytes.
const NUMBER_BYTES_MAX: usize = 16;

pub(super) fn find(text: &str, found: &mut Vec<Candidate>) {
    let bytes = text.as_bytes();
    let mut at = 0;
    // What the previous dotted number was, and where it ended: "from 1.2.3.4 to 1.2.3.5".
    let mut previous: Option<(usize, bool)> = None;
    while let Some(gap) = bytes[at..]
        .iter()
        .position(|&b| b.is_ascii_digit() || b == b'.')
    {
        let start = at + gap;
        let run = ascii::run(bytes, start, |b| b.is_ascii_digit() || b == b'.');
        at = run;
        if run - start < 7 || run - start > NUMBER_BYTES_MAX {
            continue;
        }
        let number_end = start + text[start..run].trim_end_matches('.').len();
        let Some(octets) = parse(&text[start..number_end]) else {
            continue;
        };
        let end = with_suffix(bytes, number_end, run);
        let verdict = match previous {
            Some((before, version)) if context::continues(text, before, start) => !version,
            _ => context::is_address(text, start, end, octets),
        };
        previous = Some((end, !verdict));
        let stays = matches!(octets[0], 0 | 127 | 255);
        if verdict && context::stands_alone(bytes, start, end) && !stays {
            found.push(address(start, end, "ipv4-address"));
        }
        at = at.max(end);
    }
}

/// Exactly four numbers of at most three digits up to 255.
fn parse(number: &str) -> Option<[u8; 4]> {
    let mut octets = [0; 4];
    let mut parts = number.split('.');
    for octet in &mut octets {
        let part = parts.next()?;
        *octet = (1..=3).contains(&part.len()).then(|| part.parse().ok())??;
    }
    parts.next().is_none().then_some(octets)
}

/// End with `:port` and `/prefix`, when they follow at once and are in range.
fn with_suffix(bytes: &[u8], end: usize, run: usize) -> usize {
    if run != end {
        return end;
    }
    suffix(bytes, end, b'/', 32)
        .or_else(|| suffix(bytes, end, b':', 65_535))
        .unwrap_or(end)
}

/// End of a mark and a number in `0..=max` that is not part of a longer word.
pub(super) fn suffix(bytes: &[u8], at: usize, mark: u8, max: u32) -> Option<usize> {
    if ascii::at(bytes, at) != mark {
        return None;
    }
    let end = ascii::run_within(bytes, at + 1, 6, |b| b.is_ascii_digit());
    let number: u32 = std::str::from_utf8(bytes.get(at + 1..end)?)
        .ok()?
        .parse()
        .ok()?;
    let alone = !ascii::at(bytes, end).is_ascii_alphanumeric();
    (alone && number <= max).then_some(end)
}
