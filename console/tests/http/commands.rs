use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::StreamExt;
use reqwest::{Body, Response};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use crate::support::{Running, TOKEN, options, start, start_with};

async fn send(running: &Running, body: impl Into<Body>) -> Vec<Value> {
    let request = running.post("/api/commands").bearer_auth(TOKEN).body(body);
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], "application/x-ndjson");
    parse(&answer.text().await.unwrap())
}

fn parse(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// A stream that the test feeds line by line.
async fn open(running: &Running) -> (mpsc::UnboundedSender<String>, Response) {
    let (lines, mut receiver) = mpsc::unbounded_channel::<String>();
    let body = futures::stream::poll_fn(move |cx| receiver.poll_recv(cx))
        .map(|line| Ok::<_, std::io::Error>(line.into_bytes()));
    let request = running.post("/api/commands").bearer_auth(TOKEN);
    let answer = request.body(Body::wrap_stream(body)).send().await.unwrap();
    (lines, answer)
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < until, "never: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn outcomes_come_in_input_order_while_commands_overlap() {
    let running = start().await;
    let input: String = (0..5_000)
        .map(|n| format!("{{\"n\":{n},\"delay_ms\":{}}}\n", n * 7 % 11))
        .collect();
    let began = Instant::now();
    let outcomes = send(&running, input).await;
    assert_eq!(outcomes.len(), 5_000);
    for (n, outcome) in outcomes.iter().enumerate() {
        assert_eq!(outcome["command_id"], n.to_string());
        assert_eq!(outcome["status"], "accepted");
        assert_eq!(outcome.get("error"), None);
    }
    // one after the other they would take 25 s
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(running.gate.seen(), (0..5_000).collect::<Vec<u64>>());
    let most = running.gate.running_max.load(Ordering::SeqCst);
    assert!((2..=1024).contains(&most), "{most}");
    running.stop().await;
}

#[tokio::test]
async fn bad_lines_are_named_and_the_others_go_on() {
    let mut options = options();
    options.line_bytes_max = 100;
    let running = start_with(options).await;
    let mut input = b"{\"n\":1}\n\n   \r\n{\"n\":\n\xff\x00\xfe\n".to_vec();
    input.extend_from_slice(&[b'x'; 10_000]);
    input.extend_from_slice(b"\n{\"n\":7,\"refuse\":true}\r\n{\"n\":8,\"panic\":true}\n{\"n\":9}");
    let outcomes = send(&running, input).await;
    let short: Vec<_> = outcomes
        .iter()
        .map(|o| {
            let error = &o["error"];
            (
                o["status"].as_str().unwrap(),
                error["code"].as_str(),
                error["line"].as_u64(),
            )
        })
        .collect();
    let expected = [
        ("accepted", None, None),
        ("invalid", Some("malformed-json"), Some(4)),
        ("invalid", Some("malformed-json"), Some(5)),
        ("invalid", Some("line-too-long"), Some(6)),
        ("refused", Some("wrong-state"), Some(7)),
        ("invalid", Some("internal"), Some(8)),
        ("accepted", None, None),
    ];
    assert_eq!(short, expected);
    running.stop().await;
}

#[tokio::test]
async fn a_line_of_more_than_2_mib_is_skipped() {
    let running = start().await;
    let mut input = format!("{{\"n\":1,\"x\":\"{}\"}}\n", "y".repeat(3 << 20)).into_bytes();
    input.extend_from_slice(format!("{{\"n\":2,\"x\":\"{}\"}}\n", "y".repeat(1 << 20)).as_bytes());
    let outcomes = send(&running, input).await;
    assert_eq!(outcomes[0]["error"]["code"], "line-too-long");
    assert_eq!(outcomes[0]["error"]["line"], 1);
    assert_eq!(outcomes[1]["command_id"], "2");
    assert_eq!(outcomes.len(), 2);
    running.stop().await;
}

#[tokio::test]
async fn no_lines_have_no_outcomes() {
    let running = start().await;
    assert!(send(&running, "").await.is_empty());
    assert!(send(&running, "\n\n").await.is_empty());
    running.stop().await;
}

#[tokio::test]
async fn an_outcome_is_sent_before_the_next_line_arrives() {
    let running = start().await;
    let (lines, mut answer) = open(&running).await;
    for n in 0..3 {
        lines.send(format!("{{\"n\":{n}}}\n")).unwrap();
        let chunk = timeout(Duration::from_secs(5), answer.chunk())
            .await
            .unwrap();
        let outcome = parse(std::str::from_utf8(&chunk.unwrap().unwrap()).unwrap());
        assert_eq!(outcome[0]["command_id"], n.to_string());
    }
    drop(lines);
    assert_eq!(answer.chunk().await.unwrap(), None);
    running.stop().await;
}

#[tokio::test]
async fn no_more_than_the_limit_are_in_flight() {
    let mut options = options();
    options.commands_in_flight_max = 10;
    let running = start_with(options).await;
    let input: String = (0..50)
        .map(|n| format!("{{\"n\":{n},\"hold\":true}}\n"))
        .collect();
    let watch = async {
        until("ten run", || {
            running.gate.running.load(Ordering::SeqCst) == 10
        })
        .await;
        sleep(Duration::from_millis(50)).await;
        assert_eq!(running.gate.seen().len(), 10);
        running.gate.release(50);
    };
    let (outcomes, ()) = tokio::join!(send(&running, input), watch);
    assert_eq!(outcomes.len(), 50);
    assert_eq!(running.gate.running_max.load(Ordering::SeqCst), 10);
    running.stop().await;
}

#[tokio::test]
async fn large_lines_are_bounded_by_bytes_in_flight() {
    let mut options = options();
    options.command_bytes_in_flight_max = 10_000;
    let running = start_with(options).await;
    let filler = "y".repeat(3_000);
    let input: String = (0..20)
        .map(|n| format!("{{\"n\":{n},\"hold\":true,\"x\":\"{filler}\"}}\n"))
        .collect();
    let watch = async {
        until("four run", || {
            running.gate.running.load(Ordering::SeqCst) == 4
        })
        .await;
        sleep(Duration::from_millis(50)).await;
        assert_eq!(running.gate.seen().len(), 4);
        running.gate.release(20);
    };
    let (outcomes, ()) = tokio::join!(send(&running, input), watch);
    assert_eq!(outcomes.len(), 20);
    running.stop().await;
}

/// Opens a stream by hand, of which the test reads what it wants.
async fn by_hand(running: &Running) -> TcpStream {
    let mut stream = TcpStream::connect(running.addr).await.unwrap();
    let head = format!(
        "POST /api/commands HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {TOKEN}\r\n\
         content-length: 1000000000\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn a_client_that_does_not_read_is_no_longer_read() {
    let running = start().await;
    let mut stream = by_hand(&running).await;
    let lines = "{\"n\":1,\"refuse\":true}\n".repeat(1_000);
    let mut sent = 0_u64;
    // outcomes are longer than lines, so that both directions fill up
    while let Ok(written) = timeout(
        Duration::from_millis(500),
        stream.write_all(lines.as_bytes()),
    )
    .await
    {
        written.unwrap();
        sent += 1;
        assert!(sent < 20_000, "takes lines for ever");
    }
    let taken = running.gate.seen().len();
    sleep(Duration::from_millis(200)).await;
    assert_eq!(running.gate.seen().len(), taken);
    // once it reads, all goes on
    let mut buffer = vec![0; 1 << 20];
    timeout(Duration::from_secs(5), stream.read(&mut buffer))
        .await
        .unwrap()
        .unwrap();
    let more = async {
        loop {
            assert_ne!(stream.read(&mut buffer).await.unwrap(), 0, "closed");
            if running.gate.seen().len() > taken {
                return;
            }
        }
    };
    timeout(Duration::from_secs(5), more).await.unwrap();
    drop(stream);
    running.stop().await;
}

#[tokio::test]
async fn what_was_taken_is_done_when_the_client_leaves() {
    let running = start().await;
    let mut stream = by_hand(&running).await;
    stream
        .write_all("{\"n\":1,\"hold\":true}\n".repeat(3).as_bytes())
        .await
        .unwrap();
    stream.write_all(b"{\"n\":2}").await.unwrap();
    until("three run", || {
        running.gate.running.load(Ordering::SeqCst) == 3
    })
    .await;
    drop(stream);
    sleep(Duration::from_millis(100)).await;
    running.gate.release(3);
    until("three done", || {
        running.gate.done.load(Ordering::SeqCst) == 3
    })
    .await;
    // the line that was cut off is no command
    assert_eq!(running.gate.seen(), [1, 1, 1]);
    running.stop().await;
}

#[tokio::test]
async fn one_stream_more_than_allowed_is_told_to_come_again() {
    let mut options = options();
    options.command_streams_max = 1;
    let running = start_with(options).await;
    let (lines, answer) = open(&running).await;
    let refused = running
        .post("/api/commands")
        .bearer_auth(TOKEN)
        .body("")
        .send()
        .await
        .unwrap();
    assert_eq!(refused.status(), 503);
    assert_eq!(refused.headers()["retry-after"], "1");
    assert_eq!(refused.json::<Value>().await.unwrap()["code"], "busy");
    drop(lines);
    assert_eq!(answer.text().await.unwrap(), "");
    assert!(send(&running, "").await.is_empty());
    running.stop().await;
}

#[tokio::test]
async fn a_stop_brings_commands_in_flight_to_their_end() {
    let mut running = start().await;
    let (lines, mut answer) = open(&running).await;
    lines.send("{\"n\":1,\"hold\":true}\n".to_owned()).unwrap();
    until("it runs", || {
        running.gate.running.load(Ordering::SeqCst) == 1
    })
    .await;
    running.ask_to_stop();
    sleep(Duration::from_millis(100)).await;
    lines.send("{\"n\":2}\n".to_owned()).unwrap();
    sleep(Duration::from_millis(100)).await;
    running.gate.release(1);
    let mut text = Vec::new();
    // the input goes on, so the answer breaks off after both outcomes
    let broken = loop {
        match timeout(Duration::from_secs(5), answer.chunk())
            .await
            .unwrap()
        {
            Ok(Some(chunk)) => text.extend_from_slice(&chunk),
            Ok(None) => break false,
            Err(_) => break true,
        }
    };
    assert!(broken);
    let outcomes = parse(std::str::from_utf8(&text).unwrap());
    assert_eq!(outcomes[0]["status"], "accepted");
    assert_eq!(outcomes[1]["error"]["code"], "engine-not-running");
    assert_eq!(outcomes[1]["error"]["line"], 2);
    assert_eq!(running.gate.seen(), [1]);
    timeout(Duration::from_secs(8), running.stop())
        .await
        .unwrap();
}

#[tokio::test]
async fn compressed_input_is_refused() {
    let running = start().await;
    let request = running.post("/api/commands").bearer_auth(TOKEN);
    let answer = request
        .header("content-encoding", "gzip")
        .body("x")
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 415);
    running.stop().await;
}
