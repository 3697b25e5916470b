use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use schema_registry_converter::async_impl::schema_registry::{
    SrSettings, get_schema_by_id, post_schema,
};
use schema_registry_converter::error::SRCError;
use schema_registry_converter::schema_registry_common::{SchemaType, SuppliedSchema};
use sovereign_schemas::{ErrorCode, Problem, catalog};
use tokio::time::Instant;

/// How to log in to the registry; masked when printed.
#[derive(Clone, Default)]
pub enum RegistryAuth {
    /// Not at all.
    #[default]
    None,
    /// HTTP basic authentication.
    Basic {
        /// User, or API key.
        user: String,
        /// Password, or API secret.
        password: String,
    },
    /// A bearer token.
    Token(String),
}

impl fmt::Debug for RegistryAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Basic { .. } => "Basic(***)",
            Self::Token(_) => "Token(***)",
        })
    }
}

/// Where the registry is and how long to try.
#[derive(Debug, Clone)]
pub struct RegistryOptions {
    /// Base URL of the Confluent API, such as `http://localhost:8081` or
    /// `http://localhost:8080/apis/ccompat/v7`.
    pub url: String,
    /// Login.
    pub auth: RegistryAuth,
    /// For one request; 5 s by default.
    pub request_timeout: Duration,
    /// For everything together, with all further tries; 30 s by default.
    pub total_timeout: Duration,
}

impl RegistryOptions {
    /// No login, the default times.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            auth: RegistryAuth::None,
            request_timeout: Duration::from_secs(5),
            total_timeout: Duration::from_secs(30),
        }
    }

    fn settings(&self) -> Result<SrSettings, RegistryError> {
        // several crates bring rustls along; the first to choose a provider wins, and any will do
        let _chosen = rustls::crypto::ring::default_provider().install_default();
        let mut builder = SrSettings::new_builder(self.url.trim_end_matches('/').to_owned());
        builder.set_timeout(self.request_timeout);
        match &self.auth {
            RegistryAuth::None => {}
            RegistryAuth::Basic { user, password } => {
                builder.set_basic_authorization(user, Some(password));
            }
            RegistryAuth::Token(token) => {
                builder.set_token_authorization(token);
            }
        }
        builder
            .build_with(reqwest::Client::builder())
            .map_err(|e| self.unreachable(&e))
    }

    fn unreachable(&self, error: &SRCError) -> RegistryError {
        RegistryError::Unreachable {
            url: self.url.clone(),
            cause: words(error),
        }
    }
}

fn words(error: &SRCError) -> String {
    match &error.cause {
        Some(cause) => format!("{}: {cause}", error.error),
        None => error.error.clone(),
    }
}

/// Why schemas could not be registered or looked up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// It does not answer, or not in time.
    #[error("registry {url} cannot be reached: {cause}")]
    Unreachable {
        /// Its URL.
        url: String,
        /// The last failure.
        cause: String,
    },
    /// It answers and says no: login, or the compatibility check.
    #[error("registry {url} refuses {subject} version {version}: {cause}")]
    Refused {
        /// Its URL.
        url: String,
        /// Which subject.
        subject: String,
        /// Which version of ours.
        version: u16,
        /// Its words.
        cause: String,
    },
    /// An id stands for another schema than the events under it were written with.
    #[error("registry id {id} stands for fingerprint {found}, expected {expected}")]
    Mismatch {
        /// The id.
        id: u32,
        /// Fingerprint in the events' headers, as hex.
        expected: String,
        /// Fingerprint of the registry's schema, as hex, or why there is none.
        found: String,
    },
}

impl RegistryError {
    /// The stable name.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::Unreachable { .. } | Self::Refused { .. } => ErrorCode::RegistryUnreachable,
            Self::Mismatch { .. } => ErrorCode::VerificationDifference,
        }
    }

    /// As callers see it.
    #[must_use]
    pub fn problem(&self) -> Problem {
        Problem::new(self.code(), self.to_string())
    }
}

/// The registry's id of every schema that this build knows. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct SchemaIds(Arc<BTreeMap<String, BTreeMap<u16, u32>>>);

impl SchemaIds {
    /// Registers all of [`catalog::registered`] under their full record names (RecordNameStrategy), the
    /// oldest version first, and keeps the ids. Safe to repeat: a registry gives the same id
    /// again. Tries again with growing pauses until `options.total_timeout` is over.
    ///
    /// # Errors
    /// [`RegistryError::Unreachable`] or [`RegistryError::Refused`].
    pub async fn register_all(options: &RegistryOptions) -> Result<Self, RegistryError> {
        let settings = options.settings()?;
        let deadline = Instant::now() + options.total_timeout;
        let mut ids = Vec::new();
        for schema in catalog::registered() {
            let id = register(options, &settings, schema, deadline).await?;
            ids.push(((schema.name.to_owned(), schema.version), id));
        }
        tracing::info!(schemas = ids.len(), "schemas registered");
        Ok(Self::known(ids))
    }

    /// Ids that are known from elsewhere, as (event type, version) and id.
    #[must_use]
    pub fn known(ids: impl IntoIterator<Item = ((String, u16), u32)>) -> Self {
        let mut all: BTreeMap<String, BTreeMap<u16, u32>> = BTreeMap::new();
        for ((name, version), id) in ids {
            all.entry(name).or_default().insert(version, id);
        }
        Self(Arc::new(all))
    }

    /// The id of one version of an event's schema.
    #[must_use]
    pub fn get(&self, event_type: &str, version: u16) -> Option<u32> {
        self.0.get(event_type)?.get(&version).copied()
    }
}

