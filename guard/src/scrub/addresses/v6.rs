//! IPv6, with zone, prefix length or port.

use std::net::Ipv6Addr;

use super::{
    super::{ascii, span::Candidate},
    address, v4,
};

/// Longest form: eight groups with an IPv4 tail is 45 bytes.
const ADDRESS_BYTES_MAX: usize = 48;

pub(super) fn find(text: &str, found: &mut Vec<Candidate>) {
    let bytes = text.as_bytes();
    let in_address = |b: u8| b.is_ascii_hexdigit() || b == b':' || b == b'.';
    let mut at = 0;
    while let Some(gap) = bytes[at..].iter().position(|&b| in_address(b)) {
        let start = at + gap;
        let run = ascii::run(bytes, start, in_address);
        at = run;
        if run - start > ADDRESS_BYTES_MAX || !bytes[start..run].contains(&b':') {
            continue;
        }
        // "addr:fe80::1" leaves the label's colon in front, "fe80::1:" a sentence's behind.
        let lead = usize::from(bytes[start] == b':' && bytes.get(start + 1) != Some(&b':'));
        let mut end = start + text[start..run].trim_end_matches('.').len();
        if text[start..end].ends_with(':') && !text[start..end].ends_with("::") {
            end -= 1;
        }
        let start = start + lead;
        if start >= end {
            continue;
        }
        if is_host(&text[start..end])
            && !is_word(ascii::before(bytes, start))
            && !is_word(ascii::at(bytes, end))
        {
            let (start, end) = with_suffix(bytes, start, end);
            found.push(address(start, end, "ipv6-address"));
            at = at.max(end);
        }
    }
}

fn is_word(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'_'
}

/// An address written with all eight groups, or one of a range in use (IANA IPv6 address space): global, mapped, NAT64, unique local,
/// link-local, multicast. So Rust's `a::b` and C++'s `dead::beef` are none. Eight groups of two
/// digits are an EUI-64 or the start of a fingerprint.
fn is_host(text: &str) -> bool {
    let Ok(address) = text.parse::<Ipv6Addr>() else {
        return false;
    };
    let groups = address.segments();
    let eui_64 = text.split(':').count() == 8 && text.split(':').all(|group| group.len() == 2);
    let digit = text.bytes().any(|b| b.is_ascii_digit()) || text.matches(':').count() > 2;
    let long = text.split(':').filter(|group| group.len() >= 3).count();
    let written_out = !text.contains("::") && long >= 4;
    let mapped = groups[..5] == [0; 5] && groups[5] == 0xffff;
    let in_use = match groups[0] {
        0x2000..=0x3fff | 0xfc00..=0xfdff | 0xfe80..=0xfeff | 0xff00..=0xffff => true,
        0x0064 => groups[1] == 0xff9b,
        _ => mapped || written_out,
    };
    in_use && digit && !eui_64
}

/// The address with `%zone`, `/prefix`, or brackets and port around it.
fn with_suffix(bytes: &[u8], start: usize, end: usize) -> (usize, usize) {
    let end = if ascii::at(bytes, end) == b'%' {
        ascii::run_within(bytes, end + 1, 16, |b| {
            b.is_ascii_alphanumeric() || b == b'.'
        })
    } else {
        end
    };
    if ascii::before(bytes, start) == b'[' && ascii::at(bytes, end) == b']' {
        let end = v4::suffix(bytes, end + 1, b':', 65_535).unwrap_or(end + 1);
        return (start - 1, end);
    }
    (start, v4::suffix(bytes, end, b'/', 128).unwrap_or(end))
}
