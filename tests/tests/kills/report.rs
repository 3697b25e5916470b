//! What the rounds came to: a table for people, JSON for programs.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::plan::Kind;
use crate::world::Struck;

/// One round.
#[derive(Debug, Serialize)]
pub(crate) struct Round {
    pub(crate) round: u64,
    pub(crate) faults: Vec<Struck>,
    pub(crate) head: u64,
    pub(crate) acknowledged: usize,
    /// From the first fault until some engine said that it is not well.
    pub(crate) red_after_ms: Option<u64>,
    /// From the last healing until both engines were green.
    pub(crate) green_after_ms: u64,
    /// Started again by the test because they had ended by themselves.
    pub(crate) supervised: usize,
    pub(crate) took_ms: u64,
}

/// All rounds.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    pub(crate) seed: u64,
    pub(crate) rounds: Vec<Round>,
    pub(crate) acknowledged: usize,
    pub(crate) events: u64,
    pub(crate) losses: usize,
    pub(crate) duplicates: usize,
    /// How often the stock consumer had to be made anew; see `topics`.
    pub(crate) silent: usize,
    pub(crate) left_out: Vec<Kind>,
    pub(crate) failure: Option<String>,
}

impl Report {
    fn faults(&self) -> BTreeMap<Kind, usize> {
        let mut counts = BTreeMap::new();
        for struck in self.rounds.iter().flat_map(|round| &round.faults) {
            *counts.entry(struck.kind).or_default() += 1;
        }
        counts
    }

    fn longest(&self, kinds: &[Kind]) -> Option<u64> {
        let rounds = self.rounds.iter();
        let of = rounds.filter(|round| round.faults.iter().any(|f| kinds.contains(&f.kind)));
        of.filter_map(|round| round.red_after_ms).max()
    }

    pub(crate) fn print(&self) {
        let seconds = |ms: Option<u64>| {
            ms.map_or_else(|| "-".to_owned(), |ms| format!("{:.1} s", ms as f64 / 1e3))
        };
        println!("\nkills: {} rounds, seed {}", self.rounds.len(), self.seed);
        for (kind, count) in self.faults() {
            let name = serde_json::to_value(kind).unwrap_or_default();
            println!("  {:28} {count:4}", name.as_str().unwrap_or_default());
        }
        let take_over = self
            .rounds
            .iter()
            .flat_map(|r| &r.faults)
            .filter_map(|f| f.take_over_ms)
            .max();
        let green = self.rounds.iter().map(|round| round.green_after_ms).max();
        let stall = self.longest(&[Kind::HeadLockedLong, Kind::BrokerPausedLong]);
        let rows = [
            ("acknowledged commands", self.acknowledged.to_string()),
            ("events", self.events.to_string()),
            ("lost, or shown and lost", self.losses.to_string()),
            ("duplicates on topics", self.duplicates.to_string()),
            ("stock consumer fell silent", self.silent.to_string()),
            (
                "leader hints not taken",
                sovereign_librdkafka::ignored().to_string(),
            ),
            ("longest until red in a stall", seconds(stall)),
            ("longest until green", seconds(green)),
            ("longest take-over", seconds(take_over)),
        ];
        for (name, value) in rows {
            println!("  {name:28} {value:>8}");
        }
        if !self.left_out.is_empty() {
            println!("  left out, because only root can: {:?}", self.left_out);
        }
    }

    /// To the path that the variable names, if it does.
    pub(crate) fn write(&self) -> anyhow::Result<()> {
        if let Some(path) = std::env::var_os("SOVEREIGN_KILLS_JSON") {
            std::fs::write(path, serde_json::to_vec_pretty(self)?)?;
        }
        Ok(())
    }
}
