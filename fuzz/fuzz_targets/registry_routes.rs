//! Requests to the schema registry, one a line: `METHOD PATH BODY`. No answer is a failure of the
//! server, every body is the JSON that clients expect, and the store stays as it should be.
#![no_main]

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use sovereign_console::{ConsoleOptions, InProcess, SchemaStore, Token};
use tokio::runtime::{Builder, Runtime};

#[allow(clippy::unwrap_used)]
#[path = "../../console/tests/http/support/schemas.rs"]
mod schemas;

#[allow(clippy::unwrap_used)]
#[path = "../../console/tests/http/support/nothing.rs"]
mod nothing;

const REQUESTS_MAX: usize = 12;

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let mut builder = Builder::new_current_thread();
    builder.enable_time().build().expect("a runtime")
});

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    RUNTIME.block_on(run(text));
});

async fn run(text: &str) {
    let store = Arc::new(schemas::MemoryStore::default());
    let console = InProcess::new(
        ConsoleOptions::new(Token::new("0123456789abcdef0123456789abcdef").expect("long enough")),
        nothing::services(store.clone()).await,
    );
    for line in text.lines().take(REQUESTS_MAX) {
        let mut parts = line.splitn(3, ' ');
        let (method, path) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
        let body = Bytes::copy_from_slice(parts.next().unwrap_or("").as_bytes());
        let headers = [("content-type", "application/vnd.schemaregistry.v1+json")];
        let Some(answer) = console.answer(method, path, &headers, body).await else {
            continue;
        };
        assert!(answer.status < 500, "{line:?}: {answer:?}");
        let registry =
            answer.media_type.as_deref() == Some("application/vnd.schemaregistry.v1+json");
        if registry && method != "HEAD" && answer.status != 204 {
            let value: Value = serde_json::from_slice(&answer.body).expect("JSON");
            if answer.status >= 400 {
                assert!(value["error_code"].is_u64() && value["message"].is_string());
            }
        }
    }
    for version in store.all().await.expect("in memory") {
        let normal = sovereign_schemas::compatibility::normalized(&version.schema);
        assert_eq!(normal.as_ref(), Ok(&version.schema), "stored as normalized");
    }
}
