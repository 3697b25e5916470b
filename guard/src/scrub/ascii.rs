//! Helpers over the bytes of a view.

/// The byte before `at`, or a space at the start of the text.
pub(super) fn before(bytes: &[u8], at: usize) -> u8 {
    at.checked_sub(1).map_or(b' ', |at| bytes[at])
}

/// The byte at `at`, or a space past the end of the text.
pub(super) fn at(bytes: &[u8], at: usize) -> u8 {
    bytes.get(at).copied().unwrap_or(b' ')
}

/// End of the run of bytes from `from` that satisfy `class`.
pub(super) fn run(bytes: &[u8], from: usize, class: impl Fn(u8) -> bool) -> usize {
    let rest = bytes.get(from..).unwrap_or_default();
    from + rest.iter().position(|&b| !class(b)).unwrap_or(rest.len())
}

/// As [`run`], over at most `limit` bytes.
pub(super) fn run_within(
    bytes: &[u8],
    from: usize,
    limit: usize,
    class: impl Fn(u8) -> bool,
) -> usize {
    run(
        &bytes[..bytes.len().min(from.saturating_add(limit))],
        from,
        class,
    )
}

/// Start of the run of at most `limit` bytes before `to` that satisfy `class`.
pub(super) fn run_back(bytes: &[u8], to: usize, limit: usize, class: impl Fn(u8) -> bool) -> usize {
    let from = to.saturating_sub(limit);
    let rest = &bytes[from..to];
    from + rest.iter().rposition(|&b| !class(b)).map_or(0, |at| at + 1)
}

/// Letters, digits, `-` and `_`: the alphabet of base64url.
pub(super) fn is_url_safe(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'-' || b == b'_'
}

/// Decodes base64 of either alphabet, with or without padding; none for any other character.
pub(super) fn decode_base64(text: &[u8]) -> Option<Vec<u8>> {
    let text = text.strip_suffix(b"=").unwrap_or(text);
    let text = text.strip_suffix(b"=").unwrap_or(text);
    let mut decoded = Vec::with_capacity(text.len() * 3 / 4);
    let (mut bits, mut count) = (0_u32, 0);
    for &b in text {
        let value = match b {
            b'A'..=b'Z' => b - b'A',
            b'a'..=b'z' => b - b'a' + 26,
            b'0'..=b'9' => b - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            decoded.push((bits >> count) as u8);
        }
    }
    Some(decoded)
}

/// Every placeholder in a text, also one that stood in the input: `[`, capitals, digits and `_`,
/// then `_REDACTED]`.
pub(super) fn placeholders(text: &str) -> impl Iterator<Item = (usize, usize)> + '_ {
    const NAME_BYTES_MAX: usize = 40;
    const TAIL: &str = "_REDACTED]";
    text.match_indices(TAIL).filter_map(|(tail, _)| {
        let is_name = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
        let name = run_back(text.as_bytes(), tail, NAME_BYTES_MAX, is_name);
        let open = name.checked_sub(1)?;
        let named = name < tail && text.as_bytes()[open] == b'[';
        named.then_some((open, tail + TAIL.len()))
    })
}

/// The text with its placeholders cut out.
pub(super) fn without_placeholders(text: &str) -> std::borrow::Cow<'_, str> {
    if !text.contains("_REDACTED]") {
        return text.into();
    }
    let mut rest = String::with_capacity(text.len());
    let mut copied = 0;
    for (start, end) in placeholders(text) {
        rest.push_str(&text[copied..start]);
        copied = end;
    }
    rest.push_str(&text[copied..]);
    rest.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_of_both_alphabets_decodes() {
        assert_eq!(
            decode_base64(b"eyJhIjoxfQ").as_deref(),
            Some(&b"{\"a\":1}"[..])
        );
        assert_eq!(
            decode_base64(b"eyJhIjoxfQ==").as_deref(),
            Some(&b"{\"a\":1}"[..])
        );
        assert_eq!(
            decode_base64(b"-_-_").as_deref(),
            Some(&[0xfb, 0xff, 0xbf][..])
        );
        assert_eq!(decode_base64(b"a.b"), None);
    }

    #[test]
    fn placeholders_are_found_with_their_brackets() {
        let text = "a [API_KEY_REDACTED] b_REDACTED] [X_REDACTED][_REDACTED]";
        let found: Vec<&str> = placeholders(text)
            .map(|(start, end)| &text[start..end])
            .collect();
        assert_eq!(found, ["[API_KEY_REDACTED]", "[X_REDACTED]"]);
        assert_eq!(without_placeholders("a[X_REDACTED]b"), "ab");
    }
}
