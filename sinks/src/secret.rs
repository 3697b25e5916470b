use std::fmt;
use std::path::PathBuf;

use sovereign_schemas::{ErrorCode, Identifier, Problem};

/// Longest secret, bytes.
const SECRET_BYTES_MAX: u64 = 8 << 10;
/// Shorter ones are not searched for in answers: they would be found in ordinary words.
const MASKED_BYTES_MIN: usize = 8;
/// In the place of a secret that a target sends back.
const MASK: &[u8] = b"[SECRET_REDACTED]";

/// A secret; it prints as a mask.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(String);

impl Secret {
    /// For the header that it is sent in.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }

    /// The bytes with each copy of the secret masked: some servers repeat what they were sent.
    pub(crate) fn masked(&self, bytes: Vec<u8>) -> Vec<u8> {
        let secret = self.0.as_bytes();
        if secret.len() < MASKED_BYTES_MIN || bytes.len() < secret.len() {
            return bytes;
        }
        let mut out = Vec::with_capacity(bytes.len());
        let mut rest = bytes.as_slice();
        while let Some(first) = rest.first() {
            if rest.starts_with(secret) {
                out.extend_from_slice(MASK);
                rest = &rest[secret.len()..];
            } else {
                out.push(*first);
                rest = &rest[1..];
            }
        }
        out
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

/// Where the secrets of tools are: files of their names in a folder, or else the environment
/// variables `SOVEREIGN_SECRET_<NAME>`. They are read anew for each use, so a secret can be
/// rotated without a restart.
#[derive(Debug, Clone, Default)]
pub struct Secrets {
    folder: Option<PathBuf>,
}

impl Secrets {
    /// Files of this folder come first.
    #[must_use]
    pub const fn in_folder(folder: PathBuf) -> Self {
        Self {
            folder: Some(folder),
        }
    }

    /// The environment variable of a secret.
    ///
    /// # Examples
    /// ```
    /// use sovereign_sinks::Secrets;
    /// assert_eq!(Secrets::variable("orders-key"), "SOVEREIGN_SECRET_ORDERS_KEY");
    /// ```
    #[must_use]
    pub fn variable(name: &str) -> String {
        let upper = name.chars().map(|c| match c {
            c if c.is_ascii_alphanumeric() => c.to_ascii_uppercase(),
            _ => '_',
        });
        "SOVEREIGN_SECRET_".chars().chain(upper).collect()
    }

    pub(crate) async fn get(
        &self,
        tool: &Identifier,
        name: &Identifier,
    ) -> Result<Secret, Problem> {
        let missing = |message: &str| {
            Problem::new(ErrorCode::SecretMissing, message)
                .field(format!("tools.{tool}.secret"))
                .found(name.as_str())
        };
        let text = match self.in_file(name).await {
            Ok(Some(text)) => text,
            Ok(None) => std::env::var(Self::variable(name.as_str()))
                .map_err(|_| missing("the tool's secret is not there"))?,
            Err(kind) => {
                return Err(missing(&format!(
                    "the secret's file cannot be read: {kind}"
                )));
            }
        };
        let secret = text.trim();
        if secret.is_empty() || !secret.bytes().all(|b| (b'!'..=b'~').contains(&b)) {
            return Err(missing(
                "the tool's secret is empty, or holds what no header may hold",
            ));
        }
        Ok(Secret(secret.to_owned()))
    }

    async fn in_file(&self, name: &Identifier) -> Result<Option<String>, std::io::ErrorKind> {
        use tokio::io::AsyncReadExt as _;
        let Some(folder) = &self.folder else {
            return Ok(None);
        };
        let file = match tokio::fs::File::open(folder.join(name.as_str())).await {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.kind()),
        };
        let mut text = String::new();
        let read = file.take(SECRET_BYTES_MAX).read_to_string(&mut text).await;
        read.map_err(|error| error.kind())?;
        Ok(Some(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_print_as_a_mask_and_are_masked_in_answers() {
        let secret = Secret("s3cr3t-value".to_owned());
        assert_eq!(format!("{secret:?}"), "Secret(***)");
        let masked = secret.masked(b"you sent s3cr3t-value, s3cr3t-valu".to_vec());
        assert_eq!(masked, b"you sent [SECRET_REDACTED], s3cr3t-valu");
    }

    #[tokio::test]
    async fn a_secret_comes_from_its_file_without_the_line_end() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("orders-key"), "s3cr3t\n").unwrap();
        std::fs::write(folder.path().join("two-lines"), "a\nb\n").unwrap();
        let secrets = Secrets::in_folder(folder.path().to_owned());
        let get = async |name: &str| {
            let tool = "orders".parse().unwrap();
            secrets.get(&tool, &name.parse().unwrap()).await
        };
        assert_eq!(get("orders-key").await.unwrap().expose(), "s3cr3t");
        for missing in ["two-lines", "absent"] {
            let problem = get(missing).await.unwrap_err();
            assert_eq!(problem.code, ErrorCode::SecretMissing, "{missing}");
        }
    }
}
