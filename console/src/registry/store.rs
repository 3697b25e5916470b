use async_trait::async_trait;
use sovereign_schemas::Problem;
use sovereign_schemas::compatibility::Compatibility;

/// Whether subjects may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Mode {
    /// They may.
    ReadWrite,
    /// They may not.
    ReadOnly,
}

/// One version of one subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaVersion {
    /// The schema's id, from 1: the same text has the same id in all subjects.
    pub id: u32,
    /// The subject.
    pub subject: String,
    /// The version, from 1. Versions of a subject may have gaps.
    pub version: u32,
    /// The schema, as [`sovereign_schemas::compatibility::normalized`] writes it.
    pub schema: String,
    /// Deleted softly: found only by those who ask for it, and by id.
    pub deleted: bool,
}

/// Why the store did not do it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SchemaStoreError {
    /// The subject has changed meanwhile: read it again and decide anew.
    Moved,
    /// The store does not work.
    Unavailable(Problem),
}

/// Where schemas are kept. It only stores: what may be registered, changed or deleted is decided
/// here, by the console.
///
/// Versions are returned oldest first, those that are softly deleted included. Each method is
/// atomic and, once it has returned, durable.
#[async_trait]
pub trait SchemaStore: Send + Sync {
    /// All versions of one subject, by version; empty if there is no such subject.
    async fn versions(&self, subject: &str) -> Result<Vec<SchemaVersion>, SchemaStoreError>;

    /// All versions of all subjects, by subject and version.
    async fn all(&self) -> Result<Vec<SchemaVersion>, SchemaStoreError>;

    /// All versions with this id, by subject and version; empty if there is no such id.
    async fn with_id(&self, id: u32) -> Result<Vec<SchemaVersion>, SchemaStoreError>;

    /// Adds version `after + 1` if `after` is the highest version the subject has, deleted ones
    /// included (0 if it has none); otherwise [`SchemaStoreError::Moved`]. A text that has an id
    /// keeps it; an id is never given to another text, not even after its versions were erased.
    async fn append(
        &self,
        subject: &str,
        schema: &str,
        after: u32,
    ) -> Result<SchemaVersion, SchemaStoreError>;

    /// Deletes versions softly; those that are deleted already, or do not exist, are left alone.
    async fn delete(&self, subject: &str, versions: &[u32]) -> Result<(), SchemaStoreError>;

    /// Deletes versions for good.
    async fn erase(&self, subject: &str, versions: &[u32]) -> Result<(), SchemaStoreError>;

    /// The level set for a subject, or for all (`None`); `None` if none is set.
    async fn compatibility(
        &self,
        subject: Option<&str>,
    ) -> Result<Option<Compatibility>, SchemaStoreError>;

    /// Sets or takes away a level.
    async fn set_compatibility(
        &self,
        subject: Option<&str>,
        level: Option<Compatibility>,
    ) -> Result<(), SchemaStoreError>;

    /// The mode set for a subject, or for all (`None`); `None` if none is set.
    async fn mode(&self, subject: Option<&str>) -> Result<Option<Mode>, SchemaStoreError>;

    /// Sets or takes away a mode.
    async fn set_mode(
        &self,
        subject: Option<&str>,
        mode: Option<Mode>,
    ) -> Result<(), SchemaStoreError>;
}
