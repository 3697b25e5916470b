use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;

use async_trait::async_trait;
use sovereign_console::{Mode, SchemaStore, SchemaStoreError, SchemaVersion};
use sovereign_schemas::compatibility::Compatibility;

type Stored<T> = Result<T, SchemaStoreError>;

/// A schema store in memory.
#[derive(Default)]
pub(crate) struct MemoryStore(Mutex<Tables>);

#[derive(Default)]
struct Tables {
    versions: BTreeMap<(String, u32), SchemaVersion>,
    /// Never shrinks: ids are not given twice.
    ids: HashMap<String, u32>,
    levels: HashMap<Option<String>, Compatibility>,
    modes: HashMap<Option<String>, Mode>,
}

fn put<T>(map: &mut HashMap<Option<String>, T>, subject: Option<&str>, value: Option<T>) {
    let key = subject.map(str::to_owned);
    match value {
        Some(value) => map.insert(key, value),
        None => map.remove(&key),
    };
}

impl MemoryStore {
    fn select(&self, wanted: impl Fn(&SchemaVersion) -> bool) -> Stored<Vec<SchemaVersion>> {
        let tables = self.0.lock().unwrap();
        Ok(tables
            .versions
            .values()
            .filter(|v| wanted(v))
            .cloned()
            .collect())
    }
}

#[async_trait]
impl SchemaStore for MemoryStore {
    async fn versions(&self, subject: &str) -> Stored<Vec<SchemaVersion>> {
        self.select(|v| v.subject == subject)
    }

    async fn all(&self) -> Stored<Vec<SchemaVersion>> {
        self.select(|_| true)
    }

    async fn with_id(&self, id: u32) -> Stored<Vec<SchemaVersion>> {
        self.select(|v| v.id == id)
    }

    async fn append(&self, subject: &str, schema: &str, after: u32) -> Stored<SchemaVersion> {
        // lets others in, so that a lost race is not only theory
        tokio::task::yield_now().await;
        let mut tables = self.0.lock().unwrap();
        let of_subject = tables.versions.keys().filter(|(s, _)| s == subject);
        if of_subject.map(|(_, v)| *v).max().unwrap_or_default() != after {
            return Err(SchemaStoreError::Moved);
        }
        let next = u32::try_from(tables.ids.len()).unwrap() + 1;
        let id = *tables.ids.entry(schema.to_owned()).or_insert(next);
        let version = SchemaVersion {
            id,
            subject: subject.to_owned(),
            version: after + 1,
            schema: schema.to_owned(),
            deleted: false,
        };
        tables
            .versions
            .insert((subject.to_owned(), after + 1), version.clone());
        Ok(version)
    }

    async fn delete(&self, subject: &str, versions: &[u32]) -> Stored<()> {
        let mut tables = self.0.lock().unwrap();
        for version in versions {
            if let Some(found) = tables.versions.get_mut(&(subject.to_owned(), *version)) {
                found.deleted = true;
            }
        }
        Ok(())
    }

    async fn erase(&self, subject: &str, versions: &[u32]) -> Stored<()> {
        let mut tables = self.0.lock().unwrap();
        tables
            .versions
            .retain(|(s, v), _| s != subject || !versions.contains(v));
        Ok(())
    }

    async fn compatibility(&self, subject: Option<&str>) -> Stored<Option<Compatibility>> {
        Ok(self
            .0
            .lock()
            .unwrap()
            .levels
            .get(&subject.map(str::to_owned))
            .copied())
    }

    async fn set_compatibility(
        &self,
        subject: Option<&str>,
        level: Option<Compatibility>,
    ) -> Stored<()> {
        put(&mut self.0.lock().unwrap().levels, subject, level);
        Ok(())
    }

    async fn mode(&self, subject: Option<&str>) -> Stored<Option<Mode>> {
        Ok(self
            .0
            .lock()
            .unwrap()
            .modes
            .get(&subject.map(str::to_owned))
            .copied())
    }

    async fn set_mode(&self, subject: Option<&str>, mode: Option<Mode>) -> Stored<()> {
        put(&mut self.0.lock().unwrap().modes, subject, mode);
        Ok(())
    }
}
