//! The folded view of a text that detectors look at, and the way back to the original offsets.

use std::borrow::Cow;

use unicode_normalization::char::decompose_compatible;

/// A text without zero-width characters and with compatibility forms of ASCII folded to ASCII.
pub(super) struct View<'a> {
    text: Cow<'a, str>,
    /// Where the character behind each byte of `text` starts and ends in the original; empty when
    /// nothing was folded.
    origin: Vec<(usize, usize)>,
}

enum Fold {
    Keep,
    Drop,
    Ascii,
}

impl<'a> View<'a> {
    pub(super) fn of(original: &'a str) -> Self {
        let plain =
            original.is_ascii() || !original.chars().any(|c| !matches!(fold(c), Fold::Keep));
        if plain {
            return Self {
                text: Cow::Borrowed(original),
                origin: Vec::new(),
            };
        }
        let mut text = String::with_capacity(original.len());
        let mut origin = Vec::with_capacity(original.len());
        for (start, c) in original.char_indices() {
            match fold(c) {
                Fold::Drop => {}
                Fold::Keep => text.push(c),
                Fold::Ascii => decompose_compatible(c, |folded| text.push(folded)),
            }
            origin.resize(text.len(), (start, start + c.len_utf8()));
        }
        Self {
            text: Cow::Owned(text),
            origin,
        }
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The bytes of the original that a non-empty range of the view came from.
    pub(super) fn original(&self, start: usize, end: usize) -> (usize, usize) {
        if self.origin.is_empty() {
            return (start, end);
        }
        (self.origin[start].0, self.origin[end - 1].1)
    }
}

fn fold(c: char) -> Fold {
    if c.is_ascii() {
        return Fold::Keep;
    }
    if is_ignorable(c) {
        return Fold::Drop;
    }
    // Only forms that are ASCII throughout matter: every secret here is written in ASCII.
    let mut ascii = true;
    decompose_compatible(c, |folded| ascii &= folded.is_ascii());
    if ascii { Fold::Ascii } else { Fold::Keep }
}

/// Characters that take no room on a screen: Unicode's `Default_Ignorable_Code_Point`.
fn is_ignorable(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
        | '\u{ffa0}' | '\u{fff0}'..='\u{fff8}' | '\u{1bca0}'..='\u{1bca3}'
        | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folded_bytes_lead_back_to_the_characters_they_came_from() {
        let text = "é\u{200b}１²\u{feff}ﬁ!";
        let view = View::of(text);
        assert_eq!(view.text(), "é12fi!");
        assert_eq!(view.original(0, 2), (0, 2));
        assert_eq!(
            view.original(2, 4),
            (5, 10),
            "zero-width characters around stay outside"
        );
        assert_eq!(
            view.original(5, 6),
            (13, 16),
            "half a ligature is the whole of it"
        );
        assert_eq!(view.original(0, 7), (0, text.len()));
    }

    #[test]
    fn text_without_foldable_characters_is_borrowed() {
        assert!(matches!(View::of("naïve → plain").text, Cow::Borrowed(_)));
    }
}
