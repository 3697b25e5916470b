use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use sovereign_schemas::{Decimal, EventLog, Position};
use sqlx::postgres::{PgPool, PgPoolOptions, PgRow};
use sqlx::{Executor as _, Postgres, Row as _, Transaction};

use crate::database::Database;
use crate::invariant::{self, CheckError};
use crate::port::Checkpoint;
use crate::store::{self, Build};
use crate::table::{Field, Statement, Stored, select_list, select_list_of};
use crate::{
    AgentRow, Agents, ApprovalRow, ApprovalStatus, Approvals, DepartmentRow, Departments,
    PasskeyRow, Passkeys, ProjectionError, TradeRow, TradeStatus, Trades, View,
};

/// Connections that readers share.
const CONNECTIONS_MAX: u32 = 4;
/// How long one request may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Most rows of one page.
const PAGE_ROWS_MAX: u32 = 10_000;

/// Which part of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Only rows whose key comes after this one.
    pub after: Option<String>,
    /// At most so many rows: 1 to 10,000; other numbers are brought into that range.
    pub limit: u32,
}

impl Default for Page {
    /// The first 1,000 rows.
    fn default() -> Self {
        Self {
            after: None,
            limit: 1_000,
        }
    }
}

impl Page {
    fn limit(&self) -> u32 {
        self.limit.clamp(1, PAGE_ROWS_MAX)
    }
}

/// Which trades.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TradesFilter {
    /// Only of this agent.
    pub agent_id: Option<String>,
    /// Only in this status.
    pub status: Option<TradeStatus>,
    /// Which part of the list.
    pub page: Page,
}

/// Which approvals.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ApprovalsFilter {
    /// Only in this status.
    pub status: Option<ApprovalStatus>,
    /// Which part of the list.
    pub page: Page,
}

/// Which passkeys.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PasskeysFilter {
    /// Only of this person.
    pub approver: Option<String>,
    /// Also those that were revoked.
    pub revoked: bool,
    /// Which part of the list.
    pub page: Page,
}

/// Rows of a view, all as of one position of the ledger.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Listing<R> {
    /// Every event up to here is in the rows, and none after it.
    pub position: Position,
    /// Version of the view that the rows are of: the one that serves. Columns that it does not
    /// have are null.
    pub version: u32,
    /// In the order of their keys.
    pub rows: Vec<R>,
    /// Whether more rows follow; ask again with the last key as [`Page::after`].
    pub more: bool,
}

/// Results of one agent in one currency.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TradeTotals {
    /// Who traded.
    pub agent_id: String,
    /// Of the profit.
    pub currency: String,
    /// All trades.
    pub trades: i64,
    /// Trades by status.
    pub by_status: BTreeMap<&'static str, i64>,
    /// Concluded with a profit above zero.
    pub won: i64,
    /// Concluded with a profit below zero.
    pub lost: i64,
    /// Sum of all results after costs.
    pub profit: Decimal,
}

/// The read side, for command line and console. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ViewsReader {
    pool: PgPool,
    database: Database,
}

