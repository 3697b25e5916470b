//! The only way from raw text to [`Text`]: check, scrub, then seal or mark as plain.

use std::fmt;

use sovereign_admission::Admitted;
use sovereign_schemas::{ErrorCode, Problem, RawText, TEXT_BYTES_MAX, Text, Uuid};

use crate::scrub::{Finding, Scrubber};
use crate::seal::{SealError, TextKey, likeness, seal};

/// Text that holds no secret any more, on its way into an event. Prints only its length.
pub struct CleanText(String);

impl fmt::Debug for CleanText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CleanText({} bytes)", self.0.len())
    }
}

/// A leaf of a subject's key tree that no other text uses.
#[derive(Debug)]
pub struct Leaf {
    /// Which subject key.
    pub key_id: Uuid,
    /// Which leaf, below 2^40; never used twice.
    pub index: u64,
    /// Its key.
    pub key: TextKey,
    /// Makes the likeness of the text; the same for all texts of the subject.
    pub likeness_key: TextKey,
    /// 12 random bytes, so that even a leaf used twice by mistake would not repeat a key stream.
    pub nonce: [u8; 12],
}

/// Checks and scrubs one text.
///
/// # Errors
/// `text-too-long` above [`TEXT_BYTES_MAX`] bytes, `invalid-text` if it holds NUL.
///
/// # Examples
/// ```
/// use sovereign_guard::{admit, scrub::Scrubber};
/// use sovereign_schemas::RawText;
/// let scrubber = Scrubber::standard();
/// let clean = admit::clean(&scrubber, &RawText::new("reach me at 203.0.113.7")).unwrap();
/// let text = admit::plain(clean);
/// assert_eq!(text.as_plain(), Some("reach me at [IP_ADDRESS_REDACTED]"));
/// ```
pub fn clean(scrubber: &Scrubber, raw: &RawText) -> Result<CleanText, Problem> {
    Ok(clean_with_findings(scrubber, raw)?.0)
}

/// As [`clean`], with what was found: labels and places, for counting.
///
/// # Errors
/// As [`clean`].
pub fn clean_with_findings(
    scrubber: &Scrubber,
    raw: &RawText,
) -> Result<(CleanText, Vec<Finding>), Problem> {
    if raw.len() > TEXT_BYTES_MAX {
        return Err(Problem::new(ErrorCode::TextTooLong, "text is too long")
            .found(format!("{} bytes", raw.len()))
            .expected(format!("at most {TEXT_BYTES_MAX} bytes")));
    }
    let text = raw.expose_to_guard(&Admitted::by_guard());
    if let Some(at) = text.bytes().position(|b| b == 0) {
        return Err(Problem::new(
            ErrorCode::InvalidText,
            format!("text has a NUL at byte {at}"),
        ));
    }
    let (text, findings) = scrubber.scrub(text).into_parts();
    Ok((CleanText(text), findings))
}

/// For a department that does not seal.
#[must_use]
pub fn plain(text: CleanText) -> Text {
    Text::plain(Admitted::by_guard(), text.0)
}

/// What is equal for texts of one subject that say the same: runs of white space and the case of
/// ASCII letters make no difference. Without a leaf, for a department that does not seal, it is a
/// plain hash.
#[must_use]
pub fn likeness_of(text: &CleanText, leaf: Option<&Leaf>) -> [u8; 8] {
    let words: Vec<&str> = text.0.split_whitespace().collect();
    let same = words.join(" ").to_ascii_lowercase();
    match leaf {
        Some(leaf) => likeness(&leaf.likeness_key, same.as_bytes()),
        None => {
            let digest =
                sovereign_schemas::Digest::of(&[b"sovereign likeness v1\0", same.as_bytes()]);
            let mut short = [0; 8];
            short.copy_from_slice(&digest.0[..8]);
            short
        }
    }
}

/// Seals under a leaf.
///
/// # Errors
/// As [`seal`].
pub fn sealed(text: &CleanText, leaf: &Leaf) -> Result<Text, SealError> {
    let Leaf {
        key_id,
        index,
        key,
        nonce,
        likeness_key: _,
    } = leaf;
    let ciphertext = seal(key, *nonce, key_id.into_bytes(), *index, text.0.as_bytes())?;
    Ok(Text::sealed(
        Admitted::by_guard(),
        *key_id,
        *index,
        *nonce,
        ciphertext,
    ))
}

