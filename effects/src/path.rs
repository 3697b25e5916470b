//! Paths and base addresses of tools. Whatever could be read in two ways is refused, not repaired:
//! what was checked is then exactly what is sent.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest path, bytes.
const PATH_BYTES_MAX: usize = 2_048;
/// Longest host name (RFC 1035).
const HOST_BYTES_MAX: usize = 253;

/// Why a text is no path or no base address of a tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathError(&'static str);

impl fmt::Display for PathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for PathError {}

/// The path of a request: starts with `/`, in the one form in which every server reads it alike.
///
/// Refused: `.` and `..` and empty segments, `\`, encoded `/`, `\`, `.` and `%`, encoded control
/// characters, `?`, `#`, `;`, spaces and whatever a URL's path may not hold.
///
/// # Examples
/// ```
/// use sovereign_effects::Path;
/// assert!("/v1/orders/17".parse::<Path>().is_ok());
/// assert!("/v1/../admin".parse::<Path>().is_err());
/// assert!("/v1/%2e%2e/admin".parse::<Path>().is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Path(String);

impl Path {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `path` is this one or lies below it: `/v1/orders` holds `/v1/orders/17`, and not
    /// `/v1/orders-of-others`.
    #[must_use]
    pub fn holds(&self, path: &Self) -> bool {
        match path.0.strip_prefix(self.0.as_str()) {
            Some(rest) => rest.is_empty() || rest.starts_with('/') || self.0.ends_with('/'),
            None => false,
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Path {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        if text.len() > PATH_BYTES_MAX {
            return Err(PathError("a path has at most 2048 bytes"));
        }
        let Some(rest) = text.strip_prefix('/') else {
            return Err(PathError("a path must start with /"));
        };
        let segments = rest.split('/').count();
        for (at, segment) in rest.split('/').enumerate() {
            // only the last may be empty: a path that ends with /
            if segment.is_empty() && at + 1 < segments {
                return Err(PathError("a path must not hold //"));
            }
            check_segment(segment)?;
        }
        Ok(Self(text.to_owned()))
    }
}

fn check_segment(segment: &str) -> Result<(), PathError> {
    if segment == "." || segment == ".." {
        return Err(PathError("a path must not hold . or .. as a segment"));
    }
    let bytes = segment.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'?' => {
                return Err(PathError(
                    "a path must not hold ?: names and values go into query",
                ));
            }
            b'%' => {
                let decoded = bytes
                    .get(at + 1..at + 3)
                    .and_then(|digits| std::str::from_utf8(digits).ok())
                    .filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))
                    .and_then(|digits| u8::from_str_radix(digits, 16).ok())
                    .ok_or(PathError(
                        "a path's % must be followed by two hexadecimal digits",
                    ))?;
                if decoded.is_ascii_control() || b"/\\.%;".contains(&decoded) {
                    return Err(PathError(
                        "a path must not hold an encoded / \\ . % ; or control character",
                    ));
                }
                at += 3;
            }
            // unreserved, and what RFC 3986 allows in a segment; `;` is read in two ways
            b if b.is_ascii_alphanumeric() || b"-._~!$&'()*+,=:@".contains(&b) => at += 1,
            _ => {
                return Err(PathError(
                    "a path holds a character that must be percent-encoded",
                ));
            }
        }
    }
    Ok(())
}

impl<'de> Deserialize<'de> for Path {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Where a tool is: scheme, host, port and the path that all its paths are appended to.
///
/// # Examples
/// ```
/// use sovereign_effects::Base;
/// let base: Base = "https://api.example.com/v2".parse()?;
/// assert_eq!((base.host(), base.port(), base.prefix()), ("api.example.com", 443, "/v2"));
/// assert!("https://me:secret@example.com".parse::<Base>().is_err());
/// # Ok::<(), sovereign_effects::PathError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base {
    tls: bool,
    host: String,
    address: Option<IpAddr>,
    port: u16,
    prefix: String,
}

impl Base {
    /// Whether it is `https`.
    #[must_use]
    pub const fn tls(&self) -> bool {
        self.tls
    }

    /// The host in lower case; an IPv6 address without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The host, if it is an address.
    #[must_use]
    pub const fn address(&self) -> Option<IpAddr> {
        self.address
    }

    /// The port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The path in front of all others; empty, or without a `/` at its end.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// As in the header `host`: with the port unless it is the scheme's own.
    #[must_use]
    pub fn authority(&self) -> String {
        let host = match self.address {
            Some(IpAddr::V6(address)) => format!("[{address}]"),
            _ => self.host.clone(),
        };
        if self.port == self.default_port() {
            host
        } else {
            format!("{host}:{}", self.port)
        }
    }

    const fn default_port(&self) -> u16 {
        if self.tls { 443 } else { 80 }
    }

    /// The whole address of a path.
    #[must_use]
    pub fn url(&self, path: &Path) -> String {
        format!("{self}{path}")
    }
}

impl fmt::Display for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.prefix)
    }
}

