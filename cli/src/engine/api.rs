//! What the API reads: the ledger, the views, and the tokens of the data folder.

use std::path::PathBuf;

use async_trait::async_trait;
use serde_json::{Value, json};
use sovereign_console::{
    EventFilter, EventSource, RowSource, Rows, Texts, TokenRecord, TokenStore,
};
use sovereign_event_store::{Filter, Ledger, LedgerReader};
use sovereign_projections::{ApprovalStatus, ApprovalsFilter, Listing, Page, ViewsReader};
use sovereign_schemas::{Departments, ErrorCode, Position, Problem, RecordedEvent, Tail};

use super::start::unusable;
use crate::describe::Describer;
use crate::failure::Failure;
use crate::location::write_private;

/// The ledger, for reading: under the API's own role but for what is pushed from the writer's memory.
pub(super) struct Events {
    pub(super) reader: LedgerReader,
    pub(super) ledger: Ledger,
    pub(super) describer: Describer,
}

#[async_trait]
impl EventSource for Events {
    fn departments(&self) -> &Departments {
        &self.describer.departments
    }

    async fn head(&self) -> Result<Position, Problem> {
        let head = self.reader.head().await;
        Ok(head.map_err(|e| e.problem())?.position)
    }

    async fn page(
        &self,
        after: Position,
        limit: usize,
        filter: &EventFilter,
    ) -> Result<(Vec<RecordedEvent>, Position), Problem> {
        let filter = Filter {
            department: filter.department,
            aggregate_type: filter.aggregate_type,
            aggregate_id: filter.aggregate_id.clone(),
            around_agent: None,
        };
        let found = self.reader.read_filtered(after, limit, &filter).await;
        found.map_err(|e| e.problem())
    }

    fn tail(&self) -> Box<dyn Tail> {
        Box::new(self.ledger.tail())
    }

    async fn describe(&self, event: &RecordedEvent, texts: Texts) -> Value {
        let data = match texts {
            Texts::Sealed => self.describer.sealed_data(event),
            Texts::Revealed => self.describer.data(event).await,
        };
        self.describer.described(event, &data)
    }
}

/// The views, for reading.
pub(super) struct Views(pub(super) ViewsReader);

fn rows<R: serde::Serialize>(listing: &Listing<R>, key: impl Fn(&R) -> &String) -> Rows {
    let last = listing.rows.last().filter(|_| listing.more);
    Rows {
        position: listing.position,
        rows: listing.rows.iter().map(|row| json!(row)).collect(),
        next: last.map(|row| key(row).clone()),
    }
}

#[async_trait]
impl RowSource for Views {
    async fn agents(&self, after: Option<String>, limit: u32) -> Result<Rows, Problem> {
        let listing = self.0.agents(&Page { after, limit }).await;
        Ok(rows(&listing.map_err(|e| e.problem())?, |r| &r.agent_id))
    }

    async fn approvals(
        &self,
        all: bool,
        after: Option<String>,
        limit: u32,
    ) -> Result<Rows, Problem> {
        let filter = ApprovalsFilter {
            status: (!all).then_some(ApprovalStatus::Waiting),
            page: Page { after, limit },
        };
        let listing = self.0.approvals(&filter).await;
        Ok(rows(&listing.map_err(|e| e.problem())?, |r| &r.approval_id))
    }

    async fn approval(&self, id: &str) -> Result<Value, Problem> {
        let unknown = || Problem::new(ErrorCode::NotFound, "no such approval").found(id);
        // the database takes no NUL in a text
        if id.contains('\0') {
            return Err(unknown());
        }
        let found = self.0.approval(id).await.map_err(|e| e.problem())?;
        found.map(|row| json!(row)).ok_or_else(unknown)
    }
}

/// `tokens.json` of the data folder: names, roles and hashes.
pub(super) struct TokenFile(pub(super) PathBuf);

fn problem(error: &std::io::Error) -> Problem {
    match unusable(error) {
        Failure::Problem(problem) => *problem,
        _ => Problem::new(ErrorCode::Internal, "tokens cannot be stored"),
    }
}

#[async_trait]
impl TokenStore for TokenFile {
    async fn load(&self) -> Result<Vec<TokenRecord>, Problem> {
        let bytes = match tokio::fs::read(&self.0).await {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(problem(&error)),
        };
        serde_json::from_slice(&bytes).map_err(|error| {
            let at = format!("line {} column {}", error.line(), error.column());
            Problem::new(
                ErrorCode::DataFolderUnusable,
                format!("tokens cannot be read at {at}"),
            )
            .found(self.0.display().to_string())
            .remedy("restore tokens.json, or remove it: then every token has to be made anew")
        })
    }

    async fn save(&self, records: &[TokenRecord]) -> Result<(), Problem> {
        let bytes = serde_json::to_vec_pretty(records)
            .map_err(|e| Problem::new(ErrorCode::Internal, e.to_string()))?;
        let path = self.0.clone();
        let written = tokio::task::spawn_blocking(move || write_private(&path, &bytes)).await;
        match written {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(problem(&error)),
            Err(error) => Err(Problem::new(ErrorCode::Internal, error.to_string())),
        }
    }
}
