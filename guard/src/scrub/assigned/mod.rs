//! Secrets known by the word in front of them: `password = "…"`, `"api_key": "…"`,
//! `FOO_SECRET=…`, `--token …`, `<password>…</password>`, `the password is …`.

use aho_corasick::{AhoCorasick, MatchKind};

use super::{Label, ascii, judge, span::Candidate};

mod key;
mod separator;
mod value;

use key::{KEYWORDS, Key};
use value::Value;

/// What a key promises about its value; it decides how much must speak for a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// People choose it: short and made of words is possible.
    Password,
    /// Somebody chose it, it may be words.
    Secret,
    /// A machine made it: random.
    Token,
    /// A machine made it: random.
    ApiKey,
    /// A machine made it: random.
    PrivateKey,
    /// Only a raw 32- or 64-byte key counts (`seed = …`).
    Seed,
}

impl Kind {
    fn label(self) -> (Label, &'static str) {
        match self {
            Self::Password => (Label::Password, "assigned-password"),
            Self::Secret => (Label::Secret, "assigned-secret"),
            Self::Token => (Label::Token, "assigned-token"),
            Self::ApiKey => (Label::ApiKey, "assigned-api-key"),
            Self::PrivateKey | Self::Seed => (Label::PrivateKey, "assigned-private-key"),
        }
    }
}

/// How key and value are joined; the tighter, the less it can be prose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Joint {
    /// `key=value`, `<key>value`, `--key value`
    Tight,
    /// `key = value`
    Spaced,
    /// `key: value`
    Colon,
    /// `key is value`
    Verb,
}

#[derive(Debug, Clone)]
pub(super) struct Assigned {
    keywords: Option<AhoCorasick>,
}

impl Assigned {
    pub(super) fn standard() -> Self {
        let words = KEYWORDS.iter().map(|(word, _)| word);
        let built = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .ascii_case_insensitive(true)
            .build(words);
        // Building fails only for more states than 32 bits count; a test holds that it does not.
        Self {
            keywords: built.ok(),
        }
    }

    pub(super) fn find(&self, text: &str, found: &mut Vec<Candidate>) {
        let Some(keywords) = &self.keywords else {
            return;
        };
        // A keyword inside a value that was taken does not begin another assignment.
        let mut covered = 0;
        for word in keywords.find_iter(text) {
            if word.start() < covered {
                continue;
            }
            let kind = KEYWORDS[word.pattern().as_usize()].1;
            let Some(key) = Key::around(text, word.start(), word.end(), kind) else {
                continue;
            };
            let Some((joint, value)) = separator::value_after(text, &key) else {
                continue;
            };
            if is_secret(&key, joint, &value) {
                let (label, rule) = if judge::is_hex_key(value.text) {
                    Kind::PrivateKey.label()
                } else {
                    key.kind.label()
                };
                let (start, end) = (value.start, value.start + value.text.len());
                found.push(Candidate {
                    start,
                    end,
                    label,
                    rule,
                    specific: false,
                });
                covered = end;
            }
        }
    }
}

fn is_secret(key: &Key<'_>, joint: Joint, value: &Value<'_>) -> bool {
    let text = ascii::without_placeholders(value.text);
    let text = text.trim();
    // An expression such as `a || b`, or a call, is not a literal.
    if judge::is_stand_in(text) || (!value.quoted && value.is_expression) {
        return false;
    }
    if judge::is_hex_key(text) {
        return true;
    }
    match key.kind {
        Kind::Password => is_password(key, joint, value, text),
        Kind::Secret => is_chosen_secret(joint, value, text),
        Kind::Token | Kind::ApiKey | Kind::PrivateKey => is_made_secret(key, joint, value, text),
        Kind::Seed => text.len() == 128 && text.bytes().all(|b| b.is_ascii_hexdigit()),
    }
}

struct Shape {
    digit: bool,
    letter: bool,
    symbol: bool,
    mixed_case: bool,
    space: bool,
}

