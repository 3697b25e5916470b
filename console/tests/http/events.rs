//! Pages of events, server-sent events and WebSockets.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use reqwest::Response;
use serde_json::{Value, json};
use sovereign_console::Role;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::support::{Journal, Running, TOKEN, options, start, start_on, start_with};

const PATIENCE: Duration = Duration::from_secs(20);

async fn page(running: &Running, query: &str, token: &str) -> (u16, Value) {
    let request = running.get(&format!("/api/v1/events{query}"));
    let answer = request.bearer_auth(token).send().await.unwrap();
    let status = answer.status().as_u16();
    (status, answer.json().await.unwrap())
}

fn positions(page: &Value) -> Vec<u64> {
    let events = page["events"].as_array().unwrap();
    events
        .iter()
        .map(|e| e["position"].as_u64().unwrap())
        .collect()
}

#[tokio::test]
async fn pages_go_on_where_the_last_one_ended() {
    let running = start().await;
    running.journal.append(250, 10);
    let (mut after, mut seen) = (0, Vec::new());
    loop {
        let (status, page) = page(&running, &format!("?after={after}&limit=120"), TOKEN).await;
        assert_eq!((status, &page["head"]), (200, &json!(250)));
        seen.extend(positions(&page));
        after = page["next"].as_u64().unwrap();
        if after == 250 {
            break;
        }
    }
    assert_eq!(seen, (1..=250).collect::<Vec<u64>>());
    let (_, end) = page(&running, "?after=250", TOKEN).await;
    assert_eq!(end, json!({ "events": [], "next": 250, "head": 250 }));
    let (_, traders) = page(&running, "?department=trader&limit=3", TOKEN).await;
    assert_eq!(positions(&traders), [1, 3, 5]);
    let query = "?department=7&aggregate=agent/agent-1&limit=2&after=4";
    let (_, some) = page(&running, query, TOKEN).await;
    assert_eq!(positions(&some), [10, 16]);
    // a type alone is all of that type
    let (_, all) = page(&running, "?aggregate=agent&limit=2", TOKEN).await;
    assert_eq!(positions(&all), [1, 2]);
    let (_, none) = page(&running, "?aggregate=trade", TOKEN).await;
    assert_eq!(positions(&none), [] as [u64; 0]);
    running.stop().await;
}

#[tokio::test]
async fn a_page_ends_early_when_it_is_large() {
    let running = start().await;
    running.journal.append(20, 1 << 20);
    let (_, first) = page(&running, "?limit=1000", TOKEN).await;
    assert_eq!(positions(&first), [1, 2, 3, 4], "4 MiB");
    assert_eq!(first["next"], 4);
    running.stop().await;
}

#[tokio::test]
async fn questions_that_make_no_sense_are_refused() {
    let running = start().await;
    running.journal.append(5, 1);
    for (query, code) in [
        ("?after=6", "invalid-range"),
        ("?after=18446744073709551615", "invalid-range"),
        ("?after=-1", "invalid-usage"),
        ("?after=x", "invalid-usage"),
        ("?limit=0", "invalid-usage"),
        ("?limit=1001", "invalid-usage"),
        ("?colour=red", "invalid-usage"),
        ("?after=1&after=2", "invalid-usage"),
        ("?department=kitchen", "unknown-department"),
        ("?aggregate=robot", "unknown-aggregate"),
        ("?aggregate=robot/x", "unknown-aggregate"),
    ] {
        let (status, problem) = page(&running, query, TOKEN).await;
        assert_eq!((status, &problem["code"]), (400, &json!(code)), "{query}");
        let stream = running.get(&format!("/api/v1/events/stream{query}"));
        let answer = stream.bearer_auth(TOKEN).send().await.unwrap();
        assert_eq!(answer.status(), 400, "{query}");
    }
    let request = running.get("/api/v1/events/stream").bearer_auth(TOKEN);
    let answer = request
        .header("last-event-id", "yesterday")
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 400);
    running.stop().await;
}

