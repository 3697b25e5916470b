//! The peer: UmaDB, its server in a process of its own, its client over gRPC as its documents show.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use umadb_client::{AsyncUmaDbClient, UmaDbClient};
use umadb_dcb::{
    DcbAppendCondition, DcbError, DcbEvent, DcbEventStoreAsync as _, DcbQuery, DcbQueryItem,
};
use umadb_server::{ServerOptions, StorageOptions, start_server_with_options};

use super::load::{AGGREGATES, Caller, Plan, Random, Times, Unit, drive};
use super::ours::Fixed;
use crate::protocol::Reading;

/// Argument with which this program is the server.
pub(crate) const SUBCOMMAND: &str = "umadb-server";

/// The server, until it is killed.
pub(crate) fn serve(address: &str, folder: &str) -> anyhow::Result<()> {
    let options = ServerOptions {
        listen_addr: address.to_owned(),
        tls: None,
        api_key: None,
        storage: StorageOptions::default().db_path(Path::new(folder).join("uma.db")),
    };
    let runtime = tokio::runtime::Runtime::new()?;
    let (_stop, stopped) = tokio::sync::oneshot::channel();
    let served = runtime.block_on(start_server_with_options(options, stopped));
    served.map_err(|e| anyhow::anyhow!("{e}"))
}

struct Sender {
    client: Arc<AsyncUmaDbClient>,
    fixed: Arc<Fixed>,
    /// Where each aggregate's last event stands, as its callers know it.
    last: Arc<Vec<AtomicU64>>,
}

impl Caller for Sender {
    async fn unit(&mut self, unit: Unit, random: &mut Random) -> anyhow::Result<usize> {
        let id = self.fixed.ids[unit.aggregate].as_str();
        let events = (0..unit.events).map(|_| {
            let text = &self.fixed.texts[random.next() as usize % self.fixed.texts.len()];
            DcbEvent::default()
                .event_type("ThoughtRecorded")
                .tags([id])
                .data(text.bytes().to_vec())
                .uuid(super::ours::fresh_id())
        });
        let events: Vec<DcbEvent> = events.collect();
        let last = &self.last[unit.aggregate];
        let known = last.load(Ordering::Relaxed);
        let after = if unit.conflict {
            None
        } else {
            (known > 0).then_some(known)
        };
        let query = DcbQuery::new().item(DcbQueryItem::new().tags([id]));
        let condition = DcbAppendCondition::new(query).after(after);
        match self.client.append(events, Some(condition), None).await {
            Ok(position) => {
                ensure!(!unit.conflict, "a conflict was not found");
                last.fetch_max(position, Ordering::Relaxed);
                Ok(unit.events)
            }
            // on purpose, or two callers at one aggregate
            Err(DcbError::IntegrityError(_)) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }
}

pub(crate) async fn run(
    fixed: &Arc<Fixed>,
    in_flight: usize,
    times: Times,
) -> anyhow::Result<Reading> {
    let folder = tempfile::Builder::new()
        .prefix("sovereign-bench-uma-")
        .tempdir()?;
    let port = std::net::TcpListener::bind("127.0.0.1:0")?
        .local_addr()?
        .port();
    let address = format!("127.0.0.1:{port}");
    let mut server = tokio::process::Command::new(std::env::current_exe()?)
        .arg(SUBCOMMAND)
        .arg(&address)
        .arg(folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let result = measure(fixed, in_flight, times, &address).await;
    server.kill().await?;
    result
}

async fn measure(
    fixed: &Arc<Fixed>,
    in_flight: usize,
    times: Times,
    address: &str,
) -> anyhow::Result<Reading> {
    let url = format!("http://{address}");
    let mut client = None;
    for _ in 0..100 {
        if let Ok(connected) = UmaDbClient::new(url.clone()).connect_async().await {
            client = Some(connected);
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let client = Arc::new(client.context("umadb does not start")?);
    let last: Arc<Vec<AtomicU64>> = Arc::new((0..AGGREGATES).map(|_| AtomicU64::new(0)).collect());
    let plan = Plan::new(AGGREGATES, 5);
    let callers = (0..in_flight)
        .map(|_| Sender {
            client: Arc::clone(&client),
            fixed: Arc::clone(fixed),
            last: Arc::clone(&last),
        })
        .collect();
    let done = drive(&plan, times, callers).await?;
    let head = client.head().await?.unwrap_or(0);
    ensure!(
        head == done.events,
        "{} events were acknowledged, the head is {head}",
        done.events
    );
    Ok(done.reading())
}