impl FromStr for Base {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        let (tls, rest) = match text.split_once("://") {
            Some(("https", rest)) => (true, rest),
            Some(("http", rest)) => (false, rest),
            _ => return Err(PathError("a base must start with https:// or http://")),
        };
        let (authority, prefix) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
        if !prefix.is_empty() {
            prefix.parse::<Path>()?;
        }
        if prefix.ends_with('/') {
            return Err(PathError("a base must not end with //"));
        }
        if authority.contains('@') {
            return Err(PathError(
                "a base must hold no user or password: name a secret instead",
            ));
        }
        let (host, port) = split_port(authority)?;
        let (host, address) = read_host(host)?;
        let mut base = Self {
            tls,
            host,
            address,
            port: 0,
            prefix: prefix.to_owned(),
        };
        base.port = port.unwrap_or(base.default_port());
        Ok(base)
    }
}

fn split_port(authority: &str) -> Result<(&str, Option<u16>), PathError> {
    let behind = authority.rfind(']').map_or(0, |at| at + 1);
    let Some(colon) = authority[behind..].find(':') else {
        return Ok((authority, None));
    };
    let (host, port) = authority.split_at(behind + colon);
    let port = &port[1..];
    let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    match port.parse::<u16>() {
        Ok(port) if digits && port > 0 => Ok((host, Some(port))),
        _ => Err(PathError("a base's port must be a number from 1 to 65535")),
    }
}

