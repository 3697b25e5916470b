use std::sync::LazyLock;

use serde::Serialize;
use sovereign_schemas::{Digest, Position, catalog};

/// What a run rested on: whoever has the same engine version, schemas and range gets the
/// same digests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RunManifest {
    /// Version of the engine.
    pub engine_version: &'static str,
    /// SHA-256 over subject, version and fingerprint of every event schema.
    pub schema_digest: Digest,
    /// First position of the range.
    pub first: Position,
    /// Last position of the range; one before `first` if it was empty.
    pub last: Position,
    /// Hash of the last event, or the hash before the first if there was none.
    pub head_hash: Digest,
}

static SCHEMA_DIGEST: LazyLock<Digest> = LazyLock::new(|| {
    let mut bytes = Vec::new();
    for schema in catalog::all() {
        crate::digest::put_prefixed(&mut bytes, schema.subject.as_bytes());
        bytes.extend_from_slice(&schema.version.to_be_bytes());
        bytes.extend_from_slice(&schema.fingerprint);
    }
    Digest::of(&[&bytes])
});

impl RunManifest {
    /// The manifest of a run by this build over a range.
    #[must_use]
    pub fn new(first: Position, last: Position, head_hash: Digest) -> Self {
        Self {
            engine_version: env!("CARGO_PKG_VERSION"),
            schema_digest: *SCHEMA_DIGEST,
            first,
            last,
            head_hash,
        }
    }
}
