//! The OpenAPI document: whole, consistent, and of the routes that there are.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;
use sovereign_console::InProcess;

use crate::support::{MemoryStore, TOKEN, nothing, options, start};

async fn document() -> (crate::support::Running, Value) {
    let running = start().await;
    let answer = running.get("/api/openapi.json").send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], "application/json");
    let document = answer.json().await.unwrap();
    (running, document)
}

/// Calls `look` with every object in the document.
fn walk(value: &Value, look: &mut impl FnMut(&serde_json::Map<String, Value>)) {
    match value {
        Value::Object(object) => {
            look(object);
            object.values().for_each(|value| walk(value, look));
        }
        Value::Array(array) => array.iter().for_each(|value| walk(value, look)),
        _ => {}
    }
}

#[tokio::test]
async fn the_document_is_openapi_3_1_and_every_reference_leads_somewhere() {
    let (running, document) = document().await;
    assert_eq!(document["openapi"], "3.1.0");
    assert!(document["info"]["title"].is_string() && document["info"]["version"].is_string());
    let mut references = BTreeSet::new();
    walk(&document, &mut |object| {
        if let Some(Value::String(reference)) = object.get("$ref") {
            references.insert(reference.clone());
        }
    });
    assert!(references.len() > 10, "{references:?}");
    for reference in &references {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
    let schemas = document["components"]["schemas"].as_object().unwrap();
    for name in schemas.keys() {
        let used = references.contains(&format!("#/components/schemas/{name}"));
        assert!(used, "nobody uses {name}");
    }
    running.stop().await;
}

#[tokio::test]
async fn every_operation_says_what_it_takes_gives_and_needs() {
    let (running, document) = document().await;
    let mut ids = BTreeSet::new();
    let mut open = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        let wanted: BTreeSet<&str> = path
            .split('/')
            .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
            .collect();
        for (method, operation) in methods.as_object().unwrap() {
            let what = format!("{method} {path}");
            let id = operation["operationId"].as_str().unwrap();
            assert!(ids.insert(id.to_owned()), "{id} twice");
            assert!(
                operation["summary"].as_str().is_some_and(|s| !s.is_empty()),
                "{what}"
            );
            let parameters = operation["parameters"].as_array();
            let of_path: BTreeSet<&str> = parameters
                .into_iter()
                .flatten()
                .filter(|p| p["in"] == "path")
                .map(|p| p["name"].as_str().unwrap())
                .collect();
            assert_eq!(of_path, wanted, "{what}");
            let responses = operation["responses"].as_object().unwrap();
            let good = responses
                .keys()
                .any(|status| status.starts_with(['1', '2']));
            assert!(good && responses.contains_key("default"), "{what}");
            match operation["x-sovereign-right"].as_str() {
                Some(_) => assert_eq!(operation["security"].as_array().unwrap().len(), 2, "{what}"),
                None => drop(open.insert(what)),
            }
        }
    }
    let meant = ["get /api/openapi.json", "get /health", "get /metrics"];
    assert_eq!(open, meant.map(str::to_owned).into(), "open routes");
    running.stop().await;
}

#[tokio::test]
async fn every_operation_is_a_route_and_no_other_method_is() {
    let (running, document) = document().await;
    for (path, methods) in document["paths"].as_object().unwrap() {
        let path = path.replace("{id}", "waits").replace("{name}", "trades");
        let path = path.replace("{trade}", "t").replace("{task}", "t");
        let methods: BTreeSet<String> = methods
            .as_object()
            .unwrap()
            .keys()
            .map(|method| method.to_uppercase())
            .collect();
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
            let request = running.request(method, &path).bearer_auth(TOKEN);
            let status = request.send().await.unwrap().status().as_u16();
            assert_eq!(
                status != 405,
                methods.contains(method),
                "{method} {path}: {status}"
            );
        }
    }
    running.stop().await;
}

#[tokio::test]
async fn where_nothing_is_there_every_operation_says_so_and_none_fails() {
    let (running, document) = document().await;
    running.stop().await;
    let schemas = Arc::new(MemoryStore::default());
    let console = InProcess::new(options(), nothing::services(schemas).await);
    let bearer = format!("Bearer {TOKEN}");
    let headers = [
        ("authorization", bearer.as_str()),
        ("content-type", "application/json"),
    ];
    let mut asked = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        let place = path.replace(['{', '}'], "");
        for method in methods.as_object().unwrap().keys() {
            let body = Bytes::from_static(b"{}");
            let answer = console
                .answer(&method.to_uppercase(), &place, &headers, body)
                .await;
            asked += 1;
            let Some(answer) = answer else {
                panic!("{method} {path} has no answer");
            };
            assert!(answer.status < 500, "{method} {path}: {}", answer.status);
        }
    }
    assert!(asked > 30, "{asked}");
}
