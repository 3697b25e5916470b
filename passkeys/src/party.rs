use ring::digest::{SHA256, digest};

/// Why these cannot be a relying party.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RelyingPartyError {
    /// The id is no host name.
    #[error(
        "{0:?} is no relying party id; expected a host name in lower case, no address, no port"
    )]
    Id(String),
    /// No page may use the passkeys.
    #[error("no origin is given; expected at least one, such as https://approvals.example.com")]
    NoOrigin,
    /// An origin that no browser would give this relying party's passkeys to.
    #[error(
        "{origin:?} cannot use passkeys of {id:?}; expected https, or http on localhost, and a host \
         that is {id:?} or ends in \".{id}\", without path"
    )]
    Origin {
        /// The origin.
        origin: String,
        /// The id.
        id: String,
    },
}

/// Whom passkeys are for: an id (a host name) and the origins of its pages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelyingParty {
    id: String,
    hash: [u8; 32],
    origins: Vec<String>,
}

impl RelyingParty {
    /// A relying party.
    ///
    /// # Errors
    /// The id is no host name, or an origin does not belong to it. Browsers take no IP address as
    /// an id, and no plain `http` but on `localhost`.
    ///
    /// # Examples
    /// ```
    /// use sovereign_passkeys::RelyingParty;
    /// assert!(RelyingParty::new("example.com", &["https://approvals.example.com"]).is_ok());
    /// assert!(RelyingParty::new("example.com", &["https://example.com.evil.org"]).is_err());
    /// assert!(RelyingParty::new("127.0.0.1", &["http://127.0.0.1:8080"]).is_err());
    /// ```
    pub fn new(id: &str, origins: &[&str]) -> Result<Self, RelyingPartyError> {
        if !is_host(id) {
            return Err(RelyingPartyError::Id(id.to_owned()));
        }
        if origins.is_empty() {
            return Err(RelyingPartyError::NoOrigin);
        }
        if let Some(origin) = origins.iter().find(|origin| !belongs(origin, id)) {
            return Err(RelyingPartyError::Origin {
                origin: (*origin).to_owned(),
                id: id.to_owned(),
            });
        }
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, id.as_bytes()).as_ref());
        Ok(Self {
            id: id.to_owned(),
            hash,
            origins: origins.iter().map(|&origin| origin.to_owned()).collect(),
        })
    }

    /// The id, as options for the browser name it.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// SHA-256 of the id, as authenticators sign it.
    #[must_use]
    pub const fn id_hash(&self) -> &[u8; 32] {
        &self.hash
    }

    /// Origins whose pages may use the passkeys.
    #[must_use]
    pub fn origins(&self) -> &[String] {
        &self.origins
    }
}

fn is_host(text: &str) -> bool {
    let label = |label: &str| {
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        !label.is_empty()
            && label.len() <= 63
            && label.chars().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // the last label of an address is a number, that of a name is not
    let last = text.rsplit('.').next().unwrap_or_default();
    let address = last.chars().all(|c| c.is_ascii_digit());
    text.len() <= 253 && text.split('.').all(label) && !address
}

fn belongs(origin: &str, id: &str) -> bool {
    let Some((scheme, rest)) = origin.split_once("://") else {
        return false;
    };
    let (host, port) = rest.split_once(':').unwrap_or((rest, "443"));
    let plain = host == "localhost" || host.ends_with(".localhost");
    let secure = scheme == "https" || (scheme == "http" && plain);
    let within = host == id
        || host
            .strip_suffix(id)
            .is_some_and(|rest| rest.ends_with('.'));
    secure && is_host(host) && within && port.parse::<u16>().is_ok_and(|port| port > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origin_is_the_relying_partys_own() {
        let good = [
            ("localhost", "http://localhost:4000"),
            ("localhost", "https://localhost"),
            ("example.com", "https://example.com"),
            ("example.com", "https://a.b.example.com:8443"),
        ];
        for (id, origin) in good {
            assert!(RelyingParty::new(id, &[origin]).is_ok(), "{id} {origin}");
        }
        let bad = [
            ("localhost", "http://example.com"),
            ("example.com", "http://example.com"),
            ("example.com", "https://notexample.com"),
            ("example.com", "https://example.com/"),
            ("example.com", "https://example.com:0"),
            ("example.com", "https://example.com:99999"),
            ("example.com", "https://example.com:"),
            ("example.com", "https://user@example.com"),
            ("example.com", "https://EXAMPLE.com"),
            ("example.com", "example.com"),
            ("a.example.com", "https://example.com"),
        ];
        for (id, origin) in bad {
            let error = RelyingParty::new(id, &[origin]).unwrap_err();
            assert!(
                matches!(error, RelyingPartyError::Origin { .. }),
                "{id} {origin}"
            );
        }
        for id in [
            "", ".", "a..b", "-a.com", "a_b.com", "10.0.0.1", "a.1", "::1", "A.com",
        ] {
            let error = RelyingParty::new(id, &["https://a.com"]).unwrap_err();
            assert_eq!(error, RelyingPartyError::Id(id.to_owned()));
        }
        assert_eq!(
            RelyingParty::new("a.com", &[]).unwrap_err(),
            RelyingPartyError::NoOrigin
        );
    }
}
