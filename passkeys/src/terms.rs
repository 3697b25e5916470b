use std::fmt;

use ring::digest::{Context, SHA256};

use crate::bytes::to_base64url;

/// What is signed: 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Challenge(pub [u8; 32]);

impl fmt::Display for Challenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&to_base64url(&self.0))
    }
}

impl fmt::Debug for Challenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Challenge({self})")
    }
}

/// What a person agrees to by approving. Every field is part of the challenge, so a signature
/// under one approval is none under another, nor under this one with any field changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms<'a> {
    /// The approval that is answered; at most 65,535 bytes.
    pub approval_id: &'a str,
    /// SHA-256 of the exact action.
    pub action_digest: [u8; 32],
    /// Version of the policy that asked for the approval.
    pub policy_version: i32,
    /// Last moment for an answer, in microseconds since 1970.
    pub expires_at_us: i64,
}

impl Terms<'_> {
    /// Keeps these signatures apart from any other that a passkey may give.
    pub const DOMAIN: &'static [u8] = b"sovereign approval v1\0";

    /// SHA-256 of the domain, the id with its length before it (two bytes), the digest, the
    /// version (four bytes) and the expiry (eight bytes); numbers are big-endian.
    ///
    /// # Panics
    /// If the id is longer than 65,535 bytes, which no id of an aggregate is.
    #[must_use]
    pub fn challenge(&self) -> Challenge {
        let length = u16::try_from(self.approval_id.len());
        let length = length.expect("the id of an approval is short");
        let mut context = Context::new(&SHA256);
        for part in [
            Self::DOMAIN,
            &length.to_be_bytes(),
            self.approval_id.as_bytes(),
            &self.action_digest,
            &self.policy_version.to_be_bytes(),
            &self.expires_at_us.to_be_bytes(),
        ] {
            context.update(part);
        }
        let mut out = [0; 32];
        out.copy_from_slice(context.finish().as_ref());
        Challenge(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERMS: Terms<'static> = Terms {
        approval_id: "approval_trade_1",
        action_digest: [1; 32],
        policy_version: 1,
        expires_at_us: 1_700_000_000_000_000,
    };

    #[test]
    fn every_field_changes_the_challenge() {
        let mut seen = vec![TERMS.challenge()];
        for other in [
            Terms {
                approval_id: "approval_trade_2",
                ..TERMS
            },
            Terms {
                action_digest: [2; 32],
                ..TERMS
            },
            Terms {
                policy_version: 2,
                ..TERMS
            },
            Terms {
                expires_at_us: 1_700_000_000_000_001,
                ..TERMS
            },
        ] {
            let challenge = other.challenge();
            assert!(!seen.contains(&challenge), "{other:?}");
            seen.push(challenge);
        }
    }

    /// The expected value was computed in Python from the page alone.
    #[test]
    fn challenge_is_the_one_that_the_formats_page_describes() {
        let hex: String = TERMS
            .challenge()
            .0
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        assert_eq!(
            hex,
            "6245dcb12663b28ea8356f654d5849a4fe9c67899c22310c0b71e0353a82165a"
        );
    }
}