async fn register(
    options: &RegistryOptions,
    settings: &SrSettings,
    schema: &catalog::EventSchema,
    deadline: Instant,
) -> Result<u32, RegistryError> {
    let mut pause = Duration::from_millis(100);
    loop {
        let supplied = SuppliedSchema::new(
            Some(schema.subject.to_owned()),
            SchemaType::Avro,
            schema.json.to_owned(),
        );
        let error = match post_schema(settings, schema.subject.to_owned(), supplied).await {
            Ok(registered) => return Ok(registered.id),
            Err(error) => error,
        };
        if !error.retriable {
            return Err(RegistryError::Refused {
                url: options.url.clone(),
                subject: schema.subject.to_owned(),
                version: schema.version,
                cause: words(&error),
            });
        }
        if Instant::now() + pause >= deadline {
            return Err(options.unreachable(&error));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(2));
    }
}

/// The fingerprint of the schema behind an id.
pub(crate) async fn fingerprint(
    options: &RegistryOptions,
    id: u32,
) -> Result<Result<[u8; 8], String>, RegistryError> {
    let settings = options.settings()?;
    match get_schema_by_id(id, &settings).await {
        Ok(schema) => Ok(catalog::fingerprint(&schema.schema)),
        Err(error) if says_unknown(&error) => Ok(Err(words(&error))),
        Err(error) => Err(options.unreachable(&error)),
    }
}

/// Whether the registry answered that it has no such id. All else, such as 401, says nothing about
/// the id. The client keeps the status in its words only.
fn says_unknown(error: &SRCError) -> bool {
    error.error.ends_with("status 404 Not Found")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_are_masked() {
        let mut options = RegistryOptions::new("http://localhost:8081");
        options.auth = RegistryAuth::Basic {
            user: "key".into(),
            password: "hunter2".into(),
        };
        assert!(!format!("{options:?}").contains("hunter2"));
    }

    #[tokio::test]
    async fn a_registry_that_is_not_there_is_named_in_bounded_time() {
        let mut options = RegistryOptions::new("http://127.0.0.1:9");
        options.total_timeout = Duration::from_millis(500);
        let error = SchemaIds::register_all(&options).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::RegistryUnreachable);
        assert!(error.to_string().contains("127.0.0.1:9"));
    }

    /// What the registry with this answer says about an id.
    async fn asked(answer: &'static str) -> Result<Result<[u8; 8], String>, RegistryError> {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let options = RegistryOptions::new(format!("http://{}", listener.local_addr().unwrap()));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.read(&mut [0; 4_096]).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        fingerprint(&options, 7).await
    }

    #[tokio::test]
    async fn only_a_registry_that_does_not_have_the_id_makes_it_an_unknown_one() {
        let missing = "HTTP/1.1 404 Not Found\r\ncontent-type: application/json\r\n\
             content-length: 49\r\nconnection: close\r\n\r\n\
             {\"error_code\":40403,\"message\":\"Schema not found\"}";
        assert!(asked(missing).await.unwrap().is_err());
        for answer in [
            "HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
            "HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
            "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi",
            "",
        ] {
            let error = asked(answer).await.unwrap_err();
            assert_eq!(error.code(), ErrorCode::RegistryUnreachable, "{answer:?}");
        }
    }

    /// Answers each request in turn: 503 to the first, then ids from 1; gives the requests back.
    async fn registry(requests: usize) -> (String, tokio::task::JoinHandle<Vec<String>>) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/apis/ccompat/v7/", listener.local_addr().unwrap());
        let serve = tokio::spawn(async move {
            let mut seen = Vec::new();
            while seen.len() < requests {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut text = String::new();
                let mut bytes = [0; 65_536];
                let whole = |text: &str| {
                    let (head, body) = text.split_once("\r\n\r\n")?;
                    let head = head.to_lowercase();
                    let (_, rest) = head.split_once("content-length: ")?;
                    let length: usize = rest.lines().next()?.trim().parse().ok()?;
                    (body.len() >= length).then_some(())
                };
                while whole(&text).is_none() {
                    let count = stream.read(&mut bytes).await.unwrap();
                    text.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
                }
                let (status, body) = match seen.len() {
                    0 => (
                        "503 Busy",
                        "{\"error_code\":50301,\"message\":\"busy\"}".to_owned(),
                    ),
                    id => ("200 OK", format!("{{\"id\":{id}}}")),
                };
                seen.push(text);
                let length = body.len();
                let answer = format!(
                    "HTTP/1.1 {status}\r\ncontent-type: application/json\r\n\
                     content-length: {length}\r\nconnection: close\r\n\r\n{body}"
                );
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
            seen
        });
        (url, serve)
    }

    #[tokio::test]
    async fn schemas_are_registered_by_record_name_oldest_first_and_a_busy_registry_is_asked_again()
    {
        let all: Vec<_> = catalog::registered().collect();
        let (url, serve) = registry(all.len() + 1).await;
        let mut options = RegistryOptions::new(url);
        options.auth = RegistryAuth::Token("s3cret".into());
        let ids = SchemaIds::register_all(&options).await.unwrap();
        let seen = serve.await.unwrap();
        for (index, schema) in all.iter().enumerate() {
            let line = format!(
                "POST /apis/ccompat/v7/subjects/{}/versions ",
                schema.subject
            );
            assert!(seen[index + 1].starts_with(&line), "{}", seen[index + 1]);
            assert!(
                seen[index + 1]
                    .to_lowercase()
                    .contains("authorization: bearer s3cret")
            );
            let id = u32::try_from(index + 1).unwrap();
            assert_eq!(ids.get(schema.name, schema.version), Some(id));
        }
        assert_eq!(ids.get("Unknown", 1), None);
    }
}
