//! What requests carry: bodies, subjects, versions and query strings.

use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, StatusCode};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};

use super::MEDIA_TYPES;
use super::error::RegistryError;
use crate::http::body;

/// Bytes of a subject's name.
const SUBJECT_BYTES_MAX: usize = 1024;

/// Decodes a JSON body of any of the types in use.
pub(super) fn json<T: DeserializeOwned>(
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<T, RegistryError> {
    let kind = body::media_type(headers);
    if !(kind.is_empty() || MEDIA_TYPES.contains(&kind.as_str())) || !body::is_plain(headers) {
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return Err(RegistryError::new(
            status,
            415,
            "HTTP 415 Unsupported Media Type",
        ));
    }
    let body = body.map_err(|rejection| {
        let status = rejection.status();
        RegistryError::new(
            status,
            u32::from(status.as_u16()),
            "The body could not be read",
        )
    })?;
    serde_json::from_slice(&body).map_err(|e| {
        let at = format!("line {} column {}", e.line(), e.column());
        RegistryError::bad_request(format!("The body is not the expected JSON object, at {at}"))
    })
}

/// A subject's name, decoded by the router.
pub(super) fn subject(subject: &str) -> Result<&str, RegistryError> {
    let usable = !subject.is_empty()
        && subject.len() <= SUBJECT_BYTES_MAX
        && !subject.chars().any(char::is_control);
    if usable {
        Ok(subject)
    } else {
        Err(RegistryError::invalid_subject(subject))
    }
}

/// A version as a path names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum VersionName {
    Latest,
    Number(u32),
}

pub(super) fn version(text: &str) -> Result<VersionName, RegistryError> {
    if text == "latest" || text == "-1" {
        return Ok(VersionName::Latest);
    }
    match text.parse::<i32>().ok().and_then(|n| u32::try_from(n).ok()) {
        Some(number) if number > 0 => Ok(VersionName::Number(number)),
        _ => Err(RegistryError::invalid_version(text)),
    }
}

pub(super) fn id(text: &str) -> Result<u32, RegistryError> {
    let id = text.parse::<i32>().ok().and_then(|n| u32::try_from(n).ok());
    id.ok_or_else(|| RegistryError::new(StatusCode::NOT_FOUND, 404, "HTTP 404 Not Found"))
}

/// All query parameters of all routes; a route reads those that it has.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Query {
    #[serde(deserialize_with = "flag")]
    pub(super) deleted: bool,
    #[serde(deserialize_with = "flag")]
    pub(super) deleted_only: bool,
    #[serde(deserialize_with = "flag")]
    pub(super) permanent: bool,
    #[serde(deserialize_with = "flag")]
    pub(super) verbose: bool,
    #[serde(deserialize_with = "flag")]
    pub(super) default_to_global: bool,
    #[serde(deserialize_with = "flag")]
    pub(super) latest_only: bool,
    #[serde(deserialize_with = "flag")]
    pub(super) fetch_max_id: bool,
    pub(super) subject_prefix: Option<String>,
    #[serde(deserialize_with = "number")]
    pub(super) offset: Option<usize>,
    #[serde(deserialize_with = "number")]
    pub(super) limit: Option<usize>,
}

impl Query {
    /// Whether a version with this mark is asked for.
    pub(super) fn wants(&self, deleted: bool) -> bool {
        if self.deleted_only {
            deleted
        } else {
            self.deleted || !deleted
        }
    }

    /// Whether a subject is asked for. Clients write `:*:` for "all".
    pub(super) fn wants_subject(&self, subject: &str) -> bool {
        match self.subject_prefix.as_deref() {
            None | Some(":*:") => true,
            Some(prefix) => subject.starts_with(prefix),
        }
    }

    /// One page of a list. A negative limit is none.
    pub(super) fn page<T>(&self, all: impl Iterator<Item = T>) -> Vec<T> {
        all.skip(self.offset.unwrap_or(0))
            .take(self.limit.unwrap_or(usize::MAX))
            .collect()
    }
}

/// Python clients write `True`; whatever is not true is false, as in Confluent's server.
fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Ok(String::deserialize(deserializer)?.eq_ignore_ascii_case("true"))
}

fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<usize>, D::Error> {
    Ok(String::deserialize(deserializer)?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_numbers_from_1_or_latest() {
        assert_eq!(version("latest"), Ok(VersionName::Latest));
        assert_eq!(version("-1"), Ok(VersionName::Latest));
        assert_eq!(version("1"), Ok(VersionName::Number(1)));
        assert_eq!(
            version("2147483647"),
            Ok(VersionName::Number(2_147_483_647))
        );
        for bad in ["0", "-2", "2147483648", "LATEST", "", "1.0", "x"] {
            assert_eq!(version(bad).unwrap_err().code, 42202, "{bad}");
        }
    }

    #[test]
    fn subjects_have_no_control_characters() {
        assert!(subject("io.x.Y").is_ok());
        assert!(subject("a/b ü").is_ok());
        for bad in ["", "a\0b", "a\nb", &"x".repeat(1025)] {
            assert_eq!(subject(bad).unwrap_err().code, 42208);
        }
    }
}