#[tokio::test]
async fn texts_are_opened_for_those_who_may_read_them() {
    let running = start().await;
    running.journal.append(1, 1);
    for (role, text) in [
        (Role::Viewer, "sealed"),
        (Role::Operator, "sealed"),
        (Role::Approver, "sealed"),
        (Role::Auditor, "revealed"),
        (Role::Admin, "revealed"),
    ] {
        let token = running.token(role, role.as_str()).await;
        let (_, found) = page(&running, "", &token).await;
        assert_eq!(found["events"][0]["data"]["text"], text, "{role}");
        let (_, found) = page(&running, "?sealed=true", &token).await;
        assert_eq!(found["events"][0]["data"]["text"], "sealed", "{role}");
        let mut stream = Stream::open(&running, "?after=0", None, &token).await;
        let Frame::Event { data, .. } = stream.event().await else {
            panic!("no event")
        };
        assert_eq!(data["data"]["text"], text, "{role}");
    }
    running.stop().await;
}

/// One frame of server-sent events.
#[derive(Debug, PartialEq)]
enum Frame {
    Event { id: u64, data: Value },
    Beat(u64),
    End(Value),
    Retry,
}

fn parse(frame: &str) -> Frame {
    let field = |name: &str| {
        let prefix = format!("{name}: ");
        frame.lines().find_map(|line| line.strip_prefix(&prefix))
    };
    let id = field("id").map(|id| id.parse().unwrap());
    let data = field("data").map(|data| serde_json::from_str(data).unwrap());
    match (id, data) {
        (Some(id), Some(data)) => Frame::Event { id, data },
        (Some(id), None) => Frame::Beat(id),
        (None, Some(data)) => {
            assert_eq!(field("event"), Some("end"));
            Frame::End(data)
        }
        (None, None) => Frame::Retry,
    }
}

struct Stream {
    answer: Response,
    text: String,
}

impl Stream {
    async fn open(running: &Running, query: &str, resume: Option<u64>, token: &str) -> Self {
        let request = running.get(&format!("/api/v1/events/stream{query}"));
        let mut request = request.bearer_auth(token);
        if let Some(position) = resume {
            request = request.header("last-event-id", position.to_string());
        }
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        Self {
            answer,
            text: String::new(),
        }
    }

    /// The next frame; none if the stream has ended.
    async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some((frame, rest)) = self.text.split_once("\n\n") {
                let frame = parse(frame);
                self.text = rest.to_owned();
                return Some(frame);
            }
            let chunk = timeout(PATIENCE, self.answer.chunk()).await.unwrap();
            let chunk = chunk.ok().flatten()?;
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    /// The next frame that is neither a heartbeat nor a setting.
    async fn event(&mut self) -> Frame {
        loop {
            match self.next().await.unwrap() {
                Frame::Beat(_) | Frame::Retry => {}
                frame => return frame,
            }
        }
    }