impl ViewsReader {
    /// A reader at a database; connects when it is asked for something.
    ///
    /// # Errors
    /// [`ProjectionError::DatabaseUrl`].
    pub fn new(database_url: &str) -> Result<Self, ProjectionError> {
        let database = Database::new(database_url, TIMEOUT)?;
        let limit_ms = TIMEOUT.as_millis();
        let settings = format!(
            "SET default_transaction_read_only = on; SET statement_timeout = {limit_ms}; \
             SET idle_in_transaction_session_timeout = {limit_ms}"
        );
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS_MAX)
            .acquire_timeout(TIMEOUT)
            .after_connect(move |connection, _| {
                let settings = settings.clone();
                Box::pin(async move {
                    connection.execute(sqlx::raw_sql(&settings)).await?;
                    Ok(())
                })
            })
            .connect_lazy_with(database.options());
        Ok(Self { pool, database })
    }

    /// Everything read through one snapshot is of one moment, across views as well; each view's
    /// rows are exactly those of its checkpoint then.
    ///
    /// # Errors
    /// [`ProjectionError::Database`].
    pub async fn snapshot(&self) -> Result<ViewsSnapshot, ProjectionError> {
        let begin = self
            .pool
            .begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY");
        let transaction = self.database.within("reading views", begin).await?;
        Ok(ViewsSnapshot {
            transaction,
            database: self.database.clone(),
        })
    }

    /// Agents.
    ///
    /// # Errors
    /// As [`ViewsSnapshot::agents`].
    pub async fn agents(&self, page: &Page) -> Result<Listing<AgentRow>, ProjectionError> {
        self.snapshot().await?.agents(page).await
    }

    /// Trades.
    ///
    /// # Errors
    /// As [`ViewsSnapshot::trades`].
    pub async fn trades(&self, of: &TradesFilter) -> Result<Listing<TradeRow>, ProjectionError> {
        self.snapshot().await?.trades(of).await
    }

    /// Approvals.
    ///
    /// # Errors
    /// As [`ViewsSnapshot::approvals`].
    pub async fn approvals(
        &self,
        of: &ApprovalsFilter,
    ) -> Result<Listing<ApprovalRow>, ProjectionError> {
        self.snapshot().await?.approvals(of).await
    }

    /// One approval, if there is one with this id.
    ///
    /// # Errors
    /// As [`ViewsSnapshot::approvals`].
    pub async fn approval(&self, id: &str) -> Result<Option<ApprovalRow>, ProjectionError> {
        let mut snapshot = self.snapshot().await?;
        let sql = "WHERE approval_id = $1 LIMIT $2";
        let id = id.to_owned();
        let listing = snapshot.list::<Approvals>(sql, 1, |q| q.bind(id)).await?;
        Ok(listing.rows.into_iter().next())
    }

    /// Passkeys.
    ///
    /// # Errors
    /// As [`ViewsSnapshot::passkeys`].
    pub async fn passkeys(
        &self,
        of: &PasskeysFilter,
    ) -> Result<Listing<PasskeyRow>, ProjectionError> {
        self.snapshot().await?.passkeys(of).await
    }

    /// Departments.
    ///
    /// # Errors
    /// As [`ViewsSnapshot::departments`].
    pub async fn departments(&self) -> Result<Listing<DepartmentRow>, ProjectionError> {
        self.snapshot().await?.departments().await
    }

    /// Checks I5 for a whole view as it stands, and returns the checkpoint that was checked. Holds
    /// all rows of the view in memory, twice.
    ///
    /// # Errors
    /// [`CheckError`]; [`ProjectionError::NotReady`] in it while a version serves that this
    /// program does not know.
    pub async fn verify(
        &self,
        view: &str,
        log: &mut dyn EventLog,
    ) -> Result<Checkpoint, CheckError> {
        let mut snapshot = self.snapshot().await?;
        match view {
            Agents::NAME => snapshot.verify::<Agents>(log).await,
            Trades::NAME => snapshot.verify::<Trades>(log).await,
            Approvals::NAME => snapshot.verify::<Approvals>(log).await,
            Departments::NAME => snapshot.verify::<Departments>(log).await,
            Passkeys::NAME => snapshot.verify::<Passkeys>(log).await,
            other => Err(ProjectionError::UnknownView(other.to_owned()).into()),
        }
    }
}

/// One moment of all views, held open by a transaction of Postgres: use it at once and drop it.
#[derive(Debug)]
pub struct ViewsSnapshot {
    transaction: Transaction<'static, Postgres>,
    database: Database,
}

impl ViewsSnapshot {
    /// Agents, by id.
    ///
    /// # Errors
    /// [`ProjectionError::NotReady`] if the view is not there, or if the version that serves lacks
    /// a column that may not be null; [`ProjectionError::Database`].
    pub async fn agents(&mut self, page: &Page) -> Result<Listing<AgentRow>, ProjectionError> {
        let sql = "WHERE ($1::text IS NULL OR agent_id > $1) ORDER BY agent_id LIMIT $2";
        let after = page.after.clone();
        self.list::<Agents>(sql, page.limit(), |query| query.bind(after))
            .await
    }

    /// Trades, by id.
    ///
    /// # Errors
    /// As [`Self::agents`].
    pub async fn trades(
        &mut self,
        of: &TradesFilter,
    ) -> Result<Listing<TradeRow>, ProjectionError> {
        let sql = "WHERE ($1::text IS NULL OR agent_id = $1) \
                   AND ($2::text IS NULL OR status = $2) \
                   AND ($3::text IS NULL OR trade_id > $3) ORDER BY trade_id LIMIT $4";
        let TradesFilter {
            agent_id,
            status,
            page,
        } = of.clone();
        let status = status.map(TradeStatus::as_str);
        let limit = page.limit();
        self.list::<Trades>(sql, limit, |q| {
            q.bind(agent_id).bind(status).bind(page.after)
        })
        .await
    }

