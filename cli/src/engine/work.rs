//! What several engines divide among them, and how this one learns its part. The lanes are those of
//! programs here; those of the built-in agents are divided in a group of their own (`lanes`).

use std::collections::BTreeSet;
use std::path::Path;

use sovereign_agents::{Duties, LANES};
use sovereign_kafka::{Assignment, WorkGroup};
use sovereign_projections::{ProjectorHandle, VIEW_NAMES};
use sovereign_schemas::{Identifier, Uuid};
use tokio::sync::watch;

use super::start::unusable;
use crate::failure::Result;
use crate::location::write_private;

/// Relaying the ledger's events to Kafka.
pub(super) const RELAY: &str = "relay";
/// Feeding the queue of jobs.
const JOBS: &str = "jobs";
/// Ending overdue approvals.
const EXPIRY: &str = "expiry";

/// The name of a lane, as a piece of work.
pub(super) fn lane(lane: usize) -> String {
    format!("agents-{lane:02}")
}

fn view(name: &str) -> String {
    format!("view-{name}")
}

/// The consumer group of the engines of one ledger.
pub(super) fn group(ledger: Uuid) -> String {
    format!("sovereign.engines.{ledger}")
}

/// All pieces of work, in an order that stays: what is new comes last, as views do.
pub(super) fn units() -> Vec<String> {
    let mut all = vec![RELAY.to_owned(), EXPIRY.to_owned()];
    all.extend((0..LANES).map(lane));
    all.extend(VIEW_NAMES.iter().map(|name| view(name)));
    all.push(JOBS.to_owned());
    all
}

/// What of the agents' work is in these units.
pub(super) fn duties(units: &BTreeSet<String>) -> Duties {
    Duties {
        lanes: (0..LANES).filter(|l| units.contains(&lane(*l))).collect(),
        expiry: units.contains(EXPIRY),
    }
}

fn views(units: &BTreeSet<String>) -> BTreeSet<String> {
    let own = VIEW_NAMES.iter().filter(|name| units.contains(&view(name)));
    own.map(|name| (*name).to_owned()).collect()
}

/// Views, agents and the feeder of jobs work on what is assigned, until the group is left.
pub(super) fn follow(
    group: &WorkGroup,
    projector: ProjectorHandle,
) -> (watch::Receiver<Duties>, watch::Receiver<bool>) {
    let mut assigned = group.assigned();
    let (tell, told) = watch::channel(Duties::default());
    let (feed, feeds) = watch::channel(false);
    tokio::spawn(async move {
        loop {
            let Assignment { units, .. } = assigned.borrow_and_update().clone();
            projector.assign(&views(&units));
            tell.send_replace(duties(&units));
            feed.send_replace(units.contains(JOBS));
            if assigned.changed().await.is_err() {
                return;
            }
        }
    });
    (told, feeds)
}

/// In whose name jobs that wait are told what became of others.
pub(super) fn orchestrator() -> Identifier {
    #[allow(clippy::expect_used)]
    "orchestrator".parse().expect("letters are an identifier")
}

/// The name under which the engine of this data folder takes part, made at the first start.
pub(super) fn engine_id(path: &Path) -> Result<String> {
    match std::fs::read_to_string(path) {
        Ok(text) => return Ok(text.trim().to_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(unusable(&error)),
    }
    let id = Uuid::now_v7().to_string();
    write_private(path, format!("{id}\n").as_bytes()).map_err(|e| unusable(&e))?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_is_somebodys_and_places_stay() {
        let all = units();
        assert_eq!(all[..3], ["relay", "expiry", "agents-00"]);
        assert_eq!(all[2 + LANES], "view-agents");
        let every: BTreeSet<String> = all.iter().cloned().collect();
        assert_eq!(every.len(), all.len());
        assert_eq!(duties(&every), Duties::all());
        assert_eq!(views(&every).len(), VIEW_NAMES.len());
        assert_eq!(duties(&BTreeSet::new()), Duties::default());
    }
}
