//! The only way from raw text to [`Text`]: check, scrub, then seal or mark as plain.

use std::fmt;

use sovereign_admission::Admitted;
use sovereign_schemas::{ErrorCode, Problem, RawText, TEXT_BYTES_MAX, Text, Uuid};

use crate::scrub::{Finding, Scrubber};
use crate::seal::{SealError, TextKey, seal};

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
