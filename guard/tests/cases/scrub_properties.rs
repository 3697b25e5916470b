use std::time::Instant;

use proptest::{prelude::*, sample::select};
use sovereign_guard::scrub::{Scrubbed, Scrubber};

/// Pieces that rules begin, continue or end with, so that random joins of them come close to every
/// rule's edges.
#[rustfmt::skip]
const PIECES: &[&str] = &[
    "password", "secret", "token", "api_key", "API_KEY", "private_key", "seed", "--password", "pwd",
    "=", ": ", " = ", ":=", "=>", " is ", "\"", "'", "\\\"", "\\", "`", "<", ">", "</", "{", "}", "${",
    "hunter2", "Tr0ub4dor&3", "none", "[TOKEN_REDACTED]", "[API_KEY_REDACTED]", "_REDACTED]", "[", "]",
    "AKIAA1A1A1A1A1A1A1A1", "ghp_", "sk-", "sk-proj-", "SG.", "xoxb-", "eyJhbGciOiJub25lIn0", "Bearer ",
    "Authorization: ", "Basic ", "dXNlcjpwYXNzd29yZA==", "aB3daB3daB3daB3daB3d", "0a1b0a1b0a1b0a1b",
    "-----BEGIN RSA PRIVATE KEY-----", "-----END RSA PRIVATE KEY-----", "-----", "PuTTY-User-Key-File-2",
    "Private-Lines:", "Private-MAC:", "Proc-Type: 4", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "\\n", "\n", "\r\n",
    "://", "user:", "p@ss", "@", "host", "/", ".", ":", "::", "-", "_", ",", ";", " ", "\t", "1", "12", "255",
    "192.0.2.7", "10.0.0.1", "1.2.3.4", "version ", " to ", ":8080", "/24", "2001:db8::1", "fe80::1", "%eth0",
    "12ZEw5Hcv1hTb6YUQJ69y1V7uhcoDz92PH", "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", "solana ",
    "29d2S7vB453rNYFdR5Ycwt7y9haRT5fwVwL9zTmBhfV2", "abandon ", "about ", "legal ", "winner ", "zoo ",
    "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about",
    "\u{200B}", "\u{FF11}", "\u{FF0E}", "\u{FB01}", "é", "漢", "🦀", "\u{0}", "\u{202E}", "…", "\u{A0}",
];

fn joined() -> impl Strategy<Value = String> {
    prop::collection::vec(select(PIECES), 0..24).prop_map(|pieces| pieces.concat())
}

/// Holds what must be true of every text; gives the result for more.
fn check(scrubber: &Scrubber, input: &str) -> Scrubbed {
    let scrubbed = scrubber.scrub(input);
    let mut rebuilt = String::new();
    let (mut copied, mut line_floor) = (0, 1);
    for found in scrubbed.findings() {
        assert!(
            copied <= found.start && found.start < found.end,
            "{input:?}: {found:?}"
        );
        let line = 1 + input[..found.start].matches('\n').count();
        assert!(
            found.line == line && line >= line_floor,
            "{input:?}: {found:?}"
        );
        rebuilt.push_str(&input[copied..found.start]);
        rebuilt.push_str(&found.label.placeholder());
        (copied, line_floor) = (found.end, line);
    }
    rebuilt.push_str(&input[copied..]);
    assert_eq!(rebuilt, scrubbed.text(), "{input:?}");
    let again = scrubber.scrub(scrubbed.text());
    assert_eq!(again.text(), scrubbed.text(), "{input:?}");
    assert!(
        again.findings().is_empty(),
        "{input:?}: {:?}",
        again.findings()
    );
    scrubbed
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn joined_pieces_scrub_once_and_for_all(input in joined()) {
        check(&Scrubber::standard(), &input);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn any_text_scrubs_once_and_for_all(input in "\\PC*") {
        check(&Scrubber::standard(), &input);
    }

    #[test]
    fn a_secret_is_gone_wherever_it_stands(before in "[ -~]{0,20}", after in "[ -~]{0,20}") {
        let secret = "AKIAA1A1A1A1A1A1A1A1";
        let input = format!("{before} {secret} {after}");
        let scrubbed = check(&Scrubber::standard(), &input);
        prop_assert!(!scrubbed.text().contains(secret));
    }
}

/// Texts made to be slow: a megabyte of each piece, alone and in pairs. The slowest takes half a
/// second on an idle core; a quadratic rule would take minutes. The bound leaves room for load.
#[test]
fn a_megabyte_of_any_repeated_piece_takes_time_in_proportion() {
    const BYTES: usize = 1 << 20;
    let scrubber = Scrubber::standard();
    let pairs = [
        ("password", "='"),
        ("password='", "\\"),
        ("token", ": "),
        ("sk-", "a-"),
        ("sk-", ""),
        ("eyJ.", ""),
        ("-----BEGIN RSA PRIVATE KEY-----\n", ""),
        ("://", "a"),
        ("a://", "u:"),
        ("abandon ", "ability "),
        ("zoo ", ""),
        ("add ", "zoo "),
        ("1.2.3.4 ", ""),
        ("a:", ""),
        ("2001:db8::1 ", ""),
        ("bearer ", ""),
        ("M", "aB3d"),
        ("123456789:AA", ""),
        ("1", "L"),
        ("12ZEw5Hcv1hTb6YUQJ69y1V7uhcoDz92PJ ", ""),
        ("[TOKEN_REDACTED]", ""),
        ("_REDACTED]", ""),
        ("\u{200B}", "\u{FF11}"),
        ("PuTTY-User-Key-File-2: Private-Lines:", ""),
        ("SG.", ""),
        ("password=${", "["),
        ("ghp_", "A"),
        ("0x", "0"),
        ("\\n", "\\"),
        ("漢", "é"),
    ];
    let singles = PIECES.iter().map(|piece| (*piece, ""));
    let mut slowest = (0, String::new());
    for (one, two) in singles.chain(pairs) {
        let input = format!("{one}{two}").repeat(BYTES / (one.len() + two.len()));
        let begun = Instant::now();
        let scrubbed = scrubber.scrub(&input);
        let took_ms = begun.elapsed().as_millis();
        if took_ms > slowest.0 {
            slowest = (took_ms, format!("{one}{two}"));
        }
        assert!(!scrubbed.text().is_empty());
        assert!(took_ms < 2_000, "{one}{two} took {took_ms} ms");
    }
    println!("slowest: {} ms for {:?}", slowest.0, slowest.1);
}
