//! Redirects: only within the tool's own base, methods and paths, each checked like a request.

use hyper::StatusCode;
use sovereign_effects::Path;
use sovereign_effects::tools::Tool;
use url::Url;

use super::Hop;
use super::answer::Answer;

/// What to do about a redirect.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Ask there.
    Follow { path: Path, query: String },
    /// Do not. `acted` says whether this server may have acted before it redirected.
    Refuse { message: &'static str, acted: bool },
}

pub(super) fn next(hop: &Hop<'_>, answer: &Answer) -> Next {
    // these ask for the same request elsewhere: nothing happened here (RFC 9110, section 15.4)
    let same = [
        StatusCode::TEMPORARY_REDIRECT,
        StatusCode::PERMANENT_REDIRECT,
    ];
    let others = [
        StatusCode::MOVED_PERMANENTLY,
        StatusCode::FOUND,
        StatusCode::SEE_OTHER,
    ];
    let safe = hop.call.method.is_safe();
    let keeps_method = same.contains(&answer.status);
    let acted = !safe && !keeps_method;
    let followed = keeps_method || (safe && others.contains(&answer.status));
    if !followed {
        let message = "a redirect of this status is not followed for this method";
        return Next::Refuse { message, acted };
    }
    let Some(location) = &answer.location else {
        let message = "the redirect does not say where to";
        return Next::Refuse { message, acted };
    };
    let from = hop.tool.base.url(&hop.path);
    match within(hop.tool, &from, location) {
        Some((path, query)) if hop.tool.allows(hop.call.method, &path) => {
            Next::Follow { path, query }
        }
        Some(_) => Next::Refuse {
            message: "the redirect leads out of the tool's paths",
            acted,
        },
        None => Next::Refuse {
            message: "the redirect leads out of the tool's base",
            acted,
        },
    }
}

/// Path and query below the tool's base, if the location is there.
fn within(tool: &Tool, from: &str, location: &str) -> Option<(Path, String)> {
    let base = Url::parse(&tool.base.to_string()).ok()?;
    let to = Url::parse(from).ok()?.join(location).ok()?;
    let same_place = to.scheme() == base.scheme()
        && to.host() == base.host()
        && to.port_or_known_default() == base.port_or_known_default()
        && to.username().is_empty()
        && to.password().is_none();
    if !same_place {
        return None;
    }
    let below = to.path().strip_prefix(tool.base.prefix())?;
    let path = below.parse::<Path>().ok()?;
    Some((path, to.query().unwrap_or_default().to_owned()))
}

#[cfg(test)]
mod tests {
    use sovereign_effects::Tools;

    use super::*;

    #[test]
    fn only_what_lies_below_the_base_is_within_it() {
        let tools = Tools::parse(
            "[tools.t]\nbase = \"https://api.example.com/v2\"\nmethods = [\"GET\"]\npaths = [\"/\"]\n",
        )
        .unwrap();
        let tool = tools.tool(&"t".parse().unwrap()).unwrap();
        let from = "https://api.example.com/v2/orders/1";
        let path = |location| within(tool, from, location).map(|(path, _)| path.to_string());
        for (location, expected) in [
            ("/v2/orders/2", "/orders/2"),
            ("2", "/orders/2"),
            ("https://api.example.com/v2/x", "/x"),
            ("https://API.example.com:443/v2/x?a=b#c", "/x"),
            ("//api.example.com/v2/x", "/x"),
        ] {
            assert_eq!(path(location).as_deref(), Some(expected), "{location}");
        }
        for location in [
            "http://api.example.com/v2/x",
            "https://api.example.com:444/v2/x",
            "https://api.example.com.evil.org/v2/x",
            "https://evil.org/v2/x",
            "https://me@api.example.com/v2/x",
            "//evil.org/v2/x",
            "/\\evil.org/v2/x",
            "/v1/x",
            "/v2/../admin",
            "/v2/%2e%2e/admin",
            "/v2/a%2fb",
            "/v20/x",
            "file:///etc/passwd",
            "javascript:1",
        ] {
            assert_eq!(path(location), None, "{location}");
        }
        assert_eq!(within(tool, from, "?a=b").unwrap().1, "a=b");
    }
}