fn shape(text: &str) -> Shape {
    let has = |class: fn(&u8) -> bool| text.bytes().any(|b| class(&b));
    let upper_inside = text.bytes().skip(1).any(|b| b.is_ascii_uppercase());
    Shape {
        digit: has(u8::is_ascii_digit),
        letter: has(u8::is_ascii_alphabetic),
        symbol: has(|b| b.is_ascii_punctuation() && !matches!(b, b'-' | b'_' | b'.' | b'\'')),
        mixed_case: has(u8::is_ascii_lowercase) && upper_inside,
        space: has(u8::is_ascii_whitespace),
    }
}

/// Names that hold a key's own word (`user_password`) are variables, not passwords.
fn names_a_key(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    ["pass", "secret", "token", "key", "pwd", "credential"]
        .iter()
        .any(|word| lower.contains(word))
}

fn is_password(key: &Key<'_>, joint: Joint, value: &Value<'_>, text: &str) -> bool {
    let shape = shape(text);
    if text.len() < 4 {
        return false;
    }
    if shape.space {
        let words = text.split_whitespace().count();
        let phrase = key.name_has("phrase") && words >= 3;
        return value.quoted && !names_a_key(text) && (phrase || (words <= 4 && shape.digit));
    }
    let only_letters = !shape.digit && !shape.symbol && text.is_ascii();
    match joint {
        Joint::Verb if value.quoted => !only_letters || text.len() >= 6,
        Joint::Verb => {
            let starts_with_digit = text.starts_with(|c: char| c.is_ascii_digit());
            let number = text.len() >= 5 && text.bytes().all(|b| b.is_ascii_digit());
            number || (shape.digit && shape.letter && !starts_with_digit)
        }
        _ if !only_letters => true,
        _ if value.quoted => !is_label(text),
        Joint::Tight => {
            let named = text.contains(['_', '-']) && names_a_key(text);
            !named && !key.repeats_in(text)
        }
        Joint::Colon | Joint::Spaced => shape.mixed_case && !names_a_key(text),
    }
}

/// A caption such as `Password` or `new-password`, which are values of form fields.
fn is_label(text: &str) -> bool {
    names_a_key(text) && judge::is_words(text)
}

fn is_chosen_secret(joint: Joint, value: &Value<'_>, text: &str) -> bool {
    let shape = shape(text);
    if text.len() < 6 || shape.space || judge::is_time(text) {
        return false;
    }
    if !shape.digit && !shape.symbol && text.is_ascii() {
        let chosen = joint == Joint::Tight || value.quoted;
        let one_piece = !text.contains(['_', '-', '.']);
        return chosen
            && one_piece
            && text.len() >= 8
            && !text.eq_ignore_ascii_case("secretsmanager");
    }
    let named = text.contains(['_', '-', '.', '/']) || !shape.digit;
    match joint {
        Joint::Verb => judge::is_random(text) && text.len() >= 8,
        Joint::Tight => shape.letter && !(named && judge::is_words(text)),
        _ if value.quoted => shape.letter && !(named && judge::is_words(text)),
        _ => shape.letter && !judge::is_words(text),
    }
}

fn is_made_secret(key: &Key<'_>, joint: Joint, value: &Value<'_>, text: &str) -> bool {
    let shape = shape(text);
    let address = text.len() == 42 && text.starts_with("0x");
    if text.len() < 8 || shape.space || judge::is_time(text) {
        return false;
    }
    // `token: 0x…` of 20 bytes is the address of a coin's contract; wallets are another class.
    if address && key.kind == Kind::Token {
        return false;
    }
    if !shape.letter {
        return shape.digit && text.len() >= 20 && !text.contains(['.', ',', ':', '/']);
    }
    let literal = value.quoted || joint == Joint::Tight;
    if !shape.digit {
        let long = text.len() >= 20 && !text.contains(['_', '-', '.', ' ']);
        return literal && long && judge::entropy_bits(text) >= 2.5;
    }
    if joint == Joint::Verb {
        return judge::is_random(text) && text.len() >= 12;
    }
    let one_piece = !text.contains(['_', '-', '.', '/', ':']);
    judge::is_random(text) || (literal && one_piece)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_automaton_builds() {
        assert!(Assigned::standard().keywords.is_some());
    }
}
