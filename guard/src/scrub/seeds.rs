//! BIP-39 phrases: words of the English list in a row whose checksum holds.
//!
//! The list alone would take plain prose; the checksum alone lets one run of twelve list words in
//! sixteen through, and such runs do not occur in prose.

use sha2::{Digest, Sha256};

use super::{Label, ascii, span::Candidate};

/// The 2,048 words of BIP-39, sorted; sha256 of the file is checked by a test.
const ENGLISH: &str = include_str!("bip39-english.txt");

/// Words of the shortest and the longest phrase; those between differ by three.
const WORDS_MIN: usize = 12;
const WORDS_MAX: usize = 24;

/// Most bytes between two words of one phrase: numbering, bullets, quotes, line ends.
const GAP_BYTES_MAX: usize = 32;

#[derive(Debug, Clone)]
pub(super) struct Seeds {
    words: Vec<&'static str>,
}

struct Word {
    start: usize,
    end: usize,
    index: u16,
}

impl Seeds {
    pub(super) fn english() -> Self {
        Self {
            words: ENGLISH.lines().collect(),
        }
    }

    fn index(&self, word: &[u8]) -> Option<u16> {
        if !(3..=8).contains(&word.len()) {
            return None;
        }
        let mut lower = [0_u8; 8];
        let lower = &mut lower[..word.len()];
        lower.copy_from_slice(word);
        lower.make_ascii_lowercase();
        let found = self
            .words
            .binary_search_by(|listed| listed.as_bytes().cmp(lower))
            .ok()?;
        u16::try_from(found).ok()
    }

    pub(super) fn find(&self, text: &str, found: &mut Vec<Candidate>) {
        let bytes = text.as_bytes();
        let mut run: Vec<Word> = Vec::new();
        let mut at = 0;
        loop {
            let gap = ascii::run(bytes, at, |b| !b.is_ascii_alphabetic());
            let start = skip_written_escape(bytes, at, gap);
            if gap >= bytes.len() {
                break;
            }
            let end = ascii::run(bytes, start, |b| b.is_ascii_alphabetic());
            if !run.is_empty() && !is_gap(text, at, start) {
                phrases(&run, found);
                run.clear();
            }
            match self.index(&bytes[start..end]) {
                Some(index) => run.push(Word { start, end, index }),
                None => {
                    phrases(&run, found);
                    run.clear();
                }
            }
            at = end;
        }
        phrases(&run, found);
    }
}

/// Start of the next word behind `\n`, `\r` or `\t` that are written out, as in JSON.
fn skip_written_escape(bytes: &[u8], from: usize, mut start: usize) -> usize {
    while start > from
        && bytes[start - 1] == b'\\'
        && matches!(ascii::at(bytes, start), b'n' | b'r' | b't')
    {
        let next = start + 1;
        start = ascii::run(bytes, next, |b| !b.is_ascii_alphabetic());
        if start == next {
            break;
        }
    }
    start
}

/// True for what may stand between two words of one phrase: white space, numbering, bullets, quotes
/// and list punctuation, and not much of it. Operators and other signs of code end a phrase.
fn is_gap(text: &str, from: usize, to: usize) -> bool {
    let gap = &text[from..to];
    let mut before = ' ';
    let mut all = gap.len() <= GAP_BYTES_MAX;
    for (at, c) in gap.char_indices() {
        all &= match c {
            '#' => gap[at + 1..].starts_with(|next: char| next.is_ascii_digit()),
            'n' | 'r' | 't' => before == '\\',
            ' '..='~' => c.is_ascii_digit() || " ,;.:|-_\"'`*()[]\\/".contains(c),
            _ => !c.is_alphanumeric(),
        };
        before = c;
    }
    all
}

/// Reports the longest valid phrase from each word of one run of list words on. Overlapping ones are
/// joined later, so that no word of a real phrase stays behind a chance hit beside it.
fn phrases(run: &[Word], found: &mut Vec<Candidate>) {
    for start in 0..run.len() {
        let rest = &run[start..];
        if rest.len() < WORDS_MIN {
            return;
        }
        if let Some(words) = longest_phrase(rest) {
            found.push(Candidate {
                start: rest[0].start,
                end: rest[words - 1].end,
                label: Label::SeedPhrase,
                rule: "bip39-phrase",
                specific: true,
            });
        }
    }
}

/// Words of the longest phrase that begins with the first word. BIP-39: eleven bits a word; of
/// every 33 bits the last one is checksum, and together these are the first bits of the SHA-256 of
/// the bits before them.
fn longest_phrase(words: &[Word]) -> Option<usize> {
    let mut packed = [0_u8; WORDS_MAX * 11 / 8];
    let (mut bits, mut count, mut length) = (0_u32, 0, 0);
    let mut longest = None;
    for (at, word) in words.iter().take(WORDS_MAX).enumerate() {
        bits = bits << 11 | u32::from(word.index);
        count += 11;
        while count >= 8 {
            count -= 8;
            packed[length] = (bits >> count) as u8;
            length += 1;
        }
        let words = at + 1;
        if words < WORDS_MIN || words % 3 != 0 {
            continue;
        }
        let entropy_bytes = words * 4 / 3;
        let checksum_bits = words / 3;
        // The checksum of 24 words is the last whole byte, a shorter one is still in `bits`.
        let given = if count == 0 {
            packed[entropy_bytes]
        } else {
            bits as u8
        };
        let hash = Sha256::digest(&packed[..entropy_bytes]);
        let mask = 0xff_u8 >> (8 - checksum_bits);
        if hash[0] >> (8 - checksum_bits) == given & mask {
            longest = Some(words);
        }
    }
    longest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_list_is_that_of_bip_39() {
        let digest = Sha256::digest(ENGLISH);
        let hex: String = digest.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(
            hex,
            "2f5eed53a4727b4bf8880d8f3f199efc90e58503646d9ff8eff3a2ed3b24dbda"
        );
        assert_eq!(Seeds::english().words.len(), 2048);
        assert!(Seeds::english().words.is_sorted());
    }

    #[test]
    fn phrases_of_zero_entropy_hold_in_every_length() {
        let seeds = Seeds::english();
        // the checksum words of all-zero entropy of 128, 160, 192, 224 and 256 bits
        let lasts = [
            (12, "about"),
            (15, "address"),
            (18, "agent"),
            (21, "admit"),
            (24, "art"),
        ];
        for (words, last) in lasts {
            let phrase = format!("{}{last}", "abandon ".repeat(words - 1));
            let mut found = Vec::new();
            seeds.find(&phrase, &mut found);
            let whole = found.iter().any(|c| (c.start, c.end) == (0, phrase.len()));
            assert!(whole, "{words}: {found:?}");
        }
    }
}
