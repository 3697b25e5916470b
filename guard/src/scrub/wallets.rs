//! Wallet addresses and keys whose checksum holds. A Git hash, a UUID or a SHA-256 has none.

use bech32::{Hrp, segwit};
use bs58::Alphabet;
use sha3::{Digest, Keccak256};

use super::{Label, ascii, span::Candidate};

/// Shortest and longest run of letters and digits that can be an address or an extended key.
const RUN_BYTES: std::ops::RangeInclusive<usize> = 25..=112;

/// How far before a base58 string without a checksum its name may stand, in bytes.
const CONTEXT_BYTES: usize = 64;

pub(super) fn find(text: &str, found: &mut Vec<Candidate>) {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let Some(gap) = bytes[at..].iter().position(u8::is_ascii_alphanumeric) else {
            break;
        };
        let start = at + gap;
        let end = ascii::run(bytes, start, |b| b.is_ascii_alphanumeric());
        at = end;
        if !RUN_BYTES.contains(&(end - start)) {
            continue;
        }
        let run = &text[start..end];
        let context = &bytes[start.saturating_sub(CONTEXT_BYTES)..start];
        if let Some((label, rule)) = classify(run, context) {
            found.push(Candidate {
                start,
                end,
                label,
                rule,
                specific: true,
            });
        }
    }
}

fn classify(run: &str, context: &[u8]) -> Option<(Label, &'static str)> {
    let address = |rule| Some((Label::WalletAddress, rule));
    match run.as_bytes()[0] {
        b'0' => {
            return if is_ethereum(run) {
                address("ethereum-address")
            } else {
                None
            };
        }
        b'b' | b'B' | b't' | b'T' | b'l' | b'L' if is_segwit(run) => {
            return address("segwit-address");
        }
        b'n' if is_nostr_key(run) => return Some((Label::PrivateKey, "nostr-private-key")),
        b'r' | b's' => {
            if let Some(found) = ripple(run) {
                return Some(found);
            }
        }
        _ => {}
    }
    base58check(run).or_else(|| {
        let solana = is_solana(run) && names_solana(context);
        if solana {
            address("solana-address")
        } else {
            None
        }
    })
}

/// Versions of Base58Check payloads: bitcoin/bitcoin, litecoin-project/litecoin and
/// dogecoin/dogecoin `src/chainparams.cpp`; TRON's documentation; BIP-32 for extended keys.
fn base58check(run: &str) -> Option<(Label, &'static str)> {
    let first = run.as_bytes()[0];
    let begins = matches!(
        first,
        b'1' | b'2' | b'3' | b'5' | b'6' | b'9' | b'A' | b'D' | b'K' | b'L'
    );
    let begins = begins || matches!(first, b'M' | b'Q' | b'T' | b'c' | b'm' | b'n' | b't' | b'x');
    if !begins && !matches!(first, b'y' | b'z' | b'u' | b'v') {
        return None;
    }
    let payload = bs58::decode(run).with_check(None).into_vec().ok()?;
    let address = |rule| Some((Label::WalletAddress, rule));
    match (payload.len(), *payload.first()?) {
        (21, 0x00 | 0x05 | 0x6f | 0xc4) => address("bitcoin-address"),
        (21, 0x30 | 0x32 | 0x3a) => address("litecoin-address"),
        (21, 0x1e | 0x16) => address("dogecoin-address"),
        (21, 0x41) => address("tron-address"),
        (33 | 34, 0x80 | 0xef | 0xb0 | 0x9e) => Some((Label::PrivateKey, "wallet-import-format")),
        (78, _) => extended_key(&payload),
        _ => None,
    }
}

/// BIP-32: byte 45 of a private extended key is zero, of a public one it is 2 or 3.
fn extended_key(payload: &[u8]) -> Option<(Label, &'static str)> {
    match payload.get(45)? {
        0 => Some((Label::PrivateKey, "extended-private-key")),
        2 | 3 => Some((Label::WalletAddress, "extended-public-key")),
        _ => None,
    }
}

/// XRP Ledger: its own alphabet; accounts have version 0, seeds version 0x21.
fn ripple(run: &str) -> Option<(Label, &'static str)> {
    let decoded = bs58::decode(run)
        .with_alphabet(Alphabet::RIPPLE)
        .with_check(None)
        .into_vec();
    let payload = decoded.ok()?;
    match (payload.len(), payload.first()?) {
        (21, 0x00) => Some((Label::WalletAddress, "xrp-address")),
        (17, 0x21) => Some((Label::PrivateKey, "xrp-seed")),
        _ => None,
    }
}

/// BIP-173 and BIP-350: bech32 for witness version 0, bech32m above, on Bitcoin and Litecoin.
fn is_segwit(run: &str) -> bool {
    let networks = ["bc", "tb", "bcrt", "ltc", "tltc"];
    segwit::decode(run).is_ok_and(|(network, _, _)| {
        networks
            .iter()
            .any(|&name| Hrp::parse(name).is_ok_and(|hrp| hrp == network))
    })
}

/// NIP-19: `nsec1…` is bech32 of a 32-byte private key.
fn is_nostr_key(run: &str) -> bool {
    run.starts_with("nsec1")
        && bech32::primitives::decode::CheckedHrpstring::new::<bech32::Bech32>(run)
            .is_ok_and(|checked| checked.byte_iter().count() == 32)
}

/// `0x` and 40 hexadecimal digits; in mixed case the checksum of EIP-55 must hold.
fn is_ethereum(run: &str) -> bool {
    let Some(digits) = run.strip_prefix("0x").filter(|digits| digits.len() == 40) else {
        return false;
    };
    if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return false;
    }
    let upper = digits.bytes().any(|b| b.is_ascii_uppercase());
    let lower = digits.bytes().any(|b| b.is_ascii_lowercase());
    if !(upper && lower) {
        return true;
    }
    let hash = Keccak256::digest(digits.to_ascii_lowercase());
    digits.bytes().enumerate().all(|(at, digit)| {
        let nibble = if at % 2 == 0 {
            hash[at / 2] >> 4
        } else {
            hash[at / 2] & 15
        };
        !digit.is_ascii_alphabetic() || digit.is_ascii_uppercase() == (nibble >= 8)
    })
}

/// Solana addresses are 32 bytes in base58 without a checksum, so a name must stand before them.
fn is_solana(run: &str) -> bool {
    let mut key = [0; 32];
    (32..=44).contains(&run.len())
        && run.bytes().any(|b| b.is_ascii_uppercase())
        && run.bytes().any(|b| b.is_ascii_lowercase())
        && bs58::decode(run)
            .onto(&mut key[..])
            .is_ok_and(|length| length == 32)
}

fn names_solana(context: &[u8]) -> bool {
    let line = context
        .split(|&b| b == b'\n')
        .next_back()
        .unwrap_or_default();
    let names = [
        &b"solana"[..],
        b"sol",
        b"phantom",
        b"spl",
        b"wallet",
        b"address",
        b"pubkey",
    ];
    let words = || line.split(|b| !b.is_ascii_alphabetic());
    words().any(|word| names.iter().any(|name| word.eq_ignore_ascii_case(name)))
}
