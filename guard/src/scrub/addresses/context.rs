//! Is this dotted number an address or a version, section, object identifier or price?

use super::super::ascii;

/// How far before a number its meaning is looked for, in bytes; never beyond the line.
const CONTEXT_BYTES: usize = 48;

/// Words before a number that make it a version or a place in a document.
#[rustfmt::skip]
const VERSION_WORDS: &[&str] = &[
    "appendix", "article", "assembly", "assemblyversion", "build", "bumped", "chapter", "chrome",
    "clause", "downgrade", "downgraded", "downgrading", "driver", "figure", "fileversion",
    "firmware", "framework", "hotfix", "milestone", "oid", "opera", "paragraph", "patch",
    "patchlevel", "productversion", "rel", "release", "released", "releases", "rev", "revision",
    "safari", "sdk", "sec", "section", "sections", "semver", "subsection", "tagged", "theorem",
    "updated", "upgrade", "upgraded", "upgrading", "v", "ver", "vers", "version", "versions",
];

/// Words that may stand between such a word and the number.
#[rustfmt::skip]
const FILLERS: &[&str] = &[
    "a", "an", "are", "between", "current", "equals", "exactly", "from",
    "installed", "is", "latest", "least", "minimum", "new", "no", "nr", "number", "of", "old",
    "than", "the", "to", "was",
];

/// True when only a connecting word stands between two dotted numbers, so both are of one kind.
pub(super) fn continues(text: &str, from: usize, to: usize) -> bool {
    let between = text.get(from..to).unwrap_or_default();
    if between.len() > 12 || between.contains('\n') {
        return false;
    }
    let connects = [
        "to", "and", "or", ",", "-", "->", "→", "–", "..", "through", "until", "than", "/",
    ];
    let between = between.trim();
    connects.contains(&between)
        || between
            .strip_prefix(',')
            .is_some_and(|rest| matches!(rest.trim(), "and" | "or" | "to"))
}

/// True when no letter, sign or further part is glued to the number.
pub(super) fn stands_alone(bytes: &[u8], start: usize, end: usize) -> bool {
    let before = ascii::before(bytes, start);
    let after = ascii::at(bytes, end);
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    // "1.2.3.4-beta" and "1.2.3.4+build" are versions, "10.0.0.1-10.0.0.9" is a range.
    let next = ascii::at(bytes, end + 1);
    let suffixed = matches!(after, b'-' | b'+' | b'~') && next.is_ascii_alphabetic();
    !word(before) && before != b'.' && !word(after) && !suffixed
}

/// Decides by what stands on the line before the number and right after it.
pub(super) fn is_address(text: &str, start: usize, end: usize, octets: [u8; 4]) -> bool {
    let line = line_before(text, start);
    if is_price(line, &text[end..]) {
        return false;
    }
    // No version has a port or a prefix length.
    let suffixed = text[start..end].contains([':', '/']);
    let number =
        is_product(line) || is_heading(line, &text[end..], octets) || follows_version_word(line);
    suffixed || !number
}

fn line_before(text: &str, start: usize) -> &str {
    let from = text.ceil_char_boundary(start.saturating_sub(CONTEXT_BYTES));
    text[from..start].rsplit('\n').next().unwrap_or_default()
}

fn is_price(line: &str, after: &str) -> bool {
    let currency = ['$', '€', '£', '¥', '₿'];
    let after = after.trim_start_matches([' ', '\u{a0}']);
    line.trim_end().ends_with(currency)
        || after.starts_with(currency)
        || after.starts_with('%')
        || ["EUR", "USD", "GBP", "CHF", "IDR", "BRL"]
            .iter()
            .any(|code| after.starts_with(code))
}

/// `Chrome/120.0.0.0`, `curl-7.88.1.1`, `package@1.2.3.4` after a name; not `//10.0.0.1`, not
/// `root@10.0.0.1`.
fn is_product(line: &str) -> bool {
    let Some(mark) = line.chars().next_back() else {
        return false;
    };
    let name = &line.as_bytes()[..line.len() - mark.len_utf8()];
    let letters = ascii::run_back(name, name.len(), 32, ascii::is_url_safe);
    let name = &name[letters..];
    let named = name.last().is_some_and(u8::is_ascii_alphanumeric);
    match mark {
        '/' => named && !name.eq_ignore_ascii_case(b"localhost"),
        '-' => named && !hosts(name),
        '#' | '§' => true,
        _ => false,
    }
}

/// `ip-10.0.0.1`, `host-10.0.0.1`, `192.0.2.1-192.0.2.9`.
fn hosts(name: &[u8]) -> bool {
    let words = [
        &b"ip"[..],
        b"host",
        b"node",
        b"addr",
        b"address",
        b"server",
        b"vm",
    ];
    name.iter().all(u8::is_ascii_digit) || words.iter().any(|word| name.eq_ignore_ascii_case(word))
}

/// `4.3.2.1 Scope` at the start of a line.
fn is_heading(line: &str, after: &str, octets: [u8; 4]) -> bool {
    let start = line.trim_matches(['#', '*', ' ', '\t']).is_empty() && line.len() < CONTEXT_BYTES;
    let after = after.strip_prefix('.').unwrap_or(after);
    let title = after
        .strip_prefix([' ', '\t'])
        .and_then(|rest| rest.trim_start().chars().next());
    start && title.is_some_and(char::is_uppercase) && octets.iter().all(|&o| (1..=30).contains(&o))
}

fn follows_version_word(line: &str) -> bool {
    let sentence = line.rsplit([';', '!', '?', '(']).next().unwrap_or_default();
    // A full stop or a comma ends what belongs together, unless it marks an abbreviation.
    let short = ["ver. ", "v. ", "vers. ", "rel. ", "rev. ", "sec. "];
    if short
        .iter()
        .any(|word| sentence.to_ascii_lowercase().ends_with(word))
    {
        return true;
    }
    let sentence = sentence.rsplit(". ").next().unwrap_or_default();
    let sentence = sentence.rsplit(", ").next().unwrap_or_default();
    let words = sentence.split(|c: char| !c.is_alphanumeric() && c != '§');
    for word in words.filter(|word| !word.is_empty()).rev().take(4) {
        let lower = word.to_lowercase();
        let camel = lower.ends_with("version") && lower != "conversion";
        if camel || lower == "§" || VERSION_WORDS.binary_search(&lower.as_str()).is_ok() {
            return true;
        }
        if !FILLERS.contains(&lower.as_str()) {
            return false;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_words_are_sorted_for_the_search() {
        let mut sorted = VERSION_WORDS.to_vec();
        sorted.sort_unstable();
        assert_eq!(VERSION_WORDS, sorted);
    }

    #[test]
    fn a_version_word_counts_through_fillers_only() {
        for line in [
            "version ",
            "Version: ",
            "upgraded to ",
            "version number is ",
            "file_version=",
            "§ ",
        ] {
            assert!(follows_version_word(line), "{line}");
        }
        for line in [
            "version 2 at ",
            "connected to ",
            "the build agent ",
            "conversion ",
            "release. Host ",
        ] {
            assert!(!follows_version_word(line), "{line}");
        }
    }
}
