//! Who is called, and by which page. A browser can be made to send requests here by a foreign
//! page, directly or after its name was rebound to this address; both carry a name that is not
//! ours.

use std::net::{IpAddr, SocketAddr};

use axum::extract::Request;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header, uri::Authority};
use sovereign_schemas::{ErrorCode, Problem};

use super::place::Place;
use super::problem::HttpProblem;
use super::state::Shared;

/// The names by which the console may be called.
#[derive(Debug)]
pub(crate) struct Hosts {
    own: IpAddr,
    names: Vec<String>,
    /// Of the pages, also where a proxy in front of us changes `Host`.
    page: String,
}

impl Hosts {
    pub(crate) fn new(local: SocketAddr, names: &[String], place: &Place) -> Self {
        let names = names.iter().map(|n| n.to_ascii_lowercase());
        Self {
            own: local.ip(),
            names: names.chain([place.host().to_owned()]).collect(),
            page: place.origin().to_owned(),
        }
    }

    fn allow(&self, authority: &str) -> bool {
        let Ok(authority) = authority.parse::<Authority>() else {
            return false;
        };
        if authority.as_str().contains('@') {
            return false;
        }
        let host = authority
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']');
        if let Ok(ip) = host.parse::<IpAddr>() {
            // only names can be rebound, so a wildcard listener may be called by any address
            return ip.is_loopback() || ip == self.own || self.own.is_unspecified();
        }
        let host = host.to_ascii_lowercase();
        host == "localhost" || self.names.contains(&host)
    }
}

/// Refuses requests under a foreign name and writing ones from a foreign page.
pub(crate) fn check(shared: &Shared, request: &Request) -> Result<(), HttpProblem> {
    let (method, uri, headers) = (request.method(), request.uri(), request.headers());
    match refusal(&shared.hosts, method, uri, headers) {
        Some(problem) => Err(HttpProblem::new(StatusCode::FORBIDDEN, problem)),
        None => Ok(()),
    }
}

fn refusal(hosts: &Hosts, method: &Method, uri: &Uri, headers: &HeaderMap) -> Option<Problem> {
    let mut given = headers.get_all(header::HOST).iter();
    let host = match (given.next().map(|h| h.to_str()), given.next()) {
        (Some(Ok(host)), None) => host,
        _ => "",
    };
    let named = uri.authority().is_none_or(|a| hosts.allow(a.as_str()));
    if !named || !hosts.allow(host) {
        let problem = Problem::new(ErrorCode::Unauthorized, "called by a name that is not ours")
            .field("host")
            .expected("localhost, the console's own address, or a name in allowed_hosts")
            .remedy("call the console by its address, or allow the name");
        return Some(problem);
    }
    // a WebSocket is no request like others: browsers let every page open one, and read it
    let upgrades = headers.contains_key(header::UPGRADE);
    let reads = !upgrades && matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    let foreign = headers.get(header::ORIGIN).is_some_and(|origin| {
        let origin = origin.to_str().unwrap_or_default();
        let same = |(_, page): (&str, &str)| page.eq_ignore_ascii_case(host);
        origin != hosts.page && !origin.split_once("://").is_some_and(same)
    });
    if foreign && !reads {
        let problem = Problem::new(ErrorCode::Unauthorized, "sent by a page of another origin")
            .field("origin")
            .remedy("send it from the console's own pages or from a program");
        return Some(problem);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(own: &str) -> Hosts {
        let own = own.parse().unwrap();
        let place = Place::new(Some("https://approvals.example"), own).unwrap();
        Hosts::new(own, &["Engine.example".to_owned()], &place)
    }

    #[test]
    fn allows_own_addresses_and_named_hosts() {
        let hosts = hosts("127.0.0.1:80");
        for good in [
            "127.0.0.1:80",
            "127.0.0.1",
            "localhost:9",
            "LOCALHOST",
            "[::1]:80",
            "engine.example",
            "approvals.example",
        ] {
            assert!(hosts.allow(good), "{good}");
        }
    }

    #[test]
    fn refuses_names_that_can_be_rebound() {
        let hosts = hosts("127.0.0.1:80");
        for bad in [
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "localhost@evil.example",
            "evil@localhost",
            "10.0.0.1",
            "::1",
            "localhost:x y",
        ] {
            assert!(!hosts.allow(bad), "{bad}");
        }
    }

    #[test]
    fn a_wildcard_listener_may_be_called_by_any_address() {
        let hosts = hosts("0.0.0.0:80");
        assert!(hosts.allow("10.0.0.1:80"));
        assert!(!hosts.allow("evil.example"));
    }

    #[test]
    fn refuses_writing_requests_of_foreign_pages() {
        let hosts = hosts("127.0.0.1:80");
        let uri = Uri::from_static("/api/commands");
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, "127.0.0.1:80".parse().unwrap());
        assert_eq!(refusal(&hosts, &Method::POST, &uri, &headers), None);
        headers.insert(header::ORIGIN, "http://127.0.0.1:80".parse().unwrap());
        assert_eq!(refusal(&hosts, &Method::POST, &uri, &headers), None);
        // behind a proxy that names us by our address
        headers.insert(header::ORIGIN, "https://approvals.example".parse().unwrap());
        assert_eq!(refusal(&hosts, &Method::POST, &uri, &headers), None);
        for page in [
            "http://evil.example",
            "http://127.0.0.1:81",
            "http://approvals.example",
            "https://x.approvals.example",
            "null",
        ] {
            headers.insert(header::ORIGIN, page.parse().unwrap());
            assert!(
                refusal(&hosts, &Method::POST, &uri, &headers).is_some(),
                "{page}"
            );
            assert!(
                refusal(&hosts, &Method::GET, &uri, &headers).is_none(),
                "{page}"
            );
        }
        headers.insert(header::UPGRADE, "websocket".parse().unwrap());
        assert!(refusal(&hosts, &Method::GET, &uri, &headers).is_some());
    }
}
