//! Tokens known by their first characters. Adding one needs a line here and a case in
//! `tests/scrub/tokens.txt`.
//!
//! Prefixes, alphabets and lengths are the issuers' published formats; the public rule set of
//! gitleaks (MIT) collects most of them.

use super::Label::{self, ApiKey, PrivateKey, Token};

/// Characters a token's body may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Alphabet {
    /// `A-Z 0-9`
    Upper,
    /// `0-9 a-f`
    Hex,
    /// `A-Z a-z 0-9`
    Alnum,
    /// Alnum and `_`
    Word,
    /// Alnum, `-` and `_`
    UrlSafe,
    /// Alnum, `-`, `_` and `.`
    Dotted,
    /// Alnum, `-`, `_`, `/`, `+` and `=`
    Base64,
}

impl Alphabet {
    pub(super) const COUNT: usize = 7;

    pub(super) fn has(self, b: u8) -> bool {
        match self {
            Self::Upper => b.is_ascii_uppercase() || b.is_ascii_digit(),
            Self::Hex => b.is_ascii_digit() || (b'a'..=b'f').contains(&b),
            Self::Alnum => b.is_ascii_alphanumeric(),
            Self::Word => b.is_ascii_alphanumeric() || b == b'_',
            Self::UrlSafe => super::ascii::is_url_safe(b),
            Self::Dotted => super::ascii::is_url_safe(b) || b == b'.',
            Self::Base64 => super::ascii::is_url_safe(b) || matches!(b, b'/' | b'+' | b'='),
        }
    }
}

/// What else must hold for the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extra {
    /// Nothing: the prefix is unmistakable.
    None,
    /// A digit somewhere: the prefix is also an English word.
    Digit,
    /// Letters and digits, and a stretch of 16 without `-` or `_`: the prefix also begins names.
    Random,
    /// Nothing, and the prefix itself stays: it is an address, not part of the secret.
    KeepPrefix,
}

/// One shape: a prefix, then `min..=max` characters of `alphabet`, then none of it.
#[derive(Debug)]
pub(super) struct TokenRule {
    pub(super) rule: &'static str,
    pub(super) label: Label,
    pub(super) prefix: &'static str,
    pub(super) alphabet: Alphabet,
    pub(super) min: usize,
    pub(super) max: usize,
    pub(super) extra: Extra,
}

const ANY: usize = usize::MAX;

const fn shape(
    rule: &'static str,
    label: Label,
    prefix: &'static str,
    alphabet: Alphabet,
    (min, max): (usize, usize),
    extra: Extra,
) -> TokenRule {
    TokenRule {
        rule,
        label,
        prefix,
        alphabet,
        min,
        max,
        extra,
    }
}

use Alphabet::{Alnum, Base64, Dotted, Hex, Upper, UrlSafe, Word};
use Extra::{Digit, KeepPrefix, None as Plain, Random};

