use std::collections::BTreeSet;

use crate::record::SchemaIdSeen;
use crate::registry::{self, RegistryError, RegistryOptions};

/// Holds the schema ids found on topics ([`crate::KafkaLog::schema_ids`]) against the registry:
/// each must be known there and stand for the very schema that the canonical header names. With
/// it, whoever reads the topics with a stock client decodes the right thing.
///
/// One request an id; there are as many ids as event types and versions.
///
/// # Errors
/// [`RegistryError::Mismatch`] for the first id that is unknown or stands for something else,
/// [`RegistryError::Unreachable`] if the registry is.
pub async fn verify_schema_ids(
    options: &RegistryOptions,
    seen: &BTreeSet<SchemaIdSeen>,
) -> Result<(), RegistryError> {
    for SchemaIdSeen { id, fingerprint } in seen {
        let found = registry::fingerprint(options, *id).await?;
        if found.as_ref() != Ok(fingerprint) {
            return Err(RegistryError::Mismatch {
                id: *id,
                expected: hex(fingerprint),
                found: found.map_or_else(|cause| cause, |bytes| hex(&bytes)),
            });
        }
    }
    Ok(())
}

fn hex(bytes: &[u8; 8]) -> String {
    format!("{:016x}", u64::from_be_bytes(*bytes))
}
