//! Where browsers find the pages, and so whose passkeys they can use.

use std::net::SocketAddr;

use axum::http::uri::Authority;
use sovereign_passkeys::{RelyingParty, RelyingPartyError};

/// The one origin of the pages, and the relying party that belongs to it.
#[derive(Debug)]
pub(crate) struct Place {
    origin: String,
    /// Somebody chose it; else it is `localhost` with our port.
    pub(crate) chosen: bool,
    pub(crate) party: RelyingParty,
}

impl Place {
    /// At this URL, or at `localhost` if there is none: an address cannot own passkeys.
    pub(crate) fn new(url: Option<&str>, local: SocketAddr) -> Result<Self, RelyingPartyError> {
        let origin = match url {
            Some(url) => origin(url),
            None => format!("http://localhost:{}", local.port()),
        };
        // what is no URL fails as the origin that it is not
        let authority = origin.split_once("://").map_or("", |(_, rest)| rest);
        let host = authority.split(':').next().unwrap_or_default();
        let id = if host.is_empty() { "localhost" } else { host };
        let party = RelyingParty::new(id, &[&origin])?;
        Ok(Self {
            origin,
            chosen: url.is_some(),
            party,
        })
    }

    /// As browsers write it, without a slash at its end.
    pub(crate) fn origin(&self) -> &str {
        &self.origin
    }

    /// Its host name.
    pub(crate) fn host(&self) -> &str {
        self.party.id()
    }

    /// Whether browsers come over TLS.
    pub(crate) fn is_secure(&self) -> bool {
        self.origin.starts_with("https:")
    }

    /// Whether a request with this `Host` came to the pages' own name.
    pub(crate) fn is_called(&self, host: &str) -> bool {
        let authority = host.parse::<Authority>();
        authority.is_ok_and(|a| a.host().eq_ignore_ascii_case(self.host()))
    }
}

/// The origin of a URL without path, as browsers write it: without the port that the scheme has.
fn origin(url: &str) -> String {
    let url = url.strip_suffix('/').unwrap_or(url).to_ascii_lowercase();
    let usual = match url.split_once("://") {
        Some(("https", _)) => ":443",
        Some(("http", _)) => ":80",
        _ => return url,
    };
    url.strip_suffix(usual).map_or(url.clone(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(url: Option<&str>) -> Result<Place, RelyingPartyError> {
        Place::new(url, "127.0.0.1:4711".parse().unwrap())
    }

    #[test]
    fn without_a_url_it_is_localhost_with_our_port() {
        let place = place(None).unwrap();
        assert_eq!(place.origin(), "http://localhost:4711");
        assert_eq!(place.party.id(), "localhost");
        assert!(place.is_called("localhost:4711") && !place.is_called("127.0.0.1:4711"));
        assert!(!place.is_secure());
    }

    #[test]
    fn a_url_is_an_origin_as_browsers_write_it() {
        for (url, expected) in [
            (
                "https://approvals.example.com",
                "https://approvals.example.com",
            ),
            (
                "https://Approvals.example.com:443/",
                "https://approvals.example.com",
            ),
            ("https://a.example.com:8443", "https://a.example.com:8443"),
            ("http://localhost:80", "http://localhost"),
        ] {
            let place = place(Some(url)).unwrap();
            assert_eq!(place.origin(), expected);
            assert_eq!(place.party.origins(), [expected]);
        }
        for bad in [
            "",
            "approvals.example.com",
            "http://approvals.example.com",
            "https://10.0.0.1",
            "https://example.com/path",
            "https://user@example.com",
            "https://example.com:0",
            "https://",
        ] {
            assert!(place(Some(bad)).is_err(), "{bad}");
        }
    }
}