#[rustfmt::skip]
pub(super) const RULES: &[TokenRule] = &[
    shape("age-secret-key", PrivateKey, "AGE-SECRET-KEY-1", Upper, (58, 58), Plain),
    shape("airtable-token", Token, "pat", Dotted, (79, 79), Random),
    shape("alibaba-access-key", ApiKey, "LTAI", Alnum, (20, 24), Digit),
    shape("anthropic-api-key", ApiKey, "sk-ant-", UrlSafe, (20, ANY), Plain),
    shape("atlassian-token", Token, "ATATT3", Base64, (60, ANY), Plain),
    shape("aws-access-key-id", ApiKey, "AKIA", Upper, (16, 16), Plain),
    shape("aws-access-key-id", ApiKey, "ASIA", Upper, (16, 16), Plain),
    shape("aws-access-key-id", ApiKey, "ABIA", Upper, (16, 16), Digit),
    shape("aws-access-key-id", ApiKey, "ACCA", Upper, (16, 16), Digit),
    shape("clojars-token", Token, "CLOJARS_", Alnum, (60, 60), Plain),
    shape("crates-io-token", Token, "cio", Alnum, (32, 32), Random),
    shape("databricks-token", Token, "dapi", Hex, (32, 34), Plain),
    shape("digitalocean-token", Token, "doo_v1_", Hex, (64, 64), Plain),
    shape("digitalocean-token", Token, "dop_v1_", Hex, (64, 64), Plain),
    shape("digitalocean-token", Token, "dor_v1_", Hex, (64, 64), Plain),
    shape("discord-webhook", Token, "discord.com/api/webhooks/", Base64, (40, ANY), KeepPrefix),
    shape("discord-webhook", Token, "discordapp.com/api/webhooks/", Base64, (40, ANY), KeepPrefix),
    shape("docker-token", Token, "dckr_pat_", UrlSafe, (20, ANY), Plain),
    shape("doppler-token", Token, "dp.pt.", Alnum, (40, 48), Plain),
    shape("figma-token", Token, "figd_", UrlSafe, (36, ANY), Plain),
    shape("fly-token", Token, "fm2_", Base64, (60, ANY), Plain),
    shape("github-fine-grained-token", Token, "github_pat_", Word, (22, ANY), Plain),
    shape("github-token", Token, "gho_", Alnum, (36, ANY), Plain),
    shape("github-token", Token, "ghp_", Alnum, (36, ANY), Plain),
    shape("github-token", Token, "ghr_", Alnum, (36, ANY), Plain),
    shape("github-token", Token, "ghs_", Alnum, (36, ANY), Plain),
    shape("github-token", Token, "ghu_", Alnum, (36, ANY), Plain),
    shape("gitlab-token", Token, "GR1348941", UrlSafe, (20, ANY), Plain),
    shape("gitlab-token", Token, "glagent-", UrlSafe, (50, ANY), Plain),
    shape("gitlab-token", Token, "glcbt-", UrlSafe, (20, ANY), Plain),
    shape("gitlab-token", Token, "gldt-", UrlSafe, (20, ANY), Plain),
    shape("gitlab-token", Token, "glft-", UrlSafe, (20, ANY), Plain),
    shape("gitlab-token", Token, "gloas-", UrlSafe, (60, ANY), Plain),
    shape("gitlab-token", Token, "glpat-", Dotted, (20, ANY), Plain),
    shape("gitlab-token", Token, "glptt-", UrlSafe, (40, ANY), Plain),
    shape("gitlab-token", Token, "glrt-", UrlSafe, (20, ANY), Plain),
    shape("gitlab-token", Token, "glsoat-", UrlSafe, (20, ANY), Plain),
    shape("google-api-key", ApiKey, "AIza", UrlSafe, (35, 40), Plain),
    shape("google-oauth-secret", ApiKey, "GOCSPX-", UrlSafe, (20, ANY), Plain),
    shape("google-oauth-token", Token, "ya29.", UrlSafe, (20, ANY), Plain),
    shape("grafana-token", Token, "glc_", Base64, (32, ANY), Plain),
    shape("grafana-token", Token, "glsa_", Word, (41, ANY), Plain),
    shape("groq-api-key", ApiKey, "gsk_", Alnum, (40, ANY), Plain),
    shape("heroku-api-key", ApiKey, "HRKU-", UrlSafe, (36, ANY), Plain),
    shape("hugging-face-token", Token, "api_org_", Alnum, (34, 34), Plain),
    shape("hugging-face-token", Token, "hf_", Alnum, (30, 50), Plain),
    shape("linear-api-key", ApiKey, "lin_api_", Alnum, (32, ANY), Plain),
    shape("mailgun-key", ApiKey, "key-", Hex, (32, 32), Plain),
    shape("mapbox-secret-token", Token, "sk.eyJ", Dotted, (40, ANY), Plain),
    shape("new-relic-key", ApiKey, "NRAK-", Upper, (27, 27), Plain),
    shape("notion-token", Token, "ntn_", Alnum, (40, ANY), Plain),
    shape("npm-token", Token, "npm_", Alnum, (36, 36), Plain),
    shape("openai-api-key", ApiKey, "sk-", UrlSafe, (20, ANY), Random),
    shape("openai-api-key", ApiKey, "sk-admin-", UrlSafe, (20, ANY), Random),
    shape("openai-api-key", ApiKey, "sk-proj-", UrlSafe, (20, ANY), Plain),
    shape("openai-api-key", ApiKey, "sk-svcacct-", UrlSafe, (20, ANY), Plain),
    shape("openrouter-api-key", ApiKey, "sk-or-v1-", Hex, (64, 64), Plain),
    shape("perplexity-api-key", ApiKey, "pplx-", Alnum, (40, ANY), Plain),
    shape("planetscale-token", Token, "pscale_", Dotted, (32, ANY), Random),
    shape("postman-api-key", ApiKey, "PMAK-", UrlSafe, (59, 59), Plain),
    shape("pulumi-token", Token, "pul-", Hex, (40, 40), Plain),
    shape("pypi-token", Token, "pypi-", UrlSafe, (50, ANY), Random),
    shape("replicate-token", Token, "r8_", Alnum, (37, 40), Plain),
    shape("rubygems-token", Token, "rubygems_", Hex, (48, 48), Plain),
    shape("sendgrid-api-key", ApiKey, "SG.", Dotted, (64, 68), Random),
    shape("sentry-token", Token, "sntrys_", Base64, (40, ANY), Plain),
    shape("sentry-token", Token, "sntryu_", Hex, (64, 64), Plain),
    shape("shopify-token", Token, "shpat_", Alnum, (32, 32), Plain),
    shape("shopify-token", Token, "shpca_", Alnum, (32, 32), Plain),
    shape("shopify-token", Token, "shppa_", Alnum, (32, 32), Plain),
    shape("shopify-token", Token, "shpss_", Alnum, (32, 32), Plain),
    shape("slack-token", Token, "xapp-", UrlSafe, (20, ANY), Digit),
    shape("slack-token", Token, "xoxa-", UrlSafe, (10, ANY), Digit),
    shape("slack-token", Token, "xoxb-", UrlSafe, (10, ANY), Digit),
    shape("slack-token", Token, "xoxe-", UrlSafe, (10, ANY), Digit),
    shape("slack-token", Token, "xoxe.xoxb-", UrlSafe, (10, ANY), Digit),
    shape("slack-token", Token, "xoxe.xoxp-", UrlSafe, (10, ANY), Digit),
    shape("slack-token", Token, "xoxo-", UrlSafe, (10, ANY), Digit),
    shape("slack-token", Token, "xoxp-", UrlSafe, (10, ANY), Digit),
    shape("slack-token", Token, "xoxr-", UrlSafe, (10, ANY), Digit),
    shape("slack-token", Token, "xoxs-", UrlSafe, (10, ANY), Digit),
    shape("slack-webhook", Token, "hooks.slack.com/services/", Base64, (20, ANY), KeepPrefix),
    shape("slack-webhook", Token, "hooks.slack.com/triggers/", Base64, (20, ANY), KeepPrefix),
    shape("slack-webhook", Token, "hooks.slack.com/workflows/", Base64, (20, ANY), KeepPrefix),
    shape("square-token", Token, "sq0atp-", UrlSafe, (22, ANY), Plain),
    shape("square-token", Token, "sq0csp-", UrlSafe, (43, ANY), Plain),
    shape("stripe-key", ApiKey, "rk_live_", Alnum, (10, ANY), Plain),
    shape("stripe-key", ApiKey, "rk_prod_", Alnum, (10, ANY), Plain),
    shape("stripe-key", ApiKey, "rk_test_", Alnum, (10, ANY), Plain),
    shape("stripe-key", ApiKey, "sk_live_", Alnum, (10, ANY), Plain),
    shape("stripe-key", ApiKey, "sk_prod_", Alnum, (10, ANY), Plain),
    shape("stripe-key", ApiKey, "sk_test_", Alnum, (10, ANY), Plain),
    shape("stripe-webhook-secret", ApiKey, "whsec_", Base64, (24, ANY), Plain),
    shape("supabase-token", Token, "sbp_", Hex, (40, 40), Plain),
    shape("tailscale-key", ApiKey, "tskey-", UrlSafe, (20, ANY), Digit),
    shape("twilio-api-key", ApiKey, "SK", Hex, (32, 32), Plain),
    shape("vault-token", Token, "hvb.", UrlSafe, (60, ANY), Plain),
    shape("vault-token", Token, "hvr.", UrlSafe, (60, ANY), Plain),
    shape("vault-token", Token, "hvs.", UrlSafe, (24, ANY), Plain),
    shape("xai-api-key", ApiKey, "xai-", Alnum, (60, ANY), Plain),
];
