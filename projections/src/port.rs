//! What a view needs of its store. The projector's Postgres is one; a simulation has another.

use async_trait::async_trait;
use serde::Serialize;
use sovereign_schemas::{Digest, Position};

use crate::{DatabaseError, View};

/// What one version of a view is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Readers get its rows. At most one of a view has this role, always.
    Serving,
    /// It is built beside the one that serves, and takes its place once it has caught up.
    Next,
    /// It served before, or was put back: kept for a way back.
    Kept,
}

/// How far one build of a view has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Checkpoint {
    /// Last position folded; 0 before the first.
    pub position: Position,
    /// Hash of the event there; all zero at position 0.
    pub hash: Digest,
    /// How often the view was built again in this version. Tells a view that was rebuilt up to the
    /// same position from one that never moved.
    pub generation: i64,
    /// What it is there for.
    pub role: Role,
}

/// Rows and checkpoint of one build of a view. All that [`crate::run_view`] does to the outside
/// goes through this and through its tail.
#[async_trait]
pub trait ViewDatabase<V: View>: Send {
    /// How far it has come; `None` if there is no such build, or no more.
    ///
    /// # Errors
    /// Why it cannot be told.
    async fn checkpoint(&mut self) -> Result<Option<Checkpoint>, DatabaseError>;

    /// The rows that exist of those with these keys, in any order.
    ///
    /// # Errors
    /// Why they cannot be read.
    async fn rows(&mut self, keys: &[V::Key]) -> Result<Vec<V::Row>, DatabaseError>;

    /// Writes rows and moves the checkpoint in one transaction, if it still stands at `from`'s
    /// position and generation. `None` if it does not, and then nothing is written; otherwise the
    /// checkpoint as it stands now, with its present role.
    ///
    /// If `from` is [`Role::Next`] and `to` is [`Role::Serving`], the same transaction lets the
    /// build serve from now on, and keeps the one that served, unless that one stands beyond
    /// `to`: readers must not be thrown back. All else happens even then.
    ///
    /// # Errors
    /// Why nothing, or possibly everything, was done: after a lost answer nobody knows.
    /// [`crate::DatabaseFault::Data`] promises that a row was refused and nothing was done.
    async fn commit(
        &mut self,
        from: &Checkpoint,
        to: &Checkpoint,
        rows: &[V::Row],
    ) -> Result<Option<Checkpoint>, DatabaseError>;
}
