//! What the scrubber reports.

use serde::Serialize;

use super::span::Span;

/// The kind of secret; it names the placeholder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[non_exhaustive]
pub enum Label {
    /// A key that lets a program use a service.
    ApiKey,
    /// A bearer token: session, access, refresh, bot, JWT.
    Token,
    /// A password, also one inside a URL.
    Password,
    /// A value that the text itself calls a secret, of no known shape.
    Secret,
    /// A private key: PEM, wallet import format, extended private key, assigned 32-byte hex.
    PrivateKey,
    /// The address or extended public key of a wallet.
    WalletAddress,
    /// A BIP-39 phrase whose checksum holds.
    SeedPhrase,
    /// An IPv4 or IPv6 address with its port or prefix length.
    IpAddress,
    /// A whole text that was given up.
    Text,
}

impl Label {
    /// The name inside the placeholder and in reports, e.g. `API_KEY`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ApiKey => "API_KEY",
            Self::Token => "TOKEN",
            Self::Password => "PASSWORD",
            Self::Secret => "SECRET",
            Self::PrivateKey => "PRIVATE_KEY",
            Self::WalletAddress => "WALLET_ADDRESS",
            Self::SeedPhrase => "SEED_PHRASE",
            Self::IpAddress => "IP_ADDRESS",
            Self::Text => "TEXT",
        }
    }

    /// What stands in place of the secret, e.g. `[API_KEY_REDACTED]`.
    pub fn placeholder(self) -> String {
        format!("[{}_REDACTED]", self.as_str())
    }
}

impl std::fmt::Display for Label {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One replaced place. It says where and why, never what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The kind of secret.
    pub label: Label,
    /// The rule that found it, e.g. `github-token`; stable, for statistics and exceptions.
    pub rule: &'static str,
    /// First byte in the input.
    pub start: usize,
    /// Byte after the last one in the input.
    pub end: usize,
    /// Line of the first byte, counted from 1.
    pub line: usize,
}

/// A text after scrubbing, with what was found in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scrubbed {
    text: String,
    findings: Vec<Finding>,
}

impl Scrubbed {
    pub(super) fn new(text: String, findings: Vec<Finding>) -> Self {
        Self { text, findings }
    }

    /// The text with placeholders; equal to the input when there are no findings.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The text with placeholders, without a copy.
    pub fn into_text(self) -> String {
        self.text
    }

    /// The replaced places in the order of the input; they do not overlap.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Both parts, without a copy.
    pub fn into_parts(self) -> (String, Vec<Finding>) {
        (self.text, self.findings)
    }
}

/// Turns sorted spans into findings by counting lines along the way.
pub(super) fn list(input: &str, spans: &[Span]) -> Vec<Finding> {
    let (mut line, mut counted) = (1, 0);
    let mut findings = Vec::with_capacity(spans.len());
    for span in spans {
        line += input.as_bytes()[counted..span.start]
            .iter()
            .filter(|&&b| b == b'\n')
            .count();
        counted = span.start;
        findings.push(Finding {
            label: span.label,
            rule: span.rule,
            start: span.start,
            end: span.end,
            line,
        });
    }
    findings
}