    async fn position(&mut self) -> u64 {
        match self.event().await {
            Frame::Event { id, data } => {
                assert_eq!(data["position"], id);
                id
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_stream_pushes_what_comes_and_resumes_where_it_was() {
    let running = start().await;
    running.journal.append(300, 10);
    let mut live = Stream::open(&running, "", None, TOKEN).await;
    let mut old = Stream::open(&running, "?after=290", None, TOKEN).await;
    let mut resumed = Stream::open(&running, "?after=1", Some(298), TOKEN).await;
    let mut hunters = Stream::open(&running, "?after=0&department=hunter", None, TOKEN).await;
    assert_eq!(live.next().await, Some(Frame::Retry));
    assert_eq!(live.next().await, Some(Frame::Beat(300)), "connected");
    running.journal.append(20, 10);
    for expected in 301..=320 {
        assert_eq!(live.position().await, expected);
    }
    for expected in 291..=320 {
        assert_eq!(old.position().await, expected);
    }
    for expected in 299..=320 {
        assert_eq!(resumed.position().await, expected);
    }
    for expected in 1..=160 {
        assert_eq!(hunters.position().await, 2 * expected);
    }
    running.stop().await;
}

#[tokio::test]
async fn a_restart_ends_a_stream_with_a_word_and_loses_and_doubles_nothing() {
    let journal = Journal::default();
    let tokens = Arc::default();
    let mut seen = Vec::new();
    let mut last = 0;
    for _ in 0..5 {
        let mut running = start_on(options(), &journal, &tokens).await;
        let enough = last + 500;
        let mut stream = Stream::open(&running, "?after=0", Some(last), TOKEN).await;
        journal.append(1_000, 20);
        let ended = loop {
            match stream.next().await {
                Some(Frame::Event { id, .. }) => {
                    seen.push(id);
                    last = id;
                    if id == enough {
                        running.ask_to_stop();
                    }
                }
                Some(Frame::Beat(position)) => assert!(position >= last),
                Some(Frame::Retry) => {}
                Some(Frame::End(words)) => break words,
                None => panic!("cut without a word"),
            }
        };
        assert_eq!(ended["code"], "engine-not-running");
        assert!(ended["position"].as_u64().unwrap() >= last);
        assert_eq!(stream.next().await, None);
        running.stop().await;
    }
    assert_eq!(seen, (1..=last).collect::<Vec<u64>>());
    assert!(last >= 2_500);
}

#[tokio::test]
async fn heartbeats_say_how_far_a_filter_has_looked() {
    let mut options = options();
    options.heartbeat_ms = 50;
    let running = start_with(options).await;
    let query = "?after=0&aggregate=agent/nobody";
    let mut stream = Stream::open(&running, query, None, TOKEN).await;
    running.journal.append(1_000, 1);
    loop {
        match stream.next().await.unwrap() {
            Frame::Beat(1_000) => break,
            Frame::Beat(_) | Frame::Retry => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(running.journal.described(), 0);
    running.stop().await;
}

#[tokio::test]
async fn a_stream_ends_with_the_token_that_opened_it() {
    let mut options = options();
    options.heartbeat_ms = 50;
    let running = start_with(options).await;
    let token = running.token(Role::Viewer, "vera").await;
    let mut stream = Stream::open(&running, "", None, &token).await;
    let mut other = Stream::open(&running, "", None, TOKEN).await;
    let end = running
        .request("DELETE", "/api/v1/tokens/vera")
        .bearer_auth(TOKEN);
    assert_eq!(end.send().await.unwrap().status(), 200);
    let Frame::End(words) = stream.event().await else {
        panic!("goes on")
    };
    assert_eq!(words["code"], "unauthorized");
    running.journal.append(1, 1);
    assert_eq!(other.position().await, 1);
    running.stop().await;
}

fn slow_options() -> sovereign_console::ConsoleOptions {
    let mut options = options();
    options.subscriber_stall_ms = 300;
    options
}

#[tokio::test]
async fn a_slow_client_is_dropped_and_stalls_nobody() {
    let running = start_with(slow_options()).await;
    let mut slow = Stream::open(&running, "?after=0", None, TOKEN).await;
    let mut quick = Stream::open(&running, "?after=0", None, TOKEN).await;
    assert_eq!(slow.next().await, Some(Frame::Retry));
    // 200 MB for each, far more than all buffers between
    let journal = running.journal.clone();
    let writer = tokio::spawn(async move {
        for _ in 0..2_000 {
            journal.append(1, 100_000);
            tokio::task::yield_now().await;
        }
    });
    let began = Instant::now();
    for expected in 1..=2_000 {
        assert_eq!(quick.position().await, expected);
    }
    let took = began.elapsed();
    writer.await.unwrap();
    // what was made for the slow one is what its queue and the sockets take, not all there is
    let made = running.journal.described() - 2_000;
    assert!(
        made < 600,
        "{made} events were made for a client that reads nothing"
    );
    assert!(took < PATIENCE, "{took:?}");
    // it reads on now: what was sent to it, without a gap, and then why that is all
    sleep(Duration::from_millis(500)).await;
    let mut last = 0;
    let words = loop {
        match slow.next().await {
            Some(Frame::Event { id, .. }) => {
                assert_eq!(id, last + 1);
                last = id;
            }
            Some(Frame::End(words)) => break words,
            Some(_) => {}
            None => panic!("cut without a word at {last}"),
        }
    };
    assert_eq!(words["code"], "too-slow");
    assert_eq!(words["position"], last);
    assert_eq!(slow.next().await, None);
    // and it can go on from there
    let mut again = Stream::open(&running, "", Some(last), TOKEN).await;
    assert_eq!(again.position().await, last + 1);
    running.stop().await;
}

#[tokio::test]
async fn a_client_that_never_reads_loses_its_connection_and_its_place() {
    let mut options = slow_options();
    options.subscriptions_max = 1;
    let running = start_with(options).await;
    running.journal.append(2_000, 100_000);
    let stuck = Stream::open(&running, "?after=0", None, TOKEN).await;
    let request = || running.get("/api/v1/events/stream").bearer_auth(TOKEN);
    let second = request().send().await.unwrap();
    assert_eq!(second.status(), 503);
    assert_eq!(second.headers()["retry-after"], "5");
    let until = Instant::now() + PATIENCE;
    while request().send().await.unwrap().status() != 200 {
        assert!(Instant::now() < until, "its place stays taken");
        sleep(Duration::from_millis(200)).await;
    }
    drop(stuck);
    running.stop().await;
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn connect(running: &Running, query: &str, token: &str) -> Result<Socket, Error> {
    let url = format!("ws://{}/api/v1/events/ws{query}", running.addr);
    let mut request = url.into_client_request().unwrap();
    let value = format!("Bearer {token}").parse().unwrap();
    request.headers_mut().insert("authorization", value);
    Ok(connect_async(request).await?.0)
}

/// The next message that is no heartbeat.
async fn message(socket: &mut Socket) -> Value {
    loop {
        let next = timeout(PATIENCE, socket.next()).await.unwrap();
        match next.unwrap().unwrap() {
            Message::Text(text) => {
                let value: Value = serde_json::from_str(&text).unwrap();
                if value["type"] != "heartbeat" {
                    return value;
                }
            }
            Message::Close(frame) => return json!({ "close": u16::from(frame.unwrap().code) }),
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_socket_gets_the_same_events_and_resumes_over_a_restart() {
    let journal = Journal::default();
    let tokens = Arc::default();
    let (mut last, mut seen) = (0, Vec::new());
    for _ in 0..3 {
        let mut running = start_on(options(), &journal, &tokens).await;
        let enough = last + 200;
        let query = format!("?after={last}&department=trader");
        let mut socket = connect(&running, &query, TOKEN).await.unwrap();
        journal.append(500, 20);
        loop {
            let value = message(&mut socket).await;
            if value["type"] == "end" {
                assert_eq!(value["code"], "engine-not-running");
                assert_eq!(message(&mut socket).await, json!({ "close": 1001 }));
                break;
            }
            last = value["event"]["position"].as_u64().unwrap();
            seen.push(last);
            if last >= enough && last < enough + 2 {
                running.ask_to_stop();
            }
        }
        running.stop().await;
    }
    let expected: Vec<u64> = (1..=last).step_by(2).collect();
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn sockets_are_for_those_who_may_and_for_our_own_pages() {
    let running = start().await;
    let status = |result: Result<Socket, Error>| match result {
        Err(Error::Http(answer)) => answer.status().as_u16(),
        Err(error) => panic!("{error}"),
        Ok(_) => 101,
    };
    assert_eq!(status(connect(&running, "", "wrong").await), 401);
    assert_eq!(status(connect(&running, "?after=9", TOKEN).await), 400);
    assert_eq!(status(connect(&running, "", TOKEN).await), 101);
    let url = format!("ws://{}/api/v1/events/ws", running.addr);
    for (origin, expected) in [
        ("http://evil.example".to_owned(), 403),
        (format!("http://{}", running.addr), 101),
    ] {
        let mut request = url.as_str().into_client_request().unwrap();
        let headers = request.headers_mut();
        headers.insert("authorization", format!("Bearer {TOKEN}").parse().unwrap());
        headers.insert("origin", origin.parse().unwrap());
        let found = status(connect_async(request).await.map(|(socket, _)| socket));
        assert_eq!(found, expected, "{origin}");
    }
    let plain = running.get("/api/v1/events/ws").bearer_auth(TOKEN);
    let answer = plain.send().await.unwrap();
    assert!(answer.status().is_client_error());
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
    running.stop().await;
}

#[tokio::test]
async fn a_slow_socket_is_dropped_with_a_word() {
    let running = start_with(slow_options()).await;
    let mut socket = connect(&running, "?after=0", TOKEN).await.unwrap();
    running.journal.append(1_000, 100_000);
    sleep(Duration::from_millis(1_500)).await;
    let made = running.journal.described();
    assert!(made < 600, "{made}");
    let mut last = 0;
    loop {
        let value = message(&mut socket).await;
        if value["type"] == "end" {
            assert_eq!(value["code"], "too-slow");
            assert_eq!(value["position"], last);
            break;
        }
        last += 1;
        assert_eq!(value["event"]["position"], last);
    }
    assert_eq!(message(&mut socket).await, json!({ "close": 1013 }));
    running.stop().await;
}
