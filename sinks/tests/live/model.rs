//! Chat completions.

use serde_json::{Value, json};

use crate::server::{Server, result, run, word};

fn question() -> Value {
    json!({"kind": "model", "tool": "t", "model": "qwen2.5:7b", "tokens_max": 64, "temperature": 0.2, "seed": 7,
        "messages": [{"role": "system", "content": "Be short."}, {"role": "user", "content": "2+2?"}]})
}

fn json_answer(body: &Value) -> String {
    let body = body.to_string();
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[tokio::test]
async fn a_completion_is_kept_with_its_usage() {
    let answer = json!({"id": "x", "object": "chat.completion", "created": 1, "model": "qwen2.5:7b-q4",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "4"}}],
        "usage": {"prompt_tokens": 12, "completion_tokens": 1, "total_tokens": 13}});
    let server = Server::saying(json_answer(&answer)).await;
    let outcome = run(&server.live(""), question()).await;
    assert_eq!(
        result(&outcome),
        &json!({"model": "qwen2.5:7b-q4", "content": "4", "finish_reason": "stop",
            "usage": {"prompt_tokens": 12, "completion_tokens": 1}})
    );
    let seen = &server.seen()[0];
    assert_eq!(seen.line(), "post /v1/chat/completions http/1.1");
    let sent: Value = serde_json::from_slice(&seen.body).unwrap();
    assert_eq!(
        sent,
        json!({"model": "qwen2.5:7b", "max_tokens": 64, "temperature": 0.2, "seed": 7, "stream": false,
            "messages": question()["messages"]})
    );
}

#[tokio::test]
async fn a_model_is_never_in_doubt_because_it_changes_nothing() {
    let cut = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{";
    let failing = "HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n";
    let unknown = "HTTP/1.1 401 No\r\ncontent-length: 0\r\n\r\n";
    for (answer, expected) in [
        (cut.to_owned(), "again answer-incomplete"),
        (failing.to_owned(), "again target-failed"),
        (unknown.to_owned(), "failed target-refused"),
        (
            json_answer(&json!({"choices": []})),
            "failed answer-incomplete",
        ),
        (json_answer(&json!("hello")), "failed answer-incomplete"),
    ] {
        let server = Server::saying(answer.clone()).await;
        assert_eq!(
            word(&run(&server.live(""), question()).await),
            expected,
            "{answer}"
        );
    }
}

#[tokio::test]
async fn a_model_needs_a_tool_that_allows_its_path() {
    let server = Server::saying("HTTP/1.1 200 OK\r\n\r\n").await;
    let live = server.live("chat_path = \"/other\"");
    assert_eq!(word(&run(&live, question()).await), "failed effect-refused");
    assert!(server.seen().is_empty());
}
