//! The peer in Rust: the crate `awa`, as its readme shows it, with as many places as ours.

use std::sync::Arc;
use std::time::Duration;

use ::awa::{Client, InsertOpts, JobArgs, JobResult, QueueConfig, insert_with};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;

use super::drive::{self, AT_ONCE, Seen, System};
use crate::protocol::Reading;

const QUEUE: &str = "bench";

#[derive(Debug, Serialize, Deserialize, JobArgs)]
struct OneEffect {
    number: u64,
}

#[derive(Clone)]
struct Awa {
    pool: PgPool,
}

impl System for Awa {
    async fn enqueue(&self, job: u64) -> anyhow::Result<()> {
        let options = InsertOpts {
            queue: QUEUE.into(),
            ..InsertOpts::default()
        };
        insert_with(&self.pool, &OneEffect { number: job }, options).await?;
        Ok(())
    }

    async fn ended(&self) -> anyhow::Result<u64> {
        // those that it still has, and those that it has put away since: only their number is kept
        let sql = "select (select count(*) from awa.terminal_jobs where state::text = 'completed')
            + (select coalesce(sum(pruned_completed_count), 0)::bigint
               from awa.queue_terminal_rollups)";
        let ended: i64 = sqlx::query_scalar(sql).fetch_one(&self.pool).await?;
        Ok(ended as u64)
    }
}

pub(crate) async fn run(database: &str) -> anyhow::Result<Reading> {
    let pool = PgPoolOptions::new()
        .max_connections(AT_ONCE as u32 / 2)
        .connect(database)
        .await?;
    ::awa::migrations::run(&pool).await?;
    let seen = Seen::new();
    let noted = Arc::clone(&seen);
    let places = QueueConfig {
        max_workers: AT_ONCE as u32,
        ..QueueConfig::default()
    };
    let client = Client::builder(pool.clone())
        .queue(QUEUE, places)
        .register::<OneEffect, _, _>(move |args, _| {
            noted.effect(args.number);
            async { Ok(JobResult::Completed) }
        })
        .build()?;
    client.start().await?;
    let reading = drive::run(&Awa { pool: pool.clone() }, &seen).await;
    client.shutdown(Duration::from_secs(5)).await;
    pool.close().await;
    reading
}
