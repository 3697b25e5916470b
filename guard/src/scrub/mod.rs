//! The scrubber: finds secrets in free text and replaces each by `[LABEL_REDACTED]`.
//!
//! Four classes: token shapes and keyword-assigned secrets, wallet addresses whose checksum holds,
//! BIP-39 phrases by word list and checksum, and IP addresses that are not version numbers. Plain
//! prose passes unchanged, byte for byte.
//!
//! ```
//! use sovereign_guard::scrub::Scrubber;
//!
//! let scrubber = Scrubber::standard();
//! let scrubbed = scrubber.scrub("host 192.0.2.7 runs version 1.2.3.4");
//! assert_eq!(scrubbed.text(), "host [IP_ADDRESS_REDACTED] runs version 1.2.3.4");
//! assert_eq!(scrubbed.findings()[0].start, 5);
//! ```
//!
//! Each detector looks at a folded view of the text, in which zero-width characters are gone and
//! full-width, superscript and similar forms are plain ASCII (their NFKC form), so these hide
//! nothing. Offsets always count bytes of the original input.
//!
//! Replacing one secret can uncover another (a placeholder ends a word that the secret continued),
//! so the scan is repeated on its own output until it finds nothing. That makes
//! `scrub(scrub(x)) == scrub(x)` true by construction. Placeholders are never findings.

mod addresses;
mod ascii;
mod assigned;
mod finding;
mod headers;
mod judge;
mod pem;
mod seeds;
mod shapes;
mod span;
mod token_rules;
mod tokens;
mod view;
mod wallets;

pub use finding::{Finding, Label, Scrubbed};

use span::{Candidate, Span};
use view::View;

/// Scans of one text before it is given up as a whole. Two is the usual number (the second finds
/// nothing); each further one needs a secret that the last replacement uncovered.
const ROUNDS_MAX: usize = 8;

/// The compiled rules. Build one and share it; it holds no state between texts.
#[derive(Debug, Clone)]
pub struct Scrubber {
    tokens: tokens::Tokens,
    assigned: assigned::Assigned,
    seeds: seeds::Seeds,
}

impl Scrubber {
    /// The rules this version of the engine ships.
    pub fn standard() -> Self {
        Self {
            tokens: tokens::Tokens::standard(),
            assigned: assigned::Assigned::standard(),
            seeds: seeds::Seeds::english(),
        }
    }

    /// Replaces every secret in `input` by its placeholder.
    ///
    /// Time grows with the length of the text whatever it holds; any text is accepted. A text whose
    /// every replacement uncovers a further secret more than eight times over is replaced whole by
    /// `[TEXT_REDACTED]`: it was made to get past the scrubber.
    pub fn scrub(&self, input: &str) -> Scrubbed {
        settle(input, |text| self.scan(text))
    }

    /// Candidates in byte offsets of `text`, none of them inside a placeholder.
    fn scan(&self, text: &str) -> Vec<Candidate> {
        let view = View::of(text);
        let mut found = Vec::new();
        self.tokens.find(view.text(), &mut found);
        shapes::find(view.text(), &mut found);
        headers::find(view.text(), &mut found);
        pem::find(view.text(), &mut found);
        wallets::find(view.text(), &mut found);
        self.seeds.find(view.text(), &mut found);
        addresses::find(view.text(), &mut found);
        self.assigned.find(view.text(), &mut found);
        for candidate in &mut found {
            (candidate.start, candidate.end) = view.original(candidate.start, candidate.end);
        }
        span::widen_over_placeholders(text, &mut found);
        found
    }
}

/// Scans and replaces until a scan of the result finds nothing.
fn settle(input: &str, scan: impl Fn(&str) -> Vec<Candidate>) -> Scrubbed {
    let mut spans: Vec<Span> = Vec::new();
    for _ in 0..ROUNDS_MAX {
        let rendered = span::render(input, &spans);
        let candidates = scan(&rendered.text);
        if candidates.is_empty() {
            return Scrubbed::new(rendered.text.into_owned(), finding::list(input, &spans));
        }
        spans.extend(
            candidates
                .iter()
                .map(|candidate| rendered.to_input(candidate)),
        );
        span::merge(&mut spans);
    }
    Scrubbed::new(
        Label::Text.placeholder(),
        finding::list(input, &[Span::whole(input)]),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A scan whose every replacement uncovers the letter before it.
    fn last_letters(text: &str) -> Vec<Candidate> {
        let open = text.find('[').unwrap_or(text.len());
        let start = open.saturating_sub(1);
        let (label, rule) = (Label::Secret, "letter");
        let last = Candidate {
            start,
            end: open,
            label,
            rule,
            specific: true,
        };
        if open == 0 { Vec::new() } else { vec![last] }
    }

    #[test]
    fn a_text_that_does_not_settle_is_given_up_whole() {
        let scrubbed = settle("abcdefg", last_letters);
        assert_eq!(scrubbed.text(), "[SECRET_REDACTED]".repeat(7));
        let offsets: Vec<_> = scrubbed
            .findings()
            .iter()
            .map(|f| (f.start, f.end))
            .collect();
        assert_eq!(
            offsets,
            [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 6), (6, 7)]
        );

        let scrubbed = settle("abc\ndefgh", last_letters);
        assert_eq!(scrubbed.text(), "[TEXT_REDACTED]");
        let [finding] = scrubbed.findings() else {
            panic!("{:?}", scrubbed.findings())
        };
        assert_eq!((finding.start, finding.end, finding.line), (0, 9, 1));
        assert!(
            Scrubber::standard()
                .scrub(scrubbed.text())
                .findings()
                .is_empty()
        );
    }

    #[test]
    fn the_longest_candidate_names_what_overlaps_and_the_specific_one_what_is_equal() {
        let scrubber = Scrubber::standard();
        let rule = |text: &str| scrubber.scrub(text).findings()[0].rule;
        assert_eq!(rule("api_key=sk_live_aB3daB3daB3d"), "stripe-key");
        assert_eq!(
            rule("password=\"sk_live_aB3daB3daB3d!\""),
            "assigned-password"
        );
    }
}
