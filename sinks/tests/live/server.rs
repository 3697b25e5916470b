//! A server that does what a test wants, byte by byte.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use sovereign_effects::{Effect, EffectId, Outcome, Programs, Request, Tools};
use sovereign_schemas::ErrorCode;
use sovereign_sinks::{Live, LiveOptions, Secrets, Sink as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// A server on a free port of this machine.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

/// One request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// Lower case.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Seen {
    pub(crate) fn line(&self) -> &str {
        self.head.lines().next().unwrap_or_default()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let line = |line: &'_ &str| line.starts_with(&format!("{name}: "));
        let found = self.head.lines().find(line)?;
        Some(&found[name.len() + 2..])
    }
}

impl Server {
    /// Reads a request from each connection, then lets `then` do as it likes with it.
    pub(crate) async fn start<F, Fut>(then: F) -> Self
    where
        F: Fn(Seen, TcpStream) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let (all, then) = (Arc::clone(&seen), Arc::new(then));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (all, then) = (Arc::clone(&all), Arc::clone(&then));
                tokio::spawn(async move {
                    if let Some(request) = read(&mut stream).await {
                        all.lock().unwrap().push(request.clone());
                        then(request, stream).await;
                    }
                });
            }
        });
        Self { address, seen }
    }

    /// Answers each request with these bytes and closes.
    pub(crate) async fn saying(answer: impl Into<Vec<u8>>) -> Self {
        let answer = Arc::new(answer.into());
        Self::start(move |_, mut stream| {
            let answer = Arc::clone(&answer);
            async move {
                let _ = stream.write_all(&answer).await;
                let _ = stream.shutdown().await;
            }
        })
        .await
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// The section of a tool `t` at this server, with more settings.
    pub(crate) fn tool(&self, more: &str) -> String {
        let time = if more.contains("time_ms_max") {
            ""
        } else {
            "time_ms_max = 3000"
        };
        format!(
            "[tools.t]\nbase = \"http://{}\"\nmethods = [\"GET\", \"POST\"]\npaths = [\"/v1\"]\nreach = [\"loopback\"]\n{time}\n{more}\n",
            self.address
        )
    }

    pub(crate) fn live(&self, more: &str) -> Live {
        live(&self.tool(more))
    }
}

async fn read(stream: &mut TcpStream) -> Option<Seen> {
    let mut bytes = Vec::new();
    let mut piece = [0; 4_096];
    loop {
        if let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
            let seen = Seen {
                head,
                body: Vec::new(),
            };
            let length: usize = seen
                .header("content-length")
                .map_or(0, |l| l.parse().unwrap());
            while bytes.len() < end + 4 + length {
                let count = stream
                    .read(&mut piece)
                    .await
                    .ok()
                    .filter(|count| *count > 0)?;
                bytes.extend_from_slice(&piece[..count]);
            }
            let body = bytes[end + 4..].to_vec();
            return Some(Seen { body, ..seen });
        }
        let count = stream
            .read(&mut piece)
            .await
            .ok()
            .filter(|count| *count > 0)?;
        bytes.extend_from_slice(&piece[..count]);
    }
}

pub(crate) fn live(tools: &str) -> Live {
    Live::new(options(tools)).unwrap()
}

pub(crate) fn options(tools: &str) -> LiveOptions {
    LiveOptions {
        tools: Tools::parse(tools).unwrap(),
        ..LiveOptions::default()
    }
}

pub(crate) fn programs(text: &str) -> Live {
    Live::new(LiveOptions {
        programs: Programs::parse(text).unwrap(),
        secrets: Secrets::default(),
        ..LiveOptions::default()
    })
    .unwrap()
}

pub(crate) fn request(effect: Value) -> Request {
    Request::new(EffectId::of("job", 7), Effect::from_value(effect).unwrap())
}

pub(crate) async fn run(live: &Live, effect: Value) -> Outcome {
    live.run(&request(effect), &CancellationToken::new()).await
}

pub(crate) fn get(path: &str) -> Value {
    json!({"kind": "http", "tool": "t", "method": "GET", "path": path})
}

pub(crate) fn post(path: &str) -> Value {
    json!({"kind": "http", "tool": "t", "method": "POST", "path": path, "body": {"n": 1}})
}

/// `done`, or how it failed and with which code.
pub(crate) fn word(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Done { .. } => "done".to_owned(),
        Outcome::Cancelled => "cancelled".to_owned(),
        Outcome::Failed { problem, retry } if *retry => format!("again {}", problem.code),
        Outcome::Failed { problem, .. } => format!("failed {}", problem.code),
        Outcome::InDoubt { problem } => format!("in doubt {}", problem.code),
    }
}

pub(crate) fn result(outcome: &Outcome) -> &Value {
    match outcome {
        Outcome::Done { result } => result,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn code(outcome: &Outcome) -> ErrorCode {
    outcome
        .problem()
        .unwrap_or_else(|| panic!("{outcome:?}"))
        .code
}
