//! Replay, with every link checked, every payload decoded, and states folded over 100,000
//! aggregates that are drawn uniformly (the worst case for a cache).
//!
//! - `file`: 1,000,000 events from a recorded file. `ours-1` and `ours-2` are `replay` with one and
//!   two threads; `avro-value` is the same work by way of apache-avro's `Value`: its container
//!   reader, its datum reader, `sha2`, and the standard map.
//! - `kafka`: 200,000 of them from 21 partitions of seven topics. `raw` is a consumer that receives
//!   the same records and looks at none; `ours` merges, checks, decodes and folds them.
//! - `ledger`: the same 200,000. `copy` is `COPY … TO STDOUT (FORMAT binary)` of the same rows,
//!   drained and not looked at.
//!
//! Every arm that folds must give the digests that one thread gives over a log in memory; the others
//! must have received every record. All arms read the same data, which none of them changes.

mod data;
mod file;
mod kafka;
mod ledger;
mod value;

use std::path::Path;

use sovereign_servers::Wanted;

use crate::protocol::Report;
use crate::servers::BenchServers;

pub(crate) async fn run(rounds: usize, out: &Path, only: &str) -> anyhow::Result<()> {
    let mut report = Report::new("replay");
    let log = data::Log::make().await?;
    report.note(format!(
        "{} events over {} aggregates, uniform; {} bytes each in the file",
        data::EVENTS,
        data::AGGREGATES,
        log.bytes_each
    ));
    if "file".contains(only) {
        file::case(&log, &mut report, rounds).await?;
    }
    if !"ledger".contains(only) && !"kafka".contains(only) {
        return report.finish(out);
    }
    let servers = BenchServers::start(Wanted {
        postgres: true,
        kafka: true,
    })
    .await?;
    let done = cases(&servers, &log, &mut report, rounds, only).await;
    servers.stop().await;
    done?;
    report.finish(out)
}

async fn cases(
    servers: &BenchServers,
    log: &data::Log,
    report: &mut Report,
    rounds: usize,
    only: &str,
) -> anyhow::Result<()> {
    if "ledger".contains(only) {
        ledger::case(servers, log, report, rounds).await?;
    }
    if "kafka".contains(only) {
        kafka::case(servers, log, report, rounds).await?;
    }
    Ok(())
}
