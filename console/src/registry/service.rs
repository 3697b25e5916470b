//! What may be registered, found and deleted.

use sovereign_schemas::compatibility::{Compatibility, can_read, normalized};

use super::error::RegistryError;
use super::params::VersionName;
use super::store::{Mode, SchemaStore, SchemaStoreError, SchemaVersion};

/// Times that a registration is decided anew when others register in the same subject.
const ATTEMPTS_MAX: u32 = 16;

/// The level when none was ever set.
pub(super) const DEFAULT_LEVEL: Compatibility = Compatibility::Backward;

pub(super) type Result<T> = std::result::Result<T, RegistryError>;

/// The body of a registration, a look-up or a test of compatibility.
#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SchemaBody {
    schema: Option<String>,
    schema_type: Option<String>,
    references: Option<Vec<serde_json::Value>>,
    id: Option<i64>,
    version: Option<i64>,
}

impl SchemaBody {
    /// The schema in the form in which schemas are stored and compared.
    pub(super) fn parse(&self) -> Result<String> {
        let kind = self.schema_type.as_deref().unwrap_or("AVRO");
        if !kind.eq_ignore_ascii_case("AVRO") {
            return Err(RegistryError::invalid_schema(
                "only schemas of type AVRO are kept here",
            ));
        }
        if self.references.as_ref().is_some_and(|r| !r.is_empty()) {
            let why = "references are not supported; write the referenced types out in the schema";
            return Err(RegistryError::invalid_schema(why));
        }
        let schema = self.schema.as_deref().unwrap_or_default();
        if schema.trim().is_empty() {
            return Err(RegistryError::invalid_schema("the schema is empty"));
        }
        normalized(&quoted(schema)).map_err(|e| RegistryError::invalid_schema(&e))
    }

    /// Ids and versions are chosen here: who brings an id wants to import.
    fn check_import(&self, subject: &str) -> Result<()> {
        if self.id.is_some_and(|id| id > 0) || self.version.is_some_and(|v| v > 0) {
            let message = format!("Subject {subject} is not in import mode");
            return Err(RegistryError::not_permitted(message));
        }
        Ok(())
    }
}

/// Some clients send a primitive type's bare name, which is no JSON.
fn quoted(schema: &str) -> String {
    let bare = schema.trim();
    if bare.bytes().all(|b| b.is_ascii_lowercase()) {
        format!("\"{bare}\"")
    } else {
        bare.to_owned()
    }
}

/// Registers a schema; one that the subject has keeps its id.
pub(super) async fn register(
    store: &dyn SchemaStore,
    subject: &str,
    body: &SchemaBody,
) -> Result<SchemaVersion> {
    let schema = body.parse()?;
    for _ in 0..ATTEMPTS_MAX {
        let versions = store.versions(subject).await?;
        if let Some(known) = versions
            .iter()
            .rev()
            .find(|v| !v.deleted && v.schema == schema)
        {
            return Ok(known.clone());
        }
        body.check_import(subject)?;
        check_writable(store, subject).await?;
        let level = effective_level(store, subject).await?;
        let live: Vec<&SchemaVersion> = versions.iter().filter(|v| !v.deleted).collect();
        incompatibilities(level, &schema, &live)
            .first()
            .map_or(Ok(()), |why| Err(RegistryError::incompatible(subject, why)))?;
        let after = versions.last().map_or(0, |v| v.version);
        match store.append(subject, &schema, after).await {
            Err(SchemaStoreError::Moved) => {}
            appended => return Ok(appended?),
        }
    }
    Err(SchemaStoreError::Moved.into())
}

/// What keeps `candidate` from following `versions` (oldest first) under `level`.
pub(super) fn incompatibilities(
    level: Compatibility,
    candidate: &str,
    versions: &[&SchemaVersion],
) -> Vec<String> {
    use Compatibility::{
        Backward, BackwardTransitive, Forward, ForwardTransitive, Full, FullTransitive,
    };
    let backward = matches!(level, Backward | BackwardTransitive | Full | FullTransitive);
    let forward = matches!(level, Forward | ForwardTransitive | Full | FullTransitive);
    let transitive = matches!(
        level,
        BackwardTransitive | ForwardTransitive | FullTransitive
    );
    let skip = if transitive {
        0
    } else {
        versions.len().saturating_sub(1)
    };
    let mut found = Vec::new();
    for old in versions.iter().skip(skip) {
        let checks = [
            (
                backward,
                can_read as fn(&str, &str) -> _,
                candidate,
                old.schema.as_str(),
                "the new",
            ),
            (forward, can_read, old.schema.as_str(), candidate, "the old"),
        ];
        for (wanted, check, reader, writer, who) in checks {
            if !wanted {
                continue;
            }
            if let Err(why) = check(reader, writer) {
                let version = old.version;
                found.push(format!(
                    "with version {version}, {who} schema as reader: {why}"
                ));
            }
        }
    }
    found
}

