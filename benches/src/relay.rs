//! The relay beside librdkafka's own producer, from a command to a consumer, and after a restart.
//!
//! - `load`: 200,000 events of 300 bytes over seven topics of three partitions. `raw` sends the very
//!   records that the relay made (keys, values, headers) with one idempotent producer: no
//!   transactions, no chain check, records ready in memory. `ours` reads events from memory, checks
//!   the chain, builds the records, and commits.
//! - `latency`: 5,000 commands a second of 500 agents, open loop: each is sent at its planned moment,
//!   however late those of other agents are, and its time runs from that moment to a read-committed
//!   consumer. `raw` produces
//!   records at the same rate with no ledger before it.
//! - `restart`: a new relay on topics with history, until a consumer has its first record.

mod latency;
pub(crate) mod ledger;
mod load;
mod restart;

use std::path::Path;

use sovereign_servers::Wanted;

use crate::protocol::Report;
use crate::servers::BenchServers;

pub(crate) async fn run(rounds: usize, out: &Path, only: &str) -> anyhow::Result<()> {
    let servers = BenchServers::start(Wanted {
        postgres: true,
        kafka: true,
    })
    .await?;
    let mut report = Report::new("relay");
    let done = cases(&servers, &mut report, rounds, only).await;
    servers.stop().await;
    done?;
    report.finish(out)
}

async fn cases(
    servers: &BenchServers,
    report: &mut Report,
    rounds: usize,
    only: &str,
) -> anyhow::Result<()> {
    if "load".contains(only) {
        load::case(servers, report, rounds).await?;
    }
    if "latency".contains(only) {
        latency::case(servers, report, rounds).await?;
    }
    if "restart".contains(only) {
        restart::case(servers, report, rounds).await?;
    }
    Ok(())
}