    /// Approvals, by id.
    ///
    /// # Errors
    /// As [`Self::agents`].
    pub async fn approvals(
        &mut self,
        of: &ApprovalsFilter,
    ) -> Result<Listing<ApprovalRow>, ProjectionError> {
        let sql = "WHERE ($1::text IS NULL OR status = $1) \
                   AND ($2::text IS NULL OR approval_id > $2) ORDER BY approval_id LIMIT $3";
        let status = of.status.map(ApprovalStatus::as_str);
        let after = of.page.after.clone();
        self.list::<Approvals>(sql, of.page.limit(), |q| q.bind(status).bind(after))
            .await
    }

    /// Passkeys, by person and credential.
    ///
    /// # Errors
    /// As [`Self::agents`].
    pub async fn passkeys(
        &mut self,
        of: &PasskeysFilter,
    ) -> Result<Listing<PasskeyRow>, ProjectionError> {
        let sql = "WHERE ($1::text IS NULL OR approver = $1) \
                   AND ($2 OR revoked_at IS NULL) \
                   AND ($3::text IS NULL OR passkey_id > $3) ORDER BY passkey_id LIMIT $4";
        let PasskeysFilter {
            approver,
            revoked,
            page,
        } = of.clone();
        self.list::<Passkeys>(sql, page.limit(), |q| {
            q.bind(approver).bind(revoked).bind(page.after)
        })
        .await
    }

    /// Departments, by number; all of them.
    ///
    /// # Errors
    /// As [`Self::agents`].
    pub async fn departments(&mut self) -> Result<Listing<DepartmentRow>, ProjectionError> {
        // there are no more than a department id can tell apart
        let sql = "ORDER BY department LIMIT $1";
        self.list::<Departments>(sql, u32::from(u16::MAX) + 1, |query| query)
            .await
    }

    /// Results by agent and currency.
    ///
    /// # Errors
    /// As [`Self::agents`]; [`ProjectionError::Database`] also if a sum has more than 28 digits.
    pub async fn trade_totals(&mut self) -> Result<Listing<TradeTotals>, ProjectionError> {
        let serving = self.serving(Trades::NAME).await?;
        let counts: Vec<String> = TradeStatus::ALL
            .iter()
            .map(|s| format!("count(*) FILTER (WHERE status = '{0}') AS {0}", s.as_str()))
            .collect();
        let sql = format!(
            "SELECT agent_id, currency, count(*) AS trades, {}, \
             count(*) FILTER (WHERE profit > 0) AS won, \
             count(*) FILTER (WHERE profit < 0) AS lost, \
             coalesce(sum(profit), 0)::text AS profit \
             FROM {} GROUP BY agent_id, currency ORDER BY agent_id, currency LIMIT {}",
            counts.join(", "),
            serving.table(),
            PAGE_ROWS_MAX + 1,
        );
        let query = self.transaction.fetch_all(sqlx::query(&sql));
        let mut found = self.database.within("adding up trades", query).await?;
        let more = found.len() > PAGE_ROWS_MAX as usize;
        found.truncate(PAGE_ROWS_MAX as usize);
        let rows: Result<Vec<TradeTotals>, sqlx::Error> = found.iter().map(totals).collect();
        Ok(Listing {
            position: serving.position,
            version: serving.version,
            rows: rows?,
            more,
        })
    }

    /// How many approvals stand where, and as of which position.
    ///
    /// # Errors
    /// As [`Self::agents`].
    pub async fn approval_counts(
        &mut self,
    ) -> Result<(Position, BTreeMap<&'static str, i64>), ProjectionError> {
        let serving = self.serving(Approvals::NAME).await?;
        let sql = format!(
            "SELECT count(*) FILTER (WHERE status = $1) FROM {}",
            serving.table()
        );
        let mut counts = BTreeMap::new();
        for status in ApprovalStatus::ALL {
            let query = sqlx::query(&sql).bind(status.as_str());
            let count = self.transaction.fetch_one(query);
            let count = self.database.within("counting approvals", count).await?;
            counts.insert(status.as_str(), count.try_get(0)?);
        }
        Ok((serving.position, counts))
    }

    /// The build of a view that readers get: its version, and how far it has come.
    ///
    /// # Errors
    /// [`ProjectionError::NotReady`] if the view is not there; [`ProjectionError::Database`].
    pub async fn serving(&mut self, view: &str) -> Result<Build, ProjectionError> {
        let find = store::serving(&mut self.transaction, view);
        let found = self.database.within("reading a checkpoint", find).await?;
        found.ok_or_else(|| ProjectionError::not_ready(view, "no version serves"))
    }

