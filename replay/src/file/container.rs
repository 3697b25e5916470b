//! The header of the container: magic, metadata, sync marker.

use sovereign_schemas::avro::{self, DecodeError, Reader};
use sovereign_schemas::{Digest, Position, catalog};

use super::{FORMAT, FileInfo, MAGIC, SYNC_BYTES};

const CONTENT: &str = "sovereign.content_sha256";
/// More metadata entries than any writer makes.
const ENTRIES_MAX: usize = 64;

/// A decoded header.
#[derive(Debug, Clone)]
pub(super) struct Container {
    pub(super) info: FileInfo,
    pub(super) sync: [u8; SYNC_BYTES],
    /// JSON list of the schemas of the payloads.
    pub(super) schemas: String,
    /// SHA-256 of the file with the digits of this very value replaced by `0`.
    pub(super) content: Digest,
    /// Where those 64 digits stand.
    pub(super) content_at: usize,
    /// Length of the header.
    pub(super) length: usize,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn schemas_json() -> String {
    let all: Vec<_> = catalog::all()
        .iter()
        .map(|s| {
            serde_json::json!({
                "fingerprint": hex(&s.fingerprint),
                "event_type": s.name,
                "version": s.version,
                "schema": s.json,
            })
        })
        .collect();
    serde_json::Value::from(all).to_string()
}

/// The header with `0` for each digit of the content's digest, and where those digits stand.
pub(super) fn encode(info: &FileInfo) -> (Vec<u8>, usize, [u8; SYNC_BYTES]) {
    let entries = [
        ("avro.schema", catalog::RECORDED_EVENT_SCHEMA.to_owned()),
        ("avro.codec", "null".to_owned()),
        ("sovereign.format", FORMAT.to_owned()),
        ("sovereign.first", info.first.to_string()),
        ("sovereign.last", info.last.to_string()),
        ("sovereign.previous_hash", info.previous_hash.to_string()),
        ("sovereign.last_hash", info.last_hash.to_string()),
        ("sovereign.schemas", schemas_json()),
        (CONTENT, "0".repeat(64)),
    ];
    let mut out = MAGIC.to_vec();
    avro::put_long(&mut out, entries.len() as i64);
    for (key, value) in &entries {
        avro::put_bytes(&mut out, key.as_bytes());
        avro::put_bytes(&mut out, value.as_bytes());
    }
    let content_at = out.len() - 64;
    avro::put_long(&mut out, 0);
    // any 16 bytes will do; these make equal exports equal files
    let seed = Digest::of(&[b"sovereign recorded file", &out]);
    let mut sync = [0; SYNC_BYTES];
    sync.copy_from_slice(&seed.0[..SYNC_BYTES]);
    out.extend_from_slice(&sync);
    (out, content_at, sync)
}

/// Why a header cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum HeaderError {
    #[error("not an avro object container file")]
    Magic,
    #[error("file header: {0}")]
    Avro(#[from] DecodeError),
    #[error("file header: {0} metadata entries, at most {ENTRIES_MAX} are allowed")]
    Entries(i64),
    #[error("file header: {0} is missing, doubled or has an unusable value")]
    Value(&'static str),
}

#[derive(Default)]
struct Metadata<'a>(Vec<(&'a str, &'a [u8], usize)>);

impl<'a> Metadata<'a> {
    fn take(input: &mut Reader<'a>) -> Result<Self, HeaderError> {
        let mut all = Self::default();
        loop {
            let count = input.long()?;
            let wanted = usize::try_from(count)
                .ok()
                .filter(|n| all.0.len() + n <= ENTRIES_MAX);
            match wanted {
                None => return Err(HeaderError::Entries(count)),
                Some(0) => return Ok(all),
                Some(wanted) => {
                    for _ in 0..wanted {
                        let key = input.str()?;
                        let value = input.bytes()?;
                        all.0.push((key, value, input.at() - value.len()));
                    }
                }
            }
        }
    }

    fn get(&self, key: &'static str) -> Result<(&'a str, usize), HeaderError> {
        let mut found = self.0.iter().filter(|(k, _, _)| *k == key);
        match (found.next(), found.next()) {
            (Some((_, value, at)), None) => {
                let text = std::str::from_utf8(value).map_err(|_| HeaderError::Value(key))?;
                Ok((text, *at))
            }
            _ => Err(HeaderError::Value(key)),
        }
    }

    /// A value that has exactly one spelling.
    fn parse<T: std::str::FromStr + ToString>(
        &self,
        key: &'static str,
    ) -> Result<(T, usize), HeaderError> {
        let (text, at) = self.get(key)?;
        match text.parse::<T>() {
            Ok(value) if value.to_string() == text => Ok((value, at)),
            _ => Err(HeaderError::Value(key)),
        }
    }

    fn must_be(&self, key: &'static str, expected: &str) -> Result<(), HeaderError> {
        if self.get(key)?.0 == expected {
            Ok(())
        } else {
            Err(HeaderError::Value(key))
        }
    }
}

/// Reads a header from the front of a file, of which `bytes` is at least the header or all.
pub(super) fn decode(bytes: &[u8]) -> Result<Container, HeaderError> {
    let mut input = Reader::new(bytes);
    if input.take(MAGIC.len()).ok() != Some(MAGIC) {
        return Err(HeaderError::Magic);
    }
    let metadata = Metadata::take(&mut input)?;
    let sync = input.fixed()?;

    // the documentation inside may differ from build to build, the layout may not
    let schema = metadata.get("avro.schema")?.0;
    let same = schema == catalog::RECORDED_EVENT_SCHEMA
        || catalog::fingerprint(schema) == catalog::fingerprint(catalog::RECORDED_EVENT_SCHEMA);
    if !same {
        return Err(HeaderError::Value("avro.schema"));
    }
    metadata.must_be("avro.codec", "null")?;
    metadata.must_be("sovereign.format", FORMAT)?;
    let info = FileInfo {
        first: Position(metadata.parse("sovereign.first")?.0),
        last: Position(metadata.parse("sovereign.last")?.0),
        previous_hash: metadata.parse("sovereign.previous_hash")?.0,
        last_hash: metadata.parse("sovereign.last_hash")?.0,
    };
    if info.first == Position::START || info.first.0 - 1 > info.last.0 {
        return Err(HeaderError::Value("sovereign.first"));
    }
    if info.last.0 >= i64::MAX.cast_unsigned() {
        return Err(HeaderError::Value("sovereign.last"));
    }
    if info.first == Position(1) && info.previous_hash != Digest::ZERO {
        return Err(HeaderError::Value("sovereign.previous_hash"));
    }
    if info.last < info.first && info.last_hash != info.previous_hash {
        return Err(HeaderError::Value("sovereign.last_hash"));
    }
    let schemas = metadata.get("sovereign.schemas")?.0;
    if serde_json::from_str::<Vec<serde_json::Value>>(schemas).is_err() {
        return Err(HeaderError::Value("sovereign.schemas"));
    }
    let (content, content_at) = metadata.parse(CONTENT)?;
    Ok(Container {
        info,
        sync,
        schemas: schemas.to_owned(),
        content,
        content_at,
        length: input.at(),
    })
}
