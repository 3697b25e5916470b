use std::fmt;

use sovereign_schemas::{ErrorCode, Problem};
use subtle::ConstantTimeEq;

/// A token has at least so many bytes: short ones can be guessed.
pub const TOKEN_BYTES_MIN: usize = 16;

/// The bearer token of the console: `Debug` prints a mask, there is no `Display`.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// Takes a token of at least [`TOKEN_BYTES_MIN`] visible ASCII characters.
    ///
    /// # Errors
    /// `invalid-config`, which never repeats the token.
    pub fn new(token: impl Into<String>) -> Result<Self, Problem> {
        let token = token.into();
        if token.len() < TOKEN_BYTES_MIN || !token.bytes().all(|b| b.is_ascii_graphic()) {
            let expected = format!("at least {TOKEN_BYTES_MIN} visible ASCII characters");
            return Err(
                Problem::new(ErrorCode::InvalidConfig, "the token cannot be used")
                    .field("token")
                    .expected(expected),
            );
        }
        Ok(Self(token))
    }

    /// Compares in a time that depends on the lengths only, so that no prefix can be guessed.
    pub(crate) fn matches(&self, offered: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(offered).into()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_prints_a_mask() {
        let token = Token::new("0123456789abcdef").unwrap();
        assert_eq!(format!("{token:?}"), "Token(***)");
    }

    #[test]
    fn matches_only_itself() {
        let token = Token::new("0123456789abcdef").unwrap();
        assert!(token.matches(b"0123456789abcdef"));
        assert!(!token.matches(b"0123456789abcdeg"));
        assert!(!token.matches(b"0123456789abcde"));
        assert!(!token.matches(b""));
    }

    #[test]
    fn refuses_what_can_be_guessed_or_not_be_sent() {
        for bad in ["", "short", "0123456789 abcdef", "0123456789abcde\n"] {
            let problem = Token::new(bad).unwrap_err();
            assert_eq!(problem.code, ErrorCode::InvalidConfig);
            assert_eq!(problem.found, None);
        }
    }
}
