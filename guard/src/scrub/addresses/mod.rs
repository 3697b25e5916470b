//! IP addresses that are not version numbers.
//!
//! Loopback, unspecified and netmask addresses (`127.0.0.0/8`, `0.0.0.0/8`, `255.0.0.0/8`, `::1`,
//! `::`) stay: they name no host, they keep a log readable, and `0.9.0.1` is always a version.

mod context;
mod v4;
mod v6;

use super::{Label, span::Candidate};

pub(super) fn find(text: &str, found: &mut Vec<Candidate>) {
    v4::find(text, found);
    v6::find(text, found);
}

fn address(start: usize, end: usize, rule: &'static str) -> Candidate {
    Candidate {
        start,
        end,
        label: Label::IpAddress,
        rule,
        specific: true,
    }
}
