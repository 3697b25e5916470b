//! Which part of the agents' work is this process', where several share it.

use std::collections::BTreeSet;

/// Instruments are spread over so many lanes; each is worked on by one process at a time. Names of
/// checkpoints hold the number of a lane, so this never changes.
pub const LANES: usize = 16;

/// What this process does. All processes look at all events, so each knows everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Duties {
    /// Lanes whose reactions are carried out here, each below [`LANES`].
    pub lanes: BTreeSet<usize>,
    /// Whether overdue approvals are ended here.
    pub expiry: bool,
}

impl Duties {
    /// Everything: there is no other process.
    #[must_use]
    pub fn all() -> Self {
        Self {
            lanes: (0..LANES).collect(),
            expiry: true,
        }
    }
}

/// The lane of an instrument, as it stands in ids: 64-bit FNV-1a, the same in every build.
///
/// # Examples
/// ```
/// assert_eq!(sovereign_agents::lane_of("aapl"), 8);
/// ```
#[must_use]
pub fn lane_of(slug: &str) -> usize {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in slug.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    // the low bits of FNV are its weakest
    ((hash >> 32) ^ hash) as usize % LANES
}