/// Opens a sealed text with its key, or reads a plain one.
///
/// # Errors
/// [`SealError::NotAuthentic`] if the key or the text is another.
pub fn open(text: &Text, key: &TextKey) -> Result<String, SealError> {
    if let Some(plain) = text.as_plain() {
        return Ok(plain.to_owned());
    }
    let bytes = crate::seal::open(
        key,
        *text.nonce(),
        text.key_id().into_bytes(),
        text.index(),
        text.bytes(),
    )?;
    String::from_utf8(bytes).map_err(|_| SealError::NotAuthentic)
}

/// Refuses an id or code that looks like a secret or personal data: those travel unsealed, as keys
/// of topics among other things.
///
/// # Errors
/// `sensitive-identifier`, which names the field and the rule, never the value.
pub fn check_identifier(scrubber: &Scrubber, field: &str, value: &str) -> Result<(), Problem> {
    match scrubber.scrub(value).findings().first() {
        None => Ok(()),
        Some(finding) => Err(Problem::new(
            ErrorCode::SensitiveIdentifier,
            format!("looks like {} (rule {})", finding.label, finding.rule),
        )
        .field(field)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seal::SubjectKey;

    #[test]
    fn sealed_text_opens_only_with_its_own_key() {
        let scrubber = Scrubber::standard();
        let clean = clean(&scrubber, &RawText::new("close 103.12 above average")).unwrap();
        let root = SubjectKey::from_bytes([7; 32]);
        let leaf = |index| Leaf {
            key_id: Uuid::from_u128(1),
            index,
            key: root.derive(index).unwrap(),
            likeness_key: root.derive(crate::seal::LIKENESS_INDEX).unwrap(),
            nonce: [3; 12],
        };
        let text = sealed(&clean, &leaf(5)).unwrap();
        assert!(text.is_sealed());
        assert_eq!(
            open(&text, &leaf(5).key).unwrap(),
            "close 103.12 above average"
        );
        assert!(matches!(
            open(&text, &leaf(6).key),
            Err(SealError::NotAuthentic)
        ));
    }

    #[test]
    fn a_likeness_is_equal_for_equal_texts_of_one_subject_only() {
        let scrubber = Scrubber::standard();
        let clean = |text: &str| clean(&scrubber, &RawText::new(text)).unwrap();
        let leaf = |root: u8, index| {
            let root = SubjectKey::from_bytes([root; 32]);
            Leaf {
                key_id: Uuid::from_u128(1),
                index,
                key: root.derive(index).unwrap(),
                likeness_key: root.derive(crate::seal::LIKENESS_INDEX).unwrap(),
                nonce: [3; 12],
            }
        };
        let of = |text: &str, root, index| likeness_of(&clean(text), Some(&leaf(root, index)));
        assert_eq!(of("wait and see", 1, 5), of(" Wait  and\nsee", 1, 6));
        assert_ne!(of("wait and see", 1, 5), of("wait and seek", 1, 5));
        assert_ne!(of("wait and see", 1, 5), of("wait and see", 2, 5));
        let plain = likeness_of(&clean("wait and see"), None);
        assert_ne!(of("wait and see", 1, 5), plain);
        assert_eq!(plain, likeness_of(&clean("wait  and see"), None));
    }

    #[test]
    fn refuses_nul_length_and_sensitive_ids() {
        let scrubber = Scrubber::standard();
        let code = |text: &str| clean(&scrubber, &RawText::new(text)).unwrap_err().code;
        assert_eq!(code("a\0b"), ErrorCode::InvalidText);
        assert_eq!(
            code(&"x".repeat(TEXT_BYTES_MAX + 1)),
            ErrorCode::TextTooLong
        );
        let problem = check_identifier(&scrubber, "id", "203.0.113.7").unwrap_err();
        assert_eq!(problem.code, ErrorCode::SensitiveIdentifier);
        assert!(!problem.to_string().contains("203.0"));
        assert_eq!(
            check_identifier(&scrubber, "id", "trade_eth_040226_1201"),
            Ok(())
        );
    }
}
