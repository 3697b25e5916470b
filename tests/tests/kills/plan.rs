//! Which faults come when: all of it follows from one seed.

use std::time::Duration;

use sovereign_tests::rng::Rng;

/// What is done to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// SIGKILL of one engine; started again.
    EngineKilled,
    /// SIGKILL of the engine that relays; started again once the other has taken over.
    RelayingEngineKilled,
    /// SIGSTOP of the engine that relays; SIGCONT once the other has taken over.
    RelayingEngineRevived,
    /// SIGKILL of the broker; started again.
    BrokerKilled,
    /// SIGSTOP of the broker, then SIGCONT.
    BrokerPaused,
    /// The same, for longer than health stays green.
    BrokerPausedLong,
    /// SIGKILL of the database with all its processes; started again.
    DatabaseKilled,
    /// SIGKILL of one session's process: the database throws its memory away and recovers.
    SessionKilled,
    /// SIGSTOP of the process behind a writing session for 5 s.
    SessionStopped,
    /// The head row locked by somebody else for 5 s.
    HeadLocked,
    /// The same, for longer than health stays green.
    HeadLockedLong,
    /// No room where the database lives.
    DiskFull,
}

impl Kind {
    /// One after the other, so that each comes in any dozen of rounds.
    pub(crate) const ALL: [Self; 12] = [
        Self::EngineKilled,
        Self::DatabaseKilled,
        Self::RelayingEngineRevived,
        Self::BrokerKilled,
        Self::HeadLocked,
        Self::DiskFull,
        Self::SessionKilled,
        Self::RelayingEngineKilled,
        Self::BrokerPaused,
        Self::SessionStopped,
        Self::HeadLockedLong,
        Self::BrokerPausedLong,
    ];

    /// Faults that may come on top of it: short ones of another part.
    const fn companions(self) -> &'static [Self] {
        match self {
            Self::EngineKilled => &[
                Self::SessionKilled,
                Self::BrokerPaused,
                Self::DatabaseKilled,
            ],
            Self::DatabaseKilled | Self::SessionKilled => &[Self::EngineKilled, Self::BrokerKilled],
            Self::BrokerKilled => &[
                Self::EngineKilled,
                Self::SessionKilled,
                Self::DatabaseKilled,
            ],
            Self::HeadLocked | Self::SessionStopped => &[Self::BrokerKilled, Self::EngineKilled],
            Self::BrokerPaused => &[Self::SessionKilled, Self::EngineKilled],
            Self::DiskFull => &[Self::EngineKilled, Self::BrokerPaused],
            // these are about how long something takes
            Self::RelayingEngineKilled
            | Self::RelayingEngineRevived
            | Self::HeadLockedLong
            | Self::BrokerPausedLong => &[],
        }
    }

    /// How long it lasts, at least.
    fn holds(self, dice: &mut Rng) -> Duration {
        match self {
            Self::EngineKilled | Self::BrokerKilled | Self::DatabaseKilled => dice.millis(50, 900),
            Self::BrokerPaused => dice.millis(1_000, 3_000),
            Self::HeadLocked | Self::SessionStopped => Duration::from_secs(5),
            Self::HeadLockedLong | Self::BrokerPausedLong => Duration::from_millis(10_500),
            Self::DiskFull => dice.millis(1_500, 3_000),
            Self::SessionKilled | Self::RelayingEngineKilled | Self::RelayingEngineRevived => {
                Duration::ZERO
            }
        }
    }
}

/// One fault of a round.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    pub(crate) kind: Kind,
    /// After the start of the round.
    pub(crate) after: Duration,
    pub(crate) holds: Duration,
    /// For choosing a victim.
    pub(crate) victim: u64,
}

/// The faults of one round. Follows from seed and round alone, so any round can be repeated.
pub(crate) fn round(seed: u64, round: u64, without: &[Kind]) -> Vec<Fault> {
    let mut dice = Rng::new(seed ^ round.wrapping_mul(0xa076_1d64_78bd_642f));
    dice.next();
    // each dozen of rounds is a shuffled deck of all kinds
    let deck = {
        let mut kinds: Vec<Kind> = Kind::ALL
            .into_iter()
            .filter(|k| !without.contains(k))
            .collect();
        let count = kinds.len() as u64;
        let mut shuffle = Rng::new(seed ^ (round / count).wrapping_mul(0xe703_7ed1_a0b4_28db));
        for end in (1..kinds.len()).rev() {
            kinds.swap(end, shuffle.below(end as u64 + 1) as usize);
        }
        kinds
    };
    let kind = deck[(round % deck.len() as u64) as usize];
    let mut faults = vec![fault(kind, &mut dice)];
    let companions: Vec<Kind> = kind
        .companions()
        .iter()
        .copied()
        .filter(|k| !without.contains(k))
        .collect();
    if !companions.is_empty() && dice.below(2) == 0 {
        let companion = companions[dice.below(companions.len() as u64) as usize];
        faults.push(fault(companion, &mut dice));
    }
    faults.sort_by_key(|fault| fault.after);
    faults
}

fn fault(kind: Kind, dice: &mut Rng) -> Fault {
    Fault {
        kind,
        after: dice.millis(100, 1_200),
        holds: kind.holds(dice),
        victim: dice.next(),
    }
}
