//! The name in front of a value: a keyword as the last part of an identifier.

use super::{super::ascii, Kind};

/// Longest identifier looked at on each side of the keyword, in bytes.
const SIDE_BYTES_MAX: usize = 64;

/// Words that announce a secret. Case does not matter; the longest match counts.
#[rustfmt::skip]
pub(super) const KEYWORDS: &[(&str, Kind)] = &[
    ("passphrase", Kind::Password), ("pass phrase", Kind::Password), ("pass_phrase", Kind::Password),
    ("password", Kind::Password), ("passwd", Kind::Password), ("passcode", Kind::Password),
    ("pwd", Kind::Password), ("pass", Kind::Password),
    ("secret", Kind::Secret), ("credential", Kind::Secret), ("credentials", Kind::Secret),
    ("secret key", Kind::Secret), ("secret_key", Kind::Secret), ("secretkey", Kind::Secret),
    ("secret-key", Kind::Secret), ("secret access key", Kind::Secret),
    ("secret_access_key", Kind::Secret), ("secretaccesskey", Kind::Secret),
    ("secret-access-key", Kind::Secret),
    ("token", Kind::Token), ("bearer", Kind::Token), ("jwt", Kind::Token),
    ("apikey", Kind::ApiKey), ("api key", Kind::ApiKey), ("api_key", Kind::ApiKey),
    ("api-key", Kind::ApiKey), ("api.key", Kind::ApiKey), ("appkey", Kind::ApiKey),
    ("app_key", Kind::ApiKey), ("app-key", Kind::ApiKey), ("accesskey", Kind::ApiKey),
    ("access key", Kind::ApiKey), ("access_key", Kind::ApiKey), ("access-key", Kind::ApiKey),
    ("accountkey", Kind::ApiKey), ("account_key", Kind::ApiKey), ("account-key", Kind::ApiKey),
    ("authkey", Kind::ApiKey), ("auth_key", Kind::ApiKey), ("auth-key", Kind::ApiKey),
    ("service_key", Kind::ApiKey), ("service-key", Kind::ApiKey), ("servicekey", Kind::ApiKey),
    ("storage_key", Kind::ApiKey), ("subscription_key", Kind::ApiKey),
    ("subscription-key", Kind::ApiKey), ("consumer_key", Kind::ApiKey),
    ("consumerkey", Kind::ApiKey), ("client_key", Kind::ApiKey), ("clientkey", Kind::ApiKey),
    ("license_key", Kind::ApiKey), ("licensekey", Kind::ApiKey), ("license key", Kind::ApiKey),
    ("private key", Kind::PrivateKey), ("private_key", Kind::PrivateKey),
    ("privatekey", Kind::PrivateKey), ("private-key", Kind::PrivateKey),
    ("privkey", Kind::PrivateKey), ("priv_key", Kind::PrivateKey), ("priv-key", Kind::PrivateKey),
    ("signing key", Kind::PrivateKey), ("signing_key", Kind::PrivateKey),
    ("signingkey", Kind::PrivateKey), ("signing-key", Kind::PrivateKey),
    ("encryption key", Kind::PrivateKey), ("encryption_key", Kind::PrivateKey),
    ("encryptionkey", Kind::PrivateKey), ("encryption-key", Kind::PrivateKey),
    ("master key", Kind::PrivateKey), ("master_key", Kind::PrivateKey),
    ("masterkey", Kind::PrivateKey), ("master-key", Kind::PrivateKey),
    ("shared key", Kind::PrivateKey), ("shared_key", Kind::PrivateKey),
    ("sharedkey", Kind::PrivateKey), ("wallet key", Kind::PrivateKey),
    ("wallet_key", Kind::PrivateKey), ("walletkey", Kind::PrivateKey),
    ("seed", Kind::Seed),
];

/// What may follow the keyword and still name the secret itself. `token_type`, `password_file` and
/// `secret_name` name something else.
#[rustfmt::skip]
const SUFFIXES: &[&str] = &[
    "", "b64", "base64", "dev", "development", "enc", "hex", "key", "live", "new", "old", "plain",
    "plaintext", "prod", "production", "stage", "staging", "str", "test", "val", "value",
];

/// An identifier whose last part is a keyword.
pub(super) struct Key<'a> {
    pub(super) kind: Kind,
    /// The whole identifier.
    pub(super) name: &'a str,
    pub(super) start: usize,
    pub(super) end: usize,
}

impl<'a> Key<'a> {
    /// Gives none when the word is a part of another word (`tokenizer`, `compass`, `secretary`).
    pub(super) fn around(text: &'a str, start: usize, end: usize, kind: Kind) -> Option<Self> {
        let bytes = text.as_bytes();
        let in_name = |b: u8| ascii::is_url_safe(b) || b == b'.';
        let from = ascii::run_back(bytes, start, SIDE_BYTES_MAX, in_name);
        let to = ascii::run_within(bytes, end, SIDE_BYTES_MAX, ascii::is_url_safe);
        let keyword = &text[start..end];
        let short = ["pass", "pwd", "seed", "jwt", "bearer"];
        if short.iter().any(|word| keyword.eq_ignore_ascii_case(word)) {
            let before = ascii::before(bytes, start);
            let hump = before.is_ascii_lowercase() && bytes[start].is_ascii_uppercase();
            if before.is_ascii_alphanumeric() && !hump {
                return None;
            }
        }
        let name = &text[from..to];
        // Cursors of paged lists are called tokens too.
        let front = text[from..start].to_ascii_lowercase();
        if ["page", "next", "sync", "continuation", "cursor"]
            .iter()
            .any(|word| front.contains(word))
        {
            return None;
        }
        is_suffix(&text[end..to]).then_some(Self {
            kind,
            name,
            start: from,
            end: to,
        })
    }

    pub(super) fn name_has(&self, word: &str) -> bool {
        self.name.to_ascii_lowercase().contains(word)
    }

    /// `token=token`, `secret=app_secret`: a variable of the same name.
    pub(super) fn repeats_in(&self, value: &str) -> bool {
        value
            .to_ascii_lowercase()
            .contains(&self.name.to_ascii_lowercase())
    }
}

fn is_suffix(suffix: &str) -> bool {
    let suffix = suffix.trim_start_matches(['_', '-']).to_ascii_lowercase();
    let suffix = suffix.trim_end_matches(|c: char| c.is_ascii_digit() || c == '_' || c == '-');
    SUFFIXES.contains(&suffix)
}
