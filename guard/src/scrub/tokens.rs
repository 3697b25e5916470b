//! Finds the tokens of [`super::token_rules`].

use aho_corasick::{AhoCorasick, MatchKind};

use super::{
    ascii,
    span::Candidate,
    token_rules::{Alphabet, Extra, RULES, TokenRule},
};

/// Bytes of a body that are looked at to tell a random one from a name. A body that is a name for
/// so long is one.
const LOOK_BYTES: usize = 128;

/// Stretch without `-` and `_` that a random body has and a name made of words has not.
const STRETCH_BYTES_MIN: usize = 16;

#[derive(Debug, Clone)]
pub(super) struct Tokens {
    prefixes: Option<AhoCorasick>,
}

impl Tokens {
    pub(super) fn standard() -> Self {
        let prefixes = RULES.iter().map(|rule| rule.prefix);
        let built = AhoCorasick::builder()
            .match_kind(MatchKind::Standard)
            .build(prefixes);
        // Building fails only for more states than 32 bits count; a test holds that it does not.
        Self {
            prefixes: built.ok(),
        }
    }

    pub(super) fn find(&self, text: &str, found: &mut Vec<Candidate>) {
        let Some(prefixes) = &self.prefixes else {
            return;
        };
        let bytes = text.as_bytes();
        // The end of the last run of each alphabet, so that many prefixes in one long run do not
        // each walk it to its end.
        let mut run_ends = [0_usize; Alphabet::COUNT];
        for prefix in prefixes.find_overlapping_iter(text) {
            let rule = &RULES[prefix.pattern().as_usize()];
            if ascii::before(bytes, prefix.start()).is_ascii_alphanumeric() {
                continue;
            }
            let run_end = &mut run_ends[rule.alphabet as usize];
            if *run_end < prefix.end() {
                *run_end = ascii::run(bytes, prefix.end(), |b| rule.alphabet.has(b));
            }
            let end = *run_end;
            let (kept, end) = trim(bytes, prefix.end(), end, rule);
            if kept && accepts(rule, &bytes[prefix.end()..end]) {
                let whole = rule.extra != Extra::KeepPrefix;
                let start = if whole { prefix.start() } else { prefix.end() };
                let (label, rule) = (rule.label, rule.rule);
                found.push(Candidate {
                    start,
                    end,
                    label,
                    rule,
                    specific: true,
                });
            }
        }
    }
}

/// Takes a full stop that ends a sentence off the body, and refuses one that goes on as a word.
fn trim(bytes: &[u8], start: usize, mut end: usize, rule: &TokenRule) -> (bool, usize) {
    while rule.alphabet == Alphabet::Dotted && end > start && bytes[end - 1] == b'.' {
        end -= 1;
    }
    (!ascii::at(bytes, end).is_ascii_alphanumeric(), end)
}

fn accepts(rule: &TokenRule, body: &[u8]) -> bool {
    if body.len() < rule.min || body.len() > rule.max {
        return false;
    }
    let look = &body[..body.len().min(LOOK_BYTES)];
    if look
        .iter()
        .all(|b| matches!(b, b'x' | b'X' | b'.' | b'-' | b'_'))
    {
        return false;
    }
    let digit = look.iter().any(u8::is_ascii_digit);
    match rule.extra {
        Extra::None | Extra::KeepPrefix => true,
        Extra::Digit => digit,
        Extra::Random => {
            let letter = look.iter().any(u8::is_ascii_alphabetic);
            let stretches = look.split(|b| !b.is_ascii_alphanumeric());
            digit && letter && stretches.map(<[u8]>::len).max() >= Some(STRETCH_BYTES_MIN)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_automaton_builds() {
        assert!(Tokens::standard().prefixes.is_some());
    }

    #[test]
    fn rules_are_sorted_so_that_a_prefix_is_found_and_not_doubled() {
        let prefixes: Vec<(&str, &str)> = RULES.iter().map(|r| (r.rule, r.prefix)).collect();
        let mut sorted = prefixes.clone();
        sorted.sort_by_key(|&(rule, _)| rule);
        assert_eq!(prefixes, sorted);
        let mut unique: Vec<&str> = prefixes.iter().map(|&(_, prefix)| prefix).collect();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), prefixes.len());
    }
}
