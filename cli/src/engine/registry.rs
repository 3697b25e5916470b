//! The schema registry's API over the store in the ledger's database.

use async_trait::async_trait;
use sovereign_console::{Mode, SchemaStore, SchemaStoreError, SchemaVersion};
use sovereign_event_store::{SchemaRegistry, Setting, StoreError, StoredSchema};
use sovereign_schemas::compatibility::Compatibility;
use sovereign_schemas::{ErrorCode, Problem};

use crate::failure::Result;

pub(super) struct Registry(SchemaRegistry);

type Stored<T> = std::result::Result<T, SchemaStoreError>;

impl Registry {
    pub(super) fn connect(database: &str) -> Result<Self> {
        Ok(Self(
            SchemaRegistry::connect(database).map_err(|e| e.problem())?,
        ))
    }

    async fn setting<T: serde::de::DeserializeOwned>(
        &self,
        setting: Setting,
        subject: Option<&str>,
    ) -> Stored<Option<T>> {
        let Some(text) = self
            .0
            .setting(setting, subject)
            .await
            .map_err(unavailable)?
        else {
            return Ok(None);
        };
        serde_json::from_value(text.into())
            .map(Some)
            .map_err(|e| internal(&e))
    }

    async fn set<T: serde::Serialize>(
        &self,
        setting: Setting,
        subject: Option<&str>,
        value: Option<T>,
    ) -> Stored<()> {
        let value = value
            .map(serde_json::to_value)
            .transpose()
            .map_err(|e| internal(&e))?;
        let text = value.as_ref().and_then(serde_json::Value::as_str);
        self.0
            .set(setting, subject, text)
            .await
            .map_err(unavailable)
    }
}

fn unavailable(error: StoreError) -> SchemaStoreError {
    SchemaStoreError::Unavailable(error.problem())
}

fn internal(error: &serde_json::Error) -> SchemaStoreError {
    SchemaStoreError::Unavailable(Problem::new(ErrorCode::Internal, error.to_string()))
}

fn version(stored: StoredSchema) -> SchemaVersion {
    let StoredSchema {
        id,
        subject,
        version,
        schema,
        deleted,
    } = stored;
    SchemaVersion {
        id,
        subject,
        version,
        schema,
        deleted,
    }
}

#[async_trait]
impl SchemaStore for Registry {
    async fn versions(&self, subject: &str) -> Stored<Vec<SchemaVersion>> {
        let found = self.0.versions(Some(subject)).await.map_err(unavailable)?;
        Ok(found.into_iter().map(version).collect())
    }

    async fn all(&self) -> Stored<Vec<SchemaVersion>> {
        let found = self.0.versions(None).await.map_err(unavailable)?;
        Ok(found.into_iter().map(version).collect())
    }

    async fn with_id(&self, id: u32) -> Stored<Vec<SchemaVersion>> {
        let found = self.0.with_id(id).await.map_err(unavailable)?;
        Ok(found.into_iter().map(version).collect())
    }

    async fn append(&self, subject: &str, schema: &str, after: u32) -> Stored<SchemaVersion> {
        let added = self
            .0
            .append(subject, schema, after)
            .await
            .map_err(unavailable)?;
        added.map(version).ok_or(SchemaStoreError::Moved)
    }

    async fn delete(&self, subject: &str, versions: &[u32]) -> Stored<()> {
        self.0
            .delete(subject, versions, false)
            .await
            .map_err(unavailable)
    }

    async fn erase(&self, subject: &str, versions: &[u32]) -> Stored<()> {
        self.0
            .delete(subject, versions, true)
            .await
            .map_err(unavailable)
    }

    async fn compatibility(&self, subject: Option<&str>) -> Stored<Option<Compatibility>> {
        self.setting(Setting::Compatibility, subject).await
    }

    async fn set_compatibility(
        &self,
        subject: Option<&str>,
        level: Option<Compatibility>,
    ) -> Stored<()> {
        self.set(Setting::Compatibility, subject, level).await
    }

    async fn mode(&self, subject: Option<&str>) -> Stored<Option<Mode>> {
        self.setting(Setting::Mode, subject).await
    }

    async fn set_mode(&self, subject: Option<&str>, mode: Option<Mode>) -> Stored<()> {
        self.set(Setting::Mode, subject, mode).await
    }
}