    /// Rows of any view, by key, all of them: of the version that serves, whichever this is.
    ///
    /// # Errors
    /// As [`Self::agents`].
    pub async fn rows<V: View>(&mut self) -> Result<Listing<V::Row>, ProjectionError>
    where
        V::Row: Stored,
    {
        let sql = format!("ORDER BY {} LIMIT $1", V::Row::KEY);
        self.list::<V>(&sql, u32::MAX, |query| query).await
    }

    /// What to select, and from where: a version that another program made may have other
    /// columns.
    async fn source<V: View>(&mut self) -> Result<(Build, String), ProjectionError>
    where
        V::Row: Stored,
    {
        let serving = self.serving(V::NAME).await?;
        let table = serving.table();
        if serving.version == V::VERSION {
            return Ok((serving, format!("{} FROM {table}", select_list::<V::Row>())));
        }
        let sql = "SELECT attname::text FROM pg_attribute WHERE attrelid = to_regclass($1) \
                   AND attnum > 0 AND NOT attisdropped";
        let query = self.transaction.fetch_all(sqlx::query(sql).bind(&table));
        let found = self.database.within("reading columns", query).await?;
        let names: Result<Vec<String>, sqlx::Error> = found.iter().map(|r| r.try_get(0)).collect();
        let columns = select_list_of::<V::Row>(&names?).map_err(|missing| {
            let (theirs, ours) = (serving.version, V::VERSION);
            let reason = format!(
                "version {theirs} serves and has no column {missing}, which version {ours} has"
            );
            ProjectionError::not_ready(V::NAME, reason)
        })?;
        Ok((serving, format!("{columns} FROM {table}")))
    }

    /// `limit` is bound last; one row more is asked for, to know whether there are more.
    async fn list<V: View>(
        &mut self,
        rest: &str,
        limit: u32,
        bind: impl for<'q> FnOnce(Statement<'q>) -> Statement<'q>,
    ) -> Result<Listing<V::Row>, ProjectionError>
    where
        V::Row: Stored,
    {
        let (serving, source) = self.source::<V>().await?;
        let sql = format!("SELECT {source} {rest}");
        let query = bind(sqlx::query(&sql)).bind(i64::from(limit) + 1);
        let found = self.transaction.fetch_all(query);
        let found = self.database.within("reading a view", found).await?;
        let more = found.len() > limit as usize;
        let rows: Result<Vec<V::Row>, sqlx::Error> = found
            .iter()
            .take(limit as usize)
            .map(V::Row::read)
            .collect();
        Ok(Listing {
            position: serving.position,
            version: serving.version,
            rows: rows?,
            more,
        })
    }

    /// Checks I5 for a whole view in this snapshot, as [`ViewsReader::verify`].
    ///
    /// # Errors
    /// As [`ViewsReader::verify`].
    pub async fn verify<V: View>(
        &mut self,
        log: &mut dyn EventLog,
    ) -> Result<Checkpoint, CheckError>
    where
        V::Row: Stored,
    {
        let serving = self.serving(V::NAME).await?;
        if serving.version != V::VERSION {
            let reason = format!("version {} serves", serving.version);
            return Err(ProjectionError::not_ready(V::NAME, reason).into());
        }
        let rows = self.rows::<V>().await?.rows;
        let (position, found) = (serving.position, serving.hash);
        let (expected, hash) = invariant::fold_log::<V>(log, position).await?;
        if hash != found {
            return Err(CheckError::Hash {
                view: V::NAME,
                position,
                expected: hash,
                found,
            });
        }
        invariant::compare::<V>(position, expected, &rows)?;
        Ok(serving.checkpoint())
    }
}

fn totals(row: &PgRow) -> Result<TradeTotals, sqlx::Error> {
    let mut by_status = BTreeMap::new();
    for status in TradeStatus::ALL {
        by_status.insert(status.as_str(), row.try_get(status.as_str())?);
    }
    Ok(TradeTotals {
        agent_id: row.try_get("agent_id")?,
        currency: row.try_get("currency")?,
        trades: row.try_get("trades")?,
        by_status,
        won: row.try_get("won")?,
        lost: row.try_get("lost")?,
        profit: <Decimal as Field>::read(row, "profit")?,
    })
}
