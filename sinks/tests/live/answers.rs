//! Answers in every way that a server can get them wrong. Time and memory stay bounded, and the
//! outcome says whether the effect may have happened.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::server::{Server, get, live, post, result, run, word};

fn answer(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let mut out = format!(
        "HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    out.extend_from_slice(body);
    out
}

/// What POST and GET make of the server's answer.
async fn words(server: &Server, more: &str) -> (String, String) {
    let live = server.live(more);
    (
        word(&run(&live, post("/v1")).await),
        word(&run(&live, get("/v1")).await),
    )
}

fn both(post: &str, get: &str) -> (String, String) {
    (post.to_owned(), get.to_owned())
}

#[tokio::test]
async fn a_status_says_whether_it_happened() {
    let cases = [
        ("200 OK", "", "done", "done"),
        ("204 No Content", "", "done", "done"),
        (
            "400 Bad Request",
            "",
            "failed target-refused",
            "failed target-refused",
        ),
        (
            "401 Unauthorized",
            "",
            "failed target-refused",
            "failed target-refused",
        ),
        (
            "404 Not Found",
            "",
            "failed target-refused",
            "failed target-refused",
        ),
        (
            "408 Request Timeout",
            "",
            "again target-refused",
            "again target-refused",
        ),
        (
            "409 Conflict",
            "",
            "failed target-refused",
            "failed target-refused",
        ),
        (
            "409 Conflict",
            "idempotency_header = \"k\"",
            "in doubt target-failed",
            "failed target-refused",
        ),
        (
            "429 Too Many Requests",
            "",
            "again target-refused",
            "again target-refused",
        ),
        (
            "500 Internal Server Error",
            "",
            "in doubt target-failed",
            "again target-failed",
        ),
        (
            "503 Service Unavailable",
            "on_5xx = \"failed\"",
            "again target-failed",
            "again target-failed",
        ),
        (
            "304 Not Modified",
            "",
            "in doubt redirect-refused",
            "failed redirect-refused",
        ),
        (
            "600 Beyond",
            "",
            "in doubt target-failed",
            "failed target-failed",
        ),
    ];
    for (status, more, post, get) in cases {
        let server = Server::saying(answer(status, "", b"")).await;
        assert_eq!(
            words(&server, more).await,
            both(post, get),
            "{status} {more}"
        );
    }
}

#[tokio::test]
async fn retry_after_is_passed_on() {
    let server = Server::saying(answer("429 Too Many Requests", "retry-after: 7\r\n", b"")).await;
    let outcome = run(&server.live(""), post("/v1")).await;
    assert_eq!(outcome.problem().unwrap().retry_after_ms, Some(7_000));
}

#[tokio::test]
async fn bodies_are_kept_as_json_text_or_base64() {
    let cases: [(&str, &[u8], serde_json::Value); 5] = [
        ("application/json", b"[1]", json!(["json", [1]])),
        (
            "application/problem+json; charset=utf-8",
            b"{}",
            json!(["json", {}]),
        ),
        ("application/json", b"[1", json!(["text", "[1"])),
        ("text/plain", "ä".as_bytes(), json!(["text", "ä"])),
        ("image/png", b"\xff\x00", json!(["base64", "/wA="])),
    ];
    for (kind, body, expected) in cases {
        let headers = format!("content-type: {kind}\r\n");
        let server = Server::saying(answer("200 OK", &headers, body)).await;
        let outcome = run(&server.live(""), get("/v1")).await;
        let found = result(&outcome);
        assert_eq!(
            json!([found["encoding"], found["body"]]),
            expected,
            "{kind}"
        );
    }
}

/// Writes as much as the client takes, and counts it.
async fn pour(stream: &mut TcpStream, piece: &[u8], poured: &AtomicU64) {
    while stream.write_all(piece).await.is_ok() {
        poured.fetch_add(piece.len() as u64, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn an_answer_of_10_gib_ends_early_whether_announced_or_not() {
    for (head, piece) in [
        ("content-length: 10737418240", vec![b'x'; 65_536]),
        (
            "transfer-encoding: chunked",
            [b"10000\r\n".to_vec(), vec![b'x'; 65_536], b"\r\n".to_vec()].concat(),
        ),
        ("x: until the connection ends", vec![b'x'; 65_536]),
    ] {
        let poured = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&poured);
        let server = Server::start(move |_, mut stream| {
            let (piece, count) = (piece.clone(), Arc::clone(&count));
            async move {
                let head = format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n");
                let _ = stream.write_all(head.as_bytes()).await;
                pour(&mut stream, &piece, &count).await;
            }
        })
        .await;
        let started = Instant::now();
        assert_eq!(
            words(&server, "").await,
            both("in doubt answer-too-large", "failed answer-too-large"),
            "{head}"
        );
        assert!(started.elapsed() < Duration::from_secs(2), "{head}");
        // what the two kernels hold between us
        let taken = poured.load(Ordering::SeqCst);
        assert!(taken < 32 << 20, "{head}: {taken} bytes were taken");
    }
}

#[tokio::test]
async fn a_gzip_bomb_is_cut_off_and_ordinary_gzip_is_read() {
    let packed = |bytes: &[u8]| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let bomb = packed(&vec![0; 50 << 20]);
    assert!(bomb.len() < 60 << 10, "{}", bomb.len());
    let cases = [
        (packed(b"hello"), "gzip", "done", "done"),
        (
            bomb,
            "gzip",
            "in doubt answer-too-large",
            "failed answer-too-large",
        ),
        (
            b"no gzip".to_vec(),
            "gzip",
            "in doubt answer-incomplete",
            "again answer-incomplete",
        ),
        (
            b"hello".to_vec(),
            "br",
            "in doubt answer-incomplete",
            "again answer-incomplete",
        ),
        (
            packed(&packed(b"hello")),
            "gzip, gzip",
            "in doubt answer-incomplete",
            "again answer-incomplete",
        ),
    ];
    for (body, encoding, post, get) in cases {
        let headers = format!("content-encoding: {encoding}\r\n");
        let server = Server::saying(answer("200 OK", &headers, &body)).await;
        assert_eq!(words(&server, "").await, both(post, get), "{encoding}");
        if post.ends_with("answer-too-large") {
            // by the tool's limit, and not by that of results after all was unpacked
            let outcome = run(&server.live(""), crate::server::post("/v1")).await;
            let expected = outcome.problem().unwrap().expected.as_deref();
            assert_eq!(expected, Some("at most 65536 bytes"));
        }
    }
}

#[tokio::test]
async fn what_ends_too_early_or_makes_no_sense_is_incomplete() {
    let cases: [&[u8]; 10] = [
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-le",
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly this",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\nabc",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"\x16\x03\x01\x00\xa5\x01\x00",
    ];
    for bytes in cases {
        let server = Server::saying(bytes).await;
        let shown = String::from_utf8_lossy(bytes);
        assert_eq!(
            words(&server, "").await,
            both("in doubt answer-incomplete", "again answer-incomplete"),
            "{shown:?}"
        );
    }
}

#[tokio::test]
async fn bytes_behind_an_answer_are_not_part_of_it() {
    let more = [
        answer("200 OK", "", b"abc"),
        answer("200 OK", "", b"smuggled"),
    ]
    .concat();
    let server = Server::saying(more).await;
    let outcome = run(&server.live(""), post("/v1")).await;
    assert_eq!(result(&outcome)["body"], "abc");
}

#[tokio::test]
async fn a_head_without_end_is_cut_off() {
    for line in ["HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nx: ", "HTTP"] {
        let poured = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&poured);
        let piece = if line.ends_with("\r\n") {
            "x-flood: aaaaaaaaaaaaaaaaaaaaaaaaaa\r\n"
        } else {
            "aaaaaaaaaaaaaaaaaaaaaaaa"
        };
        let server = Server::start(move |_, mut stream| {
            let count = Arc::clone(&count);
            async move {
                let _ = stream.write_all(line.as_bytes()).await;
                pour(&mut stream, piece.repeat(100).as_bytes(), &count).await;
            }
        })
        .await;
        let started = Instant::now();
        let (post, get) = words(&server, "").await;
        let code = |word: &str| word.rsplit(' ').next().unwrap().to_owned();
        assert!(post.starts_with("in doubt answer-"), "{line:?}: {post}");
        assert!(
            ["answer-too-large", "answer-incomplete"].contains(&code(&get).as_str()),
            "{get}"
        );
        assert!(started.elapsed() < Duration::from_secs(2), "{line:?}");
        assert!(poured.load(Ordering::SeqCst) < 32 << 20);
    }
}

#[tokio::test]
async fn a_flood_of_interim_answers_ends_with_the_time_limit() {
    let server = Server::start(|_, mut stream| async move {
        let piece = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n".repeat(50);
        pour(&mut stream, piece.as_bytes(), &AtomicU64::new(0)).await;
    })
    .await;
    let started = Instant::now();
    let found = words(&server, "time_ms_max = 400").await;
    assert_eq!(found, both("in doubt timed-out", "again timed-out"));
    assert!(started.elapsed() < Duration::from_secs(3));
    // a few are fine
    let interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n".as_bytes();
    let server = Server::saying([interim, &answer("200 OK", "", b"abc")].concat()).await;
    assert_eq!(words(&server, "").await, both("done", "done"));
}

#[tokio::test]
async fn a_server_that_never_ends_ends_with_the_time_limit() {
    // nothing at all; a head byte by byte; a body byte by byte
    for (start, drip) in [
        ("", ""),
        ("", "HTTP/1.1 200 OK\r\nx: y\r\n"),
        ("HTTP/1.1 200 OK\r\n\r\n", "slowly"),
    ] {
        let server = Server::start(move |_, mut stream| async move {
            let _ = stream.write_all(start.as_bytes()).await;
            for byte in drip.bytes().cycle() {
                tokio::time::sleep(Duration::from_millis(40)).await;
                if stream.write_all(&[byte]).await.is_err() {
                    return;
                }
            }
            tokio::time::sleep(Duration::from_secs(60)).await;
        })
        .await;
        let started = Instant::now();
        let found = words(&server, "time_ms_max = 400").await;
        assert_eq!(
            found,
            both("in doubt timed-out", "again timed-out"),
            "{start:?} {drip:?}"
        );
        let took = started.elapsed();
        assert!(took < Duration::from_secs(3), "{took:?}");
    }
}

#[tokio::test]
async fn where_nobody_listens_nothing_happened() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let tools = format!(
        "[tools.t]\nbase = \"http://{address}\"\nmethods = [\"POST\"]\npaths = [\"/\"]\nreach = [\"loopback\"]\n"
    );
    let outcome = run(&live(&tools), post("/v1")).await;
    assert_eq!(word(&outcome), "again target-unreachable");
}
