//! Daily bars from a CSV file, plain or gzip. A file is checked whole before its first bar is
//! used: nothing is ingested from a bad one.

mod folder;
mod read;

use std::collections::BTreeMap;

use sovereign_schemas::{Decimal, Digest, Identifier, Timestamp};

pub use folder::MarketFolder;

/// At most so many bytes of a file, compressed or not: 256 MiB.
pub const FILE_BYTES_MAX: u64 = 256 << 20;
/// At most so many bars in a file.
pub const BARS_MAX: usize = 2_000_000;
/// At most so many instruments in a file.
pub const INSTRUMENTS_MAX: usize = 1_024;
/// At most so many characters in the name of an instrument.
pub const INSTRUMENT_CHARACTERS_MAX: usize = 32;

/// One day of one instrument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bar {
    /// Midnight UTC of the day.
    pub opened_at: Timestamp,
    /// First price, above zero.
    pub open: Decimal,
    /// Highest price.
    pub high: Decimal,
    /// Lowest price.
    pub low: Decimal,
    /// Last price.
    pub close: Decimal,
    /// Units traded, not negative.
    pub volume: Decimal,
}

/// All bars of one instrument, in order of time, at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Series {
    /// As the file spells it.
    pub instrument: Identifier,
    /// Strictly growing in time.
    pub bars: Vec<Bar>,
}

impl Series {
    /// The first bar after that moment; the first of all for `None`.
    #[must_use]
    pub fn next_after(&self, after: Option<Timestamp>) -> Option<&Bar> {
        let start = after.map_or(0, |t| self.bars.partition_point(|b| b.opened_at <= t));
        self.bars.get(start)
    }
}

/// A market file that has been read and found good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MarketFile {
    digest: Digest,
    series: BTreeMap<String, Series>,
}

impl MarketFile {
    /// SHA-256 of the file as it was given, compressed or not.
    #[must_use]
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// Number of bars over all instruments.
    #[must_use]
    pub fn bars(&self) -> usize {
        self.series.values().map(|s| s.bars.len()).sum()
    }

    /// The series of one instrument, whatever the case of its name.
    #[must_use]
    pub fn series(&self, instrument: &str) -> Option<&Series> {
        self.series.get(&slug(instrument))
    }

    /// All series, in the order of their instruments' slugs.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Series)> {
        self.series.iter().map(|(slug, s)| (slug.as_str(), s))
    }
}

/// An instrument's name as it stands in ids: lower case.
#[must_use]
pub fn slug(instrument: &str) -> String {
    instrument.to_ascii_lowercase()
}