/// The subject's version that holds a schema.
pub(super) async fn look_up(
    store: &dyn SchemaStore,
    subject: &str,
    body: &SchemaBody,
    deleted: bool,
) -> Result<SchemaVersion> {
    let schema = body.parse()?;
    let mut versions = store.versions(subject).await?;
    versions.retain(|v| deleted || !v.deleted);
    if versions.is_empty() {
        return Err(RegistryError::no_subject(subject));
    }
    let found = versions.into_iter().rev().find(|v| v.schema == schema);
    found.ok_or_else(RegistryError::no_schema)
}

/// One version of a subject.
pub(super) async fn find(
    store: &dyn SchemaStore,
    subject: &str,
    name: VersionName,
    deleted: bool,
) -> Result<SchemaVersion> {
    let mut versions = store.versions(subject).await?;
    versions.retain(|v| deleted || !v.deleted);
    pick(versions, subject, name)
}

fn pick(versions: Vec<SchemaVersion>, subject: &str, name: VersionName) -> Result<SchemaVersion> {
    if versions.is_empty() {
        return Err(RegistryError::no_subject(subject));
    }
    match name {
        VersionName::Latest => versions
            .into_iter()
            .next_back()
            .ok_or_else(|| RegistryError::no_subject(subject)),
        VersionName::Number(number) => versions
            .into_iter()
            .find(|v| v.version == number)
            .ok_or_else(|| RegistryError::no_version(number)),
    }
}

/// Deletes a subject, first softly, then for good; returns the versions that were affected.
pub(super) async fn delete_subject(
    store: &dyn SchemaStore,
    subject: &str,
    permanent: bool,
) -> Result<Vec<u32>> {
    let versions = store.versions(subject).await?;
    if versions.is_empty() {
        return Err(RegistryError::no_subject(subject));
    }
    check_writable(store, subject).await?;
    let live = versions.iter().filter(|v| !v.deleted);
    let live: Vec<u32> = live.map(|v| v.version).collect();
    if permanent {
        if !live.is_empty() {
            return Err(RegistryError::subject_not_deleted(subject));
        }
        let all: Vec<u32> = versions.iter().map(|v| v.version).collect();
        store.erase(subject, &all).await?;
        return Ok(all);
    }
    if live.is_empty() {
        return Err(RegistryError::subject_deleted(subject));
    }
    store.delete(subject, &live).await?;
    // as in Confluent's server, a deleted subject forgets what was set for it
    store.set_compatibility(Some(subject), None).await?;
    store.set_mode(Some(subject), None).await?;
    Ok(live)
}

/// Deletes a version, first softly, then for good; returns its number.
pub(super) async fn delete_version(
    store: &dyn SchemaStore,
    subject: &str,
    name: VersionName,
    permanent: bool,
) -> Result<u32> {
    let mut versions = store.versions(subject).await?;
    if name == VersionName::Latest && !permanent {
        versions.retain(|v| !v.deleted);
    }
    let found = pick(versions, subject, name)?;
    check_writable(store, subject).await?;
    let version = found.version;
    match (permanent, found.deleted) {
        (false, false) => store.delete(subject, &[version]).await?,
        (true, true) => store.erase(subject, &[version]).await?,
        (false, true) => return Err(RegistryError::version_deleted(subject, version)),
        (true, false) => return Err(RegistryError::version_not_deleted(subject, version)),
    }
    Ok(version)
}

/// The level that counts for a subject.
pub(super) async fn effective_level(
    store: &dyn SchemaStore,
    subject: &str,
) -> Result<Compatibility> {
    if let Some(level) = store.compatibility(Some(subject)).await? {
        return Ok(level);
    }
    Ok(store.compatibility(None).await?.unwrap_or(DEFAULT_LEVEL))
}

/// The mode that counts for a subject.
pub(super) async fn effective_mode(store: &dyn SchemaStore, subject: &str) -> Result<Mode> {
    if let Some(mode) = store.mode(Some(subject)).await? {
        return Ok(mode);
    }
    Ok(store.mode(None).await?.unwrap_or(Mode::ReadWrite))
}

async fn check_writable(store: &dyn SchemaStore, subject: &str) -> Result<()> {
    match effective_mode(store, subject).await? {
        Mode::ReadWrite => Ok(()),
        Mode::ReadOnly => Err(RegistryError::not_permitted(format!(
            "Subject {subject} is in read-only mode"
        ))),
    }
}
