use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::Answer;
use super::store::SchemaStoreError;

/// A failure in Confluent's form. The codes and texts are those of its
/// `io.confluent.kafka.schemaregistry.rest.exceptions.Errors`, which clients compare.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RegistryError {
    pub(super) status: StatusCode,
    pub(super) code: u32,
    pub(super) message: String,
}

impl RegistryError {
    pub(super) fn new(status: StatusCode, code: u32, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
        }
    }

    fn not_found(code: u32, message: String) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, message)
    }

    fn unprocessable(code: u32, message: String) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, message)
    }

    pub(super) fn no_subject(subject: &str) -> Self {
        Self::not_found(40401, format!("Subject '{subject}' not found."))
    }

    pub(super) fn no_version(version: u32) -> Self {
        Self::not_found(40402, format!("Version {version} not found."))
    }

    pub(super) fn no_schema() -> Self {
        Self::not_found(40403, "Schema not found".to_owned())
    }

    pub(super) fn no_schema_with_id(id: u32) -> Self {
        Self::not_found(40403, format!("Schema {id} not found"))
    }

    pub(super) fn subject_deleted(subject: &str) -> Self {
        let message = format!(
            "Subject '{subject}' was soft deleted. Set permanent=true to delete permanently"
        );
        Self::not_found(40404, message)
    }

    pub(super) fn subject_not_deleted(subject: &str) -> Self {
        let message =
            format!("Subject '{subject}' was not deleted first before being permanently deleted");
        Self::not_found(40405, message)
    }

    pub(super) fn version_deleted(subject: &str, version: u32) -> Self {
        let message = format!(
            "Subject '{subject}' Version {version} was soft deleted. Set permanent=true to delete \
             permanently"
        );
        Self::not_found(40406, message)
    }

    pub(super) fn version_not_deleted(subject: &str, version: u32) -> Self {
        let message = format!(
            "Subject '{subject}' Version {version} was not deleted first before being permanently \
             deleted"
        );
        Self::not_found(40407, message)
    }

    pub(super) fn no_level(subject: &str) -> Self {
        let message =
            format!("Subject '{subject}' does not have subject-level compatibility configured");
        Self::not_found(40408, message)
    }

    pub(super) fn no_mode(subject: &str) -> Self {
        let message = format!("Subject '{subject}' does not have subject-level mode configured");
        Self::not_found(40409, message)
    }

    pub(super) fn invalid_schema(why: &str) -> Self {
        Self::unprocessable(42201, format!("Invalid schema: {why}"))
    }

    pub(super) fn invalid_version(version: &str) -> Self {
        let message = format!(
            "The specified version '{version}' is not a valid version id. Allowed values are \
             between [1, 2^31-1] and the string \"latest\""
        );
        Self::unprocessable(42202, message)
    }

    pub(super) fn invalid_level() -> Self {
        let message = "Invalid compatibility level. Valid values are none, backward, forward, \
                       full, backward_transitive, forward_transitive, and full_transitive";
        Self::unprocessable(42203, message.to_owned())
    }

    pub(super) fn invalid_mode() -> Self {
        let message = "Invalid mode. Valid values are READWRITE and READONLY";
        Self::unprocessable(42204, message.to_owned())
    }

    pub(super) fn not_permitted(message: String) -> Self {
        Self::unprocessable(42205, message)
    }

    pub(super) fn invalid_subject(subject: &str) -> Self {
        let shown: String = subject
            .chars()
            .filter(|c| !c.is_control())
            .take(80)
            .collect();
        Self::unprocessable(
            42208,
            format!("The specified subject '{shown}' is not a valid."),
        )
    }

    pub(super) fn incompatible(subject: &str, why: &str) -> Self {
        let message = format!(
            "Schema being registered is incompatible with an earlier schema for subject \
             \"{subject}\", details: [{why}]"
        );
        Self::new(StatusCode::CONFLICT, 409, message)
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, 400, message)
    }
}

impl From<SchemaStoreError> for RegistryError {
    fn from(error: SchemaStoreError) -> Self {
        let message = match error {
            SchemaStoreError::Moved => "Register operation timed out; try again".to_owned(),
            SchemaStoreError::Unavailable(problem) => {
                tracing::warn!(code = %problem.code, "schema store unavailable");
                format!("Error in the backend data store: {}", problem.code)
            }
        };
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, 50001, message)
    }
}

impl IntoResponse for RegistryError {
    fn into_response(self) -> Response {
        let body = json!({ "error_code": self.code, "message": self.message });
        (self.status, Answer(body)).into_response()
    }
}
