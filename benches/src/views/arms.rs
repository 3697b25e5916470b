//! The projector as it ships, and the bare rows.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use sovereign_projections::{Projector, VIEW_NAMES, ViewsOptions, ViewsReader, ViewsStore};
use sqlx::{Connection as _, Executor as _, PgConnection, Row as _};

use super::input::Input;
use crate::protocol::Reading;
use crate::servers::BenchServers;

/// After so long without an end something is wrong.
const PATIENCE: Duration = Duration::from_secs(300);

pub(crate) async fn ours(servers: &BenchServers, input: &Input) -> anyhow::Result<Reading> {
    let database = servers.database().await?;
    ViewsStore::new(&database)?.migrate().await?;
    let postgres = Postgres::find(&database).await?;
    let before = postgres.cpu_s()?;
    let (url, own) = (database.clone(), input.clone());
    let fold = tokio::task::spawn_blocking(move || fold_on_one_thread(&url, &own));
    let (took_s, cpu_s) = fold.await??;
    let postgres_s = postgres.cpu_s()? - before;
    check(&database, input).await?;
    let events = input.events.len() as f64;
    Ok(Reading::new(events / took_s)
        .with("events_per_s", events / took_s)
        .with("cpu_us_per_event", cpu_s * 1e6 / events)
        .with("postgres_us_per_event", postgres_s * 1e6 / events)
        .with("events_per_cpu_s", events / cpu_s))
}

/// Seconds until all four views stand at the head, and seconds that this thread worked meanwhile.
fn fold_on_one_thread(database: &str, input: &Input) -> anyhow::Result<(f64, f64)> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let (started, cpu) = (Instant::now(), thread_cpu_s()?);
        let tails = input.clone();
        let views = Projector::start(ViewsOptions::new(database), move || tails.tail())?;
        while views.position() < input.head() {
            anyhow::ensure!(started.elapsed() < PATIENCE, "{:?}", views.health(None));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let reading = (started.elapsed().as_secs_f64(), thread_cpu_s()? - cpu);
        views.stop().await;
        Ok(reading)
    })
}

/// Rows equal the fold, in every view, at the head.
async fn check(database: &str, input: &Input) -> anyhow::Result<()> {
    let reader = ViewsReader::new(database)?;
    let mut log = input.log();
    for view in VIEW_NAMES {
        let checked = reader.verify(view, &mut log).await?;
        anyhow::ensure!(
            checked.position == input.head(),
            "{view} stands at {checked:?}"
        );
    }
    Ok(())
}

fn thread_cpu_s() -> anyhow::Result<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let ns: f64 = text
        .split(' ')
        .next()
        .context("no time on the cpu")?
        .parse()?;
    Ok(ns / 1e9)
}

/// Time on the CPU of a server and all its processes, dead ones included.
struct Postgres {
    postmaster: u32,
}

impl Postgres {
    async fn find(database: &str) -> anyhow::Result<Self> {
        let mut connection = PgConnection::connect(database).await?;
        let sql = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'";
        let pid: i32 = connection.fetch_one(sql).await?.try_get(0)?;
        let postmaster = stat(pid.unsigned_abs())?[1] as u32;
        Ok(Self { postmaster })
    }

    fn cpu_s(&self) -> anyhow::Result<f64> {
        let mut ticks = 0.0;
        for entry in std::fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let Some(pid) = name.to_str().and_then(|n| n.parse::<u32>().ok()) else {
                continue;
            };
            // it may have ended meanwhile
            let Ok(fields) = stat(pid) else { continue };
            let own = fields[11] + fields[12];
            if pid == self.postmaster {
                ticks += own + fields[13] + fields[14];
            } else if fields[1] as u32 == self.postmaster {
                ticks += own;
            }
        }
        // clock ticks are hundredths of a second on Linux (man 5 proc, man 3 sysconf)
        Ok(ticks / 100.0)
    }
}

/// Fields of `/proc/<pid>/stat` from the third on (man 5 proc): state as 0, parent, … user and
/// system time of the process at 11 and 12, of its dead children at 13 and 14.
fn stat(pid: u32) -> anyhow::Result<Vec<f64>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, rest) = text.rsplit_once(") ").context("no stat")?;
    let fields: Vec<f64> = rest
        .split(' ')
        .map(|f| f.trim().parse().unwrap_or(0.0))
        .collect();
    anyhow::ensure!(fields.len() > 15, "stat is too short");
    Ok(fields)
}

/// The final rows of one view, as COPY has them.
pub(crate) struct Rows {
    view: &'static str,
    bytes: Vec<u8>,
}

/// Folds once, and takes the rows out.
pub(crate) async fn final_rows(servers: &BenchServers, input: &Input) -> anyhow::Result<Vec<Rows>> {
    use futures::TryStreamExt as _;
    let database = servers.database().await?;
    ViewsStore::new(&database)?.migrate().await?;
    let (url, own) = (database.clone(), input.clone());
    tokio::task::spawn_blocking(move || fold_on_one_thread(&url, &own)).await??;
    check(&database, input).await?;
    let mut connection = PgConnection::connect(&database).await?;
    let mut rows = Vec::new();
    for view in VIEW_NAMES {
        let sql = format!("COPY views.{view}_v1 TO STDOUT (FORMAT binary)");
        let mut stream = connection.copy_out_raw(&sql).await?;
        let mut bytes = Vec::new();
        while let Some(chunk) = stream.try_next().await? {
            bytes.extend_from_slice(&chunk);
        }
        rows.push(Rows { view, bytes });
    }
    Ok(rows)
}

pub(crate) async fn copy(
    servers: &BenchServers,
    input: &Input,
    rows: &[Rows],
) -> anyhow::Result<Reading> {
    let database = servers.database().await?;
    ViewsStore::new(&database)?.migrate().await?;
    let mut connection = PgConnection::connect(&database).await?;
    let last = input.events.last().context("no events")?;
    let started = Instant::now();
    for Rows { view, bytes } in rows {
        let mut transaction = connection.begin().await?;
        let sql = format!("COPY views.{view}_v1 FROM STDIN (FORMAT binary)");
        let mut copy = transaction.copy_in_raw(&sql).await?;
        copy.send(&bytes[..]).await?;
        copy.finish().await?;
        let moves =
            sqlx::query("UPDATE views.checkpoints SET position = $2, hash = $3 WHERE view = $1");
        let moves = moves
            .bind(view)
            .bind(last.position().0 as i64)
            .bind(&last.hash.0[..]);
        transaction.execute(moves).await?;
        transaction.commit().await?;
    }
    let took_s = started.elapsed().as_secs_f64();
    check(&database, input).await?;
    Ok(Reading::new(input.events.len() as f64 / took_s))
}