fn read_host(host: &str) -> Result<(String, Option<IpAddr>), PathError> {
    const FORM: PathError = PathError(
        "a base's host must be a name of letters, digits, - and dots, an IPv4 address, or an IPv6 address in brackets",
    );
    if let Some(inner) = host.strip_prefix('[') {
        let inner = inner.strip_suffix(']').ok_or(FORM)?;
        let address: Ipv6Addr = inner.parse().map_err(|_| FORM)?;
        return Ok((address.to_string(), Some(address.into())));
    }
    let host = host.to_ascii_lowercase();
    let labels_fit = host.split('.').all(|label| {
        let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        (1..=63).contains(&label.len()) && label.bytes().all(fits) && !label.starts_with("xn--")
            || is_punycode(label)
    });
    if host.len() > HOST_BYTES_MAX || !labels_fit {
        return Err(FORM);
    }
    // WHATWG URL: a host whose last label is a number is an address, also as 127.1 or 0x7f.0.0.1
    let last = host.rsplit('.').next().unwrap_or_default();
    let hex = last
        .strip_prefix("0x")
        .is_some_and(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
    if hex || last.bytes().all(|b| b.is_ascii_digit()) {
        let address: Ipv4Addr = host.parse().map_err(|_| {
            PathError("a base's host looks like an address and is none of the form 192.0.2.1")
        })?;
        return Ok((address.to_string(), Some(address.into())));
    }
    Ok((host, None))
}

fn is_punycode(label: &str) -> bool {
    label.strip_prefix("xn--").is_some_and(|rest| {
        (1..=59).contains(&rest.len())
            && rest.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use url::Url;

    use super::*;

    #[test]
    fn paths_that_could_be_read_in_two_ways_are_refused() {
        for path in [
            "",
            "v1",
            "//",
            "//evil.org",
            "/v1//x",
            "/.",
            "/..",
            "/v1/..",
            "/v1/../x",
            "/v1/./x",
            "/v1/%2e%2e/x",
            "/v1/%2E%2E/x",
            "/v1/.%2e",
            "/a%2fb",
            "/a%2Fb",
            "/a%5cb",
            "/a\\b",
            "/%252e%252e",
            "/a%00",
            "/a%0d%0aX:y",
            "/a\r\nX: y",
            "/a b",
            "/a?b",
            "/a#b",
            "/a;b",
            "/a%3bb",
            "/%",
            "/%1",
            "/%zz",
            "/é",
            "/a\u{202e}",
            "/\t",
            "/a\"b",
            "/<",
            "/{x}",
            "/a|b",
            "/a^b",
            "/a`b",
            "/[x]",
        ] {
            assert!(path.parse::<Path>().is_err(), "{path:?}");
        }
        assert!(format!("/{}", "x".repeat(3_000)).parse::<Path>().is_err());
        for path in [
            "/",
            "/v1",
            "/v1/",
            "/v1/orders/17",
            "/a.b-c_d~e",
            "/users/a@b.c",
            "/x:y",
            "/%20",
            "/%C3%A9",
            "/...",
            "/a..b",
        ] {
            assert!(path.parse::<Path>().is_ok(), "{path:?}");
        }
    }

    #[test]
    fn a_path_holds_itself_and_what_is_below_it() {
        let holds =
            |above: &str, path: &str| above.parse::<Path>().unwrap().holds(&path.parse().unwrap());
        for (above, path) in [
            ("/", "/"),
            ("/", "/x"),
            ("/v1", "/v1"),
            ("/v1", "/v1/"),
            ("/v1", "/v1/x"),
            ("/v1/", "/v1/x"),
        ] {
            assert!(holds(above, path), "{above} {path}");
        }
        for (above, path) in [
            ("/v1", "/v10"),
            ("/v1", "/v1-x"),
            ("/v1/", "/v1"),
            ("/v1", "/v2"),
            ("/v1", "/"),
        ] {
            assert!(!holds(above, path), "{above} {path}");
        }
    }

    #[test]
    fn bases_hide_nothing() {
        for base in [
            "",
            "example.com",
            "ftp://example.com",
            "HTTPS://example.com",
            "https:/example.com",
            "https://",
            "https:///x",
            "https://me@example.com",
            "https://me:pw@example.com",
            "https://example.com:0",
            "https://example.com:99999",
            "https://example.com:",
            "https://example.com:80x",
            "https://example.com:+80",
            "https://exa mple.com",
            "https://example.com\r\n",
            "https://example.com\\x",
            "https://example.com?x",
            "https://example.com#x",
            "https://example.com/../x",
            "https://example.com//x",
            "https://example.com//",
            "https://example.com/x//",
            "https://exämple.com",
            "https://127.1",
            "https://0x7f.0.0.1",
            "https://0x7f000001",
            "https://2130706433",
            "https://0177.0.0.1",
            "https://1.2.3.4.5",
            "https://256.1.1.1",
            "https://[::1",
            "https://::1",
            "https://[fe80::1%eth0]",
            "https://example..com",
            "https://.example.com",
            "https://example.com.",
            "https://%31%32%37.0.0.1",
        ] {
            assert!(base.parse::<Base>().is_err(), "{base:?}");
        }
        let authority = |base: &str| base.parse::<Base>().unwrap().authority();
        assert_eq!(authority("https://Example.COM:443/"), "example.com");
        assert_eq!(authority("http://example.com:443/x"), "example.com:443");
        assert_eq!(
            authority("https://[::FFFF:127.0.0.1]:8443"),
            "[::ffff:127.0.0.1]:8443"
        );
        assert_eq!(authority("http://127.0.0.1"), "127.0.0.1");
        assert_eq!(
            authority("https://xn--exmple-cua.com"),
            "xn--exmple-cua.com"
        );
    }

    fn near_paths() -> impl Strategy<Value = String> {
        let pieces = prop_oneof![
            8 => "[a-z0-9._~!$&'()*+,=:@-]{0,4}",
            3 => Just("/".to_owned()),
            1 => "%[0-9a-fA-F]{2}",
            1 => "[%;?#\\\\ \\[\\]|^`<>\"{}\r\n\t\u{0}-\u{ff}]",
            1 => prop_oneof![Just(".."), Just("."), Just("%2e"), Just("%2F"), Just("//")].prop_map(str::to_owned),
        ];
        proptest::collection::vec(pieces, 0..8).prop_map(|pieces| format!("/{}", pieces.concat()))
    }

    fn near_bases() -> impl Strategy<Value = String> {
        let host = prop_oneof![
            4 => "[a-zA-Z0-9-]{1,6}(\\.[a-zA-Z0-9-]{1,4}){0,2}",
            2 => "[0-9]{1,3}(\\.[0-9]{1,3}){0,4}",
            1 => "0[xX][0-9a-f]{0,8}(\\.0?[0-7]{1,3}){0,3}",
            1 => "\\[[0-9a-f:.]{2,12}\\]",
            1 => "[a-z@:%\\\\/?#\\[\\] .\u{80}-\u{ff}-]{0,12}",
        ];
        let port = prop_oneof![3 => Just(String::new()), 1 => "(:[0-9]{0,6})?"];
        ("https?", host, port, near_paths())
            .prop_map(|(scheme, host, port, path)| format!("{scheme}://{host}{port}{path}"))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]

        /// What is taken is what the WHATWG reading of the same text takes it for, unchanged.
        #[test]
        fn a_path_that_is_taken_means_the_same_to_the_reference(text in near_paths()) {
            if let Ok(path) = text.parse::<Path>() {
                let base: Base = "https://example.com/v2".parse().unwrap();
                let url = Url::parse(&base.url(&path)).unwrap();
                prop_assert_eq!(url.path(), format!("/v2{text}"));
                prop_assert_eq!(url.host_str(), Some("example.com"));
                prop_assert!(url.query().is_none() && url.fragment().is_none());
            }
        }

        #[test]
        fn a_base_that_is_taken_means_the_same_to_the_reference(text in near_bases()) {
            if let Ok(base) = text.parse::<Base>() {
                // names that the reference refuses are unknown to every resolver as well
                if let Ok(url) = Url::parse(&text) {
                    prop_assert_eq!(url.host_str().map(|h| h.trim_matches(['[', ']']).to_owned()), Some(base.host().to_owned()));
                    prop_assert_eq!(url.port_or_known_default(), Some(base.port()));
                    prop_assert_eq!(url.scheme() == "https", base.tls());
                    prop_assert!(url.username().is_empty() && url.password().is_none());
                    prop_assert_eq!(url.path().strip_suffix('/').unwrap_or(url.path()), base.prefix());
                }
                let again: Base = base.to_string().parse().unwrap();
                prop_assert_eq!(again, base);
            }
        }
    }
}
