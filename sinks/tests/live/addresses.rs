//! Addresses: only those that a tool may be in are connected to, whatever a name stands for.

use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use sovereign_sinks::{Live, Resolve};

use crate::server::{Server, get, live, options, run, word};

/// Answers each question with the next list, and the last one for ever.
#[derive(Debug)]
struct Scripted {
    answers: Vec<Vec<IpAddr>>,
    asked: Mutex<usize>,
}

impl Scripted {
    fn new(answers: &[&[&str]]) -> Arc<Self> {
        let read = |list: &&[&str]| list.iter().map(|ip| ip.parse().unwrap()).collect();
        Arc::new(Self {
            answers: answers.iter().map(read).collect(),
            asked: Mutex::new(0),
        })
    }

    fn asked(&self) -> usize {
        *self.asked.lock().unwrap()
    }
}

#[async_trait]
impl Resolve for Scripted {
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        assert_eq!(host, "orders.example.com");
        let mut asked = self.asked.lock().unwrap();
        *asked += 1;
        let at = (*asked - 1).min(self.answers.len() - 1);
        Ok(self.answers[at].clone())
    }
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

fn named(server: &Server, more: &str, resolver: Arc<Scripted>) -> Live {
    let port = server.address.port();
    let mut with = options(&format!(
        "[tools.t]\nbase = \"http://orders.example.com:{port}\"\nmethods = [\"GET\"]\npaths = [\"/\"]\ntime_ms_max = 2000\n{more}\n"
    ));
    with.resolver = resolver;
    Live::new(with).unwrap()
}

#[tokio::test]
async fn a_network_must_be_named_by_the_tool() {
    let server = Server::saying(OK).await;
    for host in [
        "127.0.0.1",
        "[::ffff:127.0.0.1]",
        "[::1]",
        "localhost",
        "10.0.0.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
    ] {
        let base = format!("http://{host}:{}", server.address.port());
        let tool = format!("[tools.t]\nbase = \"{base}\"\nmethods = [\"GET\"]\npaths = [\"/\"]\n");
        let outcome = run(&live(&tool), get("/")).await;
        assert_eq!(word(&outcome), "failed address-refused", "{host}");
    }
    // what is reserved is reached by nobody; a name does not help
    let all = "reach = [\"loopback\", \"private\", \"shared\", \"link-local\", \"metadata\"]";
    for address in ["0.0.0.0", "224.0.0.1", "255.255.255.255", "ff02::1", "::"] {
        let live = named(&server, all, Scripted::new(&[&[address]]));
        assert_eq!(
            word(&run(&live, get("/")).await),
            "failed address-refused",
            "{address}"
        );
    }
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn a_name_is_asked_once_and_what_was_checked_is_connected_to() {
    let server = Server::saying(OK).await;
    // whoever checked and then connected by name would land at the second answer
    let resolver = Scripted::new(&[&["10.0.0.1"], &["127.0.0.1"]]);
    let live = named(&server, "", Arc::clone(&resolver));
    assert_eq!(word(&run(&live, get("/")).await), "failed address-refused");
    assert_eq!((resolver.asked(), server.seen().len()), (1, 0));

    let resolver = Scripted::new(&[&["127.0.0.1"], &["10.0.0.1"]]);
    let live = named(&server, "reach = [\"loopback\"]", Arc::clone(&resolver));
    assert_eq!(word(&run(&live, get("/")).await), "done");
    assert_eq!((resolver.asked(), server.seen().len()), (1, 1));
}

#[tokio::test]
async fn a_name_that_changes_between_redirects_is_checked_again() {
    let server =
        Server::saying("HTTP/1.1 302 Found\r\nlocation: /next\r\ncontent-length: 0\r\n\r\n").await;
    let resolver = Scripted::new(&[&["127.0.0.1"], &["169.254.169.254"]]);
    let more = "reach = [\"loopback\"]\nredirects_max = 3";
    let live = named(&server, more, Arc::clone(&resolver));
    assert_eq!(word(&run(&live, get("/")).await), "failed address-refused");
    assert_eq!((resolver.asked(), server.seen().len()), (2, 1));
}

#[tokio::test]
async fn forbidden_addresses_beside_an_allowed_one_are_not_tried() {
    let server = Server::saying(OK).await;
    let resolver = Scripted::new(&[&["10.255.255.1", "::", "127.0.0.1"]]);
    let live = named(&server, "reach = [\"loopback\"]", resolver);
    let started = std::time::Instant::now();
    assert_eq!(word(&run(&live, get("/")).await), "done");
    assert!(started.elapsed() < std::time::Duration::from_millis(900));
}

#[tokio::test]
async fn a_name_without_an_address_is_unreachable() {
    let server = Server::saying(OK).await;
    let live = named(&server, "", Scripted::new(&[&[]]));
    assert_eq!(
        word(&run(&live, get("/")).await),
        "again target-unreachable"
    );
}
