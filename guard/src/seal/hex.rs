//! 32 bytes as 64 hexadecimal characters, without leaving copies behind.

use zeroize::{Zeroize, Zeroizing};

use super::SealError;

pub(super) fn encode(bytes: &[u8; 32]) -> Zeroizing<String> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = Zeroizing::new(String::with_capacity(64));
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

/// Accepts 64 hexadecimal characters of either case and at most one end of line after them.
pub(super) fn decode(text: &str) -> Result<[u8; 32], SealError> {
    let text = text.strip_suffix('\n').unwrap_or(text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    let bad = |bad_digit| SealError::KeyFormat {
        found: text.chars().count(),
        bad_digit,
    };
    if text.len() != 64 {
        return Err(bad(false));
    }
    let mut bytes = [0_u8; 32];
    for (at, digit) in text.bytes().enumerate() {
        let Some(value) = char::from(digit).to_digit(16) else {
            bytes.zeroize();
            return Err(bad(true));
        };
        bytes[at / 2] = (bytes[at / 2] << 4) | value as u8;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_keys_round_trip_with_or_without_an_end_of_line() {
        let bytes: [u8; 32] = std::array::from_fn(|at| at as u8 * 7);
        let text = encode(&bytes);
        assert_eq!(decode(&text), Ok(bytes));
        assert_eq!(decode(&format!("{}\n", text.to_uppercase())), Ok(bytes));
        assert_eq!(decode(&format!("{}\r\n", *text)), Ok(bytes));
    }

    #[test]
    fn refuses_what_is_not_64_hexadecimal_characters() {
        let bad = |found, bad_digit| Err(SealError::KeyFormat { found, bad_digit });
        assert_eq!(decode(""), bad(0, false));
        assert_eq!(decode(&"0".repeat(63)), bad(63, false));
        assert_eq!(decode(&format!("{}\n\n", "0".repeat(64))), bad(65, false));
        assert_eq!(decode(&format!("{}g", "0".repeat(63))), bad(64, true));
        assert_eq!(decode(&format!("{}é", "0".repeat(62))), bad(63, true));
        assert_eq!(decode(&format!("+{}", "0".repeat(63))), bad(64, true));
    }
}
