//! The views' port over the simulated PostgreSQL.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use sovereign_projections::{
    Agents, Approvals, Checkpoint, DatabaseError, DatabaseFault, Departments, Role, Trades, View,
    ViewDatabase,
};
use sovereign_schemas::{Digest, Position};

use crate::kernel::{Lost, Process, Server, State};
use crate::postgres::Tables;
use crate::sabotage::Sabotage;

/// Rows of one view with their checkpoint.
pub(crate) struct Table<V: View> {
    pub(crate) rows: BTreeMap<V::Key, V::Row>,
    pub(crate) checkpoint: Checkpoint,
    /// Counts commits.
    pub(crate) version: u64,
}

impl<V: View> Default for Table<V> {
    fn default() -> Self {
        Self {
            rows: BTreeMap::new(),
            checkpoint: Checkpoint {
                position: Position::START,
                hash: Digest::ZERO,
                generation: 0,
                role: Role::Serving,
            },
            version: 0,
        }
    }
}

#[derive(Default)]
pub(crate) struct ViewTables {
    pub(crate) agents: Table<Agents>,
    pub(crate) trades: Table<Trades>,
    pub(crate) approvals: Table<Approvals>,
    pub(crate) departments: Table<Departments>,
}

/// A view with a table here.
pub(crate) trait Kept: View + Sized {
    fn table(tables: &ViewTables) -> &Table<Self>;
    fn table_mut(tables: &mut ViewTables) -> &mut Table<Self>;
}

macro_rules! kept {
    ($($view:ident $field:ident),*) => {$(
        impl Kept for $view {
            fn table(tables: &ViewTables) -> &Table<Self> {
                &tables.$field
            }
            fn table_mut(tables: &mut ViewTables) -> &mut Table<Self> {
                &mut tables.$field
            }
        }
    )*};
}
kept!(Agents agents, Trades trades, Approvals approvals, Departments departments);

#[derive(Debug)]
pub(crate) struct SimulatedViews {
    pub(crate) process: Process,
    /// The life of the server that this view's connection belongs to: a crash ends it.
    pub(crate) boot: Option<u64>,
}

impl SimulatedViews {
    async fn ask<R: Send + 'static>(
        &mut self,
        mut op: impl FnMut(&mut State) -> Option<R> + Send + 'static,
    ) -> Result<R, DatabaseError> {
        let boot = self.boot.take();
        let in_this_life = move |state: &mut State| {
            let now = state.postgres.boot;
            match boot {
                Some(boot) if boot != now => Some(Err(Lost)),
                _ => op(state).map(|done| Ok((now, done))),
            }
        };
        let answer = self.process.call(Server::Postgres, in_this_life).await;
        match answer.and_then(|done| done) {
            Ok((now, done)) => {
                self.boot = Some(now);
                Ok(done)
            }
            Err(Lost) => Err(DatabaseError {
                fault: DatabaseFault::Unreachable,
                message: "no answer in the simulation".to_owned(),
            }),
        }
    }
}

#[async_trait]
impl<V: Kept> ViewDatabase<V> for SimulatedViews {
    async fn checkpoint(&mut self) -> Result<Option<Checkpoint>, DatabaseError> {
        let read = |state: &mut State| Some(V::table(&state.postgres.tables.views).checkpoint);
        Ok(Some(self.ask(read).await?))
    }

    async fn rows(&mut self, keys: &[V::Key]) -> Result<Vec<V::Row>, DatabaseError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let keys = keys.to_vec();
        self.ask(move |state| {
            let rows = &V::table(&state.postgres.tables.views).rows;
            Some(keys.iter().filter_map(|k| rows.get(k).cloned()).collect())
        })
        .await
    }

    async fn commit(
        &mut self,
        from: &Checkpoint,
        to: &Checkpoint,
        rows: &[V::Row],
    ) -> Result<Option<Checkpoint>, DatabaseError> {
        let (from, to, rows) = (*from, *to, rows.to_vec());
        let mut rows_are_in = false;
        self.ask(move |state| {
            let found = V::table(&state.postgres.tables.views).checkpoint;
            let same = (found.position, found.generation) == (from.position, from.generation);
            if !same && !state.sabotaged(Sabotage::CheckpointIsNotCompared) {
                return Some(None);
            }
            state
                .checks
                .left("shown", &state.postgres, to.position, to.hash);
            if state.sabotaged(Sabotage::CheckpointApartFromRows) && !rows_are_in {
                rows_are_in = true;
                put::<V>(state, found, rows.clone());
                return None;
            }
            put::<V>(state, to, rows.clone());
            state.note(|| format!("postgres: view {} to {}", V::NAME, to.position));
            Some(Some(to))
        })
        .await
    }
}

fn put<V: Kept>(state: &mut State, checkpoint: Checkpoint, rows: Vec<V::Row>) {
    state.postgres.commit(Arc::new(move |tables: &mut Tables| {
        let table = V::table_mut(&mut tables.views);
        table.checkpoint = checkpoint;
        table.version += 1;
        for row in &rows {
            table.rows.insert(V::row_key(row), row.clone());
        }
    }));
}
