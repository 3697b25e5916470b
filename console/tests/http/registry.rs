use futures::future::join_all;
use serde_json::{Value, json};

use crate::support::{Running, TOKEN, options, start, start_with};

fn record(fields: &str) -> String {
    format!(r#"{{"type":"record","name":"R","namespace":"n","fields":[{fields}]}}"#)
}

fn first() -> Value {
    json!({ "schema": record(r#"{"name":"a","type":"string"}"#) })
}

fn second() -> Value {
    let fields = r#"{"name":"a","type":"string"},{"name":"b","type":"int","default":0}"#;
    json!({ "schema": record(fields), "schemaType": "AVRO", "references": [] })
}

fn incompatible() -> Value {
    json!({ "schema": record(r#"{"name":"a","type":"string"},{"name":"c","type":"int"}"#) })
}

/// Status and body; `null` for no body.
async fn call(running: &Running, method: &str, path: &str, body: Value) -> (u16, Value) {
    let mut request = running.request(method, path);
    if !body.is_null() {
        request = request
            .header("content-type", "application/vnd.schemaregistry.v1+json")
            .body(body.to_string());
    }
    let answer = request.send().await.unwrap();
    let kind = answer.headers()["content-type"].to_str().unwrap();
    assert_eq!(
        kind, "application/vnd.schemaregistry.v1+json",
        "{method} {path}"
    );
    (answer.status().as_u16(), answer.json().await.unwrap())
}

async fn get(running: &Running, path: &str) -> (u16, Value) {
    call(running, "GET", path, Value::Null).await
}

/// Status and Confluent's code.
async fn failure(running: &Running, method: &str, path: &str, body: Value) -> (u16, u64) {
    let (status, body) = call(running, method, path, body).await;
    assert!(body["message"].is_string(), "{body}");
    (status, body["error_code"].as_u64().unwrap())
}

async fn register(running: &Running, subject: &str, body: Value) -> Value {
    let path = format!("/subjects/{subject}/versions");
    let (status, body) = call(running, "POST", &path, body).await;
    assert_eq!(status, 200, "{body}");
    body["id"].clone()
}

#[tokio::test]
async fn registers_finds_and_lists() {
    let r = start().await;
    assert_eq!(get(&r, "/").await, (200, json!({})));
    assert_eq!(get(&r, "/subjects").await, (200, json!([])));
    assert_eq!(get(&r, "/schemas/types").await, (200, json!(["AVRO"])));
    assert_eq!(register(&r, "n.R", first()).await, 1);
    assert_eq!(register(&r, "n.R", first()).await, 1);
    assert_eq!(register(&r, "n.R", second()).await, 2);
    assert_eq!(register(&r, "other", first()).await, 1);
    assert_eq!(get(&r, "/subjects").await, (200, json!(["n.R", "other"])));
    assert_eq!(
        get(&r, "/subjects?subjectPrefix=o").await,
        (200, json!(["other"]))
    );
    assert_eq!(
        get(&r, "/subjects/n.R/versions").await,
        (200, json!([1, 2]))
    );

    let (_, latest) = get(&r, "/subjects/n.R/versions/latest").await;
    assert_eq!((&latest["version"], &latest["id"]), (&json!(2), &json!(2)));
    assert_eq!(
        get(&r, "/subjects/n.R/versions/-1").await,
        (200, latest.clone())
    );
    let (_, schema) = get(&r, "/subjects/n.R/versions/2/schema").await;
    assert_eq!(latest["schema"], schema.to_string());
    assert_eq!(
        get(&r, "/subjects/n.R/versions/2/referencedby").await,
        (200, json!([]))
    );

    let (_, by_id) = get(&r, "/schemas/ids/2?fetchMaxId=true").await;
    assert_eq!(
        (&by_id["schema"], &by_id["maxId"]),
        (&latest["schema"], &json!(2))
    );
    assert_eq!(get(&r, "/schemas/ids/2/schema").await, (200, schema));
    assert_eq!(
        get(&r, "/schemas/ids/1/subjects").await,
        (200, json!(["n.R", "other"]))
    );
    let versions = json!([{"subject":"n.R","version":1},{"subject":"other","version":1}]);
    assert_eq!(get(&r, "/schemas/ids/1/versions").await, (200, versions));
    let (_, all) = get(&r, "/schemas?latestOnly=true").await;
    assert_eq!(
        (&all[0]["id"], &all[1]["subject"]),
        (&json!(2), &json!("other"))
    );
    assert_eq!(get(&r, "/schemas?offset=1&limit=1").await.1[0]["id"], 2);

    let (status, found) = call(&r, "POST", "/subjects/n.R", second()).await;
    assert_eq!(
        (status, &found["version"], &found["id"]),
        (200, &json!(2), &json!(2))
    );
    r.stop().await;
}

#[tokio::test]
async fn failures_have_the_codes_that_clients_compare() {
    let r = start().await;
    let none = Value::Null;
    register(&r, "s", first()).await;
    let cases = [
        ("GET", "/subjects/x/versions", none.clone(), (404, 40401)),
        ("GET", "/subjects/x/versions/1", none.clone(), (404, 40401)),
        ("GET", "/subjects/s/versions/9", none.clone(), (404, 40402)),
        ("GET", "/subjects/s/versions/0", none.clone(), (422, 42202)),
        ("GET", "/subjects/s/versions/x", none.clone(), (422, 42202)),
        ("GET", "/schemas/ids/9", none.clone(), (404, 40403)),
        ("GET", "/schemas/ids/x", none.clone(), (404, 404)),
        ("POST", "/subjects/x", first(), (404, 40401)),
        ("POST", "/subjects/s", second(), (404, 40403)),
        ("DELETE", "/subjects/x", none.clone(), (404, 40401)),
        (
            "DELETE",
            "/subjects/s?permanent=true",
            none.clone(),
            (404, 40405),
        ),
        (
            "DELETE",
            "/subjects/s/versions/1?permanent=true",
            none.clone(),
            (404, 40407),
        ),
        ("POST", "/subjects/s/versions", incompatible(), (409, 409)),
        (
            "POST",
            "/subjects/s/versions",
            json!({"schema":"{"}),
            (422, 42201),
        ),
        (
            "POST",
            "/subjects/s/versions",
            json!({"schema":""}),
            (422, 42201),
        ),
        ("POST", "/subjects/s/versions", json!({}), (422, 42201)),
        (
            "POST",
            "/subjects/s/versions",
            json!({"schema":"x","schemaType":"JSON"}),
            (422, 42201),
        ),
        ("POST", "/subjects/s/versions", json!([1]), (400, 400)),
        ("POST", "/subjects/a%00b/versions", first(), (422, 42208)),
        ("PUT", "/config", json!({"compatibility":"x"}), (422, 42203)),
        ("PUT", "/mode", json!({"mode":"IMPORT"}), (422, 42204)),
        ("GET", "/config/s", none.clone(), (404, 40408)),
        ("GET", "/mode/s", none.clone(), (404, 40409)),
        ("DELETE", "/config/s", none.clone(), (404, 40401)),
        ("GET", "/subjects/s/nothing", none.clone(), (404, 404)),
        ("PATCH", "/subjects", none.clone(), (405, 405)),
        ("GET", "/subjects/%FF/versions", none, (400, 400)),
    ];
    for (method, path, body, expected) in cases {
        let found = failure(&r, method, path, body.clone()).await;
        assert_eq!(found, expected, "{method} {path} {body}");
    }
    let imported = json!({ "schema": second()["schema"], "id": 77 });
    let found = failure(&r, "POST", "/subjects/s/versions", imported).await;
    assert_eq!(found, (422, 42205));
    let plain = r
        .post("/subjects/s/versions")
        .header("content-type", "text/plain")
        .body("{}");
    assert_eq!(plain.send().await.unwrap().status(), 415);
    r.stop().await;
}

#[tokio::test]
async fn deletes_softly_then_for_good() {
    let r = start().await;
    register(&r, "s", first()).await;
    register(&r, "s", second()).await;
    let delete = async |path: &str| call(&r, "DELETE", path, Value::Null).await;
    assert_eq!(delete("/subjects/s/versions/1").await, (200, json!(1)));
    assert_eq!(
        delete("/subjects/s/versions/1").await.1["error_code"],
        40406
    );
    assert_eq!(get(&r, "/subjects/s/versions").await.1, json!([2]));
    assert_eq!(
        get(&r, "/subjects/s/versions?deleted=true").await.1,
        json!([1, 2])
    );
    assert_eq!(
        get(&r, "/subjects/s/versions?deletedOnly=True").await.1,
        json!([1])
    );
    assert_eq!(
        get(&r, "/subjects/s/versions/1").await.1["error_code"],
        40402
    );
    // data written with it stays readable
    assert_eq!(get(&r, "/schemas/ids/1").await.0, 200);

    assert_eq!(delete("/subjects/s").await, (200, json!([2])));
    assert_eq!(delete("/subjects/s").await.1["error_code"], 40404);
    assert_eq!(get(&r, "/subjects").await.1, json!([]));
    assert_eq!(get(&r, "/subjects?deleted=true").await.1, json!(["s"]));
    // registered again, it is a new version with its old id
    assert_eq!(register(&r, "s", first()).await, 1);
    assert_eq!(get(&r, "/subjects/s/versions").await.1, json!([3]));

    assert_eq!(delete("/subjects/s/versions/latest").await, (200, json!(3)));
    assert_eq!(
        delete("/subjects/s?permanent=true").await,
        (200, json!([1, 2, 3]))
    );
    assert_eq!(
        delete("/subjects/s?permanent=true").await.1["error_code"],
        40401
    );
    assert_eq!(get(&r, "/schemas/ids/2").await.1["error_code"], 40403);
    assert_eq!(get(&r, "/subjects?deleted=true").await.1, json!([]));
    r.stop().await;
}

#[tokio::test]
async fn levels_decide_what_fits() {
    let r = start().await;
    register(&r, "s", first()).await;
    let check = async |path: &str, body: Value| {
        let path = format!("/compatibility/subjects/{path}");
        call(&r, "POST", &path, body).await
    };
    assert_eq!(
        check("s/versions/latest", second()).await,
        (200, json!({"is_compatible": true}))
    );
    assert_eq!(
        check("s/versions", incompatible()).await.1,
        json!({"is_compatible": false})
    );
    let (_, told) = check("s/versions/1?verbose=true", incompatible()).await;
    assert_eq!(told["is_compatible"], false);
    assert!(
        told["messages"][0].as_str().unwrap().contains("version 1"),
        "{told}"
    );
    assert_eq!(check("s/versions/9", second()).await.1["error_code"], 40402);
    assert_eq!(
        check("x/versions/latest", second()).await.1["is_compatible"],
        true
    );
    assert_eq!(
        check("s/versions", json!({"schema":"{"})).await.1["error_code"],
        42201
    );

    assert_eq!(
        get(&r, "/config").await.1,
        json!({"compatibilityLevel": "BACKWARD"})
    );
    let body = json!({"compatibility": "none"});
    let told = call(&r, "PUT", "/config/s", body).await;
    assert_eq!(told, (200, json!({"compatibility": "NONE"})));
    assert_eq!(
        get(&r, "/config/s").await.1,
        json!({"compatibilityLevel": "NONE"})
    );
    assert_eq!(register(&r, "s", incompatible()).await, 2);
    let told = call(&r, "DELETE", "/config/s", Value::Null).await;
    assert_eq!(told, (200, json!({"compatibilityLevel": "NONE"})));
    call(
        &r,
        "PUT",
        "/config",
        json!({"compatibility": "FULL_TRANSITIVE"}),
    )
    .await;
    let path = "/config/s?defaultToGlobal=true";
    assert_eq!(
        get(&r, path).await.1,
        json!({"compatibilityLevel": "FULL_TRANSITIVE"})
    );
    assert_eq!(
        failure(&r, "POST", "/subjects/s/versions", second()).await,
        (409, 409)
    );
    call(&r, "DELETE", "/config", Value::Null).await;
    assert_eq!(
        get(&r, "/config").await.1,
        json!({"compatibilityLevel": "BACKWARD"})
    );
    r.stop().await;
}

#[tokio::test]
async fn nothing_changes_in_read_only_mode() {
    let r = start().await;
    register(&r, "s", first()).await;
    assert_eq!(get(&r, "/mode").await.1, json!({"mode": "READWRITE"}));
    let told = call(&r, "PUT", "/mode", json!({"mode": "READONLY"})).await;
    assert_eq!(told, (200, json!({"mode": "READONLY"})));
    assert_eq!(
        failure(&r, "POST", "/subjects/s/versions", second()).await,
        (422, 42205)
    );
    assert_eq!(
        failure(&r, "DELETE", "/subjects/s", Value::Null).await,
        (422, 42205)
    );
    // what is there is found
    assert_eq!(register(&r, "s", first()).await, 1);
    call(&r, "PUT", "/mode/s", json!({"mode": "READWRITE"})).await;
    assert_eq!(register(&r, "s", second()).await, 2);
    assert_eq!(
        get(&r, "/mode/x?defaultToGlobal=true").await.1,
        json!({"mode": "READONLY"})
    );
    let told = call(&r, "DELETE", "/mode/s", Value::Null).await;
    assert_eq!(told, (200, json!({"mode": "READWRITE"})));
    r.stop().await;
}

#[tokio::test]
async fn subjects_are_percent_decoded() {
    let r = start().await;
    register(&r, "a%2Fb%20%C3%BC", first()).await;
    assert_eq!(get(&r, "/subjects").await.1, json!(["a/b ü"]));
    assert_eq!(
        get(&r, "/subjects/a%2Fb%20%C3%BC/versions/1").await.1["subject"],
        "a/b ü"
    );
    r.stop().await;
}

#[tokio::test]
async fn registrations_at_the_same_time_get_dense_versions() {
    let r = start().await;
    let body = |n: usize| {
        let defaults = format!(r#"{{"name":"f{n}","type":"int","default":0}}"#);
        json!({ "schema": record(&defaults) })
    };
    let all = join_all((0..8).map(|n| register(&r, "s", body(n)))).await;
    let mut ids: Vec<u64> = all.iter().map(|id| id.as_u64().unwrap()).collect();
    ids.sort_unstable();
    assert_eq!(ids, (1..=8).collect::<Vec<u64>>());
    assert_eq!(
        get(&r, "/subjects/s/versions").await.1,
        json!([1, 2, 3, 4, 5, 6, 7, 8])
    );
    r.stop().await;
}

#[tokio::test]
async fn bare_primitive_names_are_schemas() {
    let r = start().await;
    assert_eq!(register(&r, "k", json!({"schema": "string"})).await, 1);
    assert_eq!(register(&r, "k", json!({"schema": "\"string\""})).await, 1);
    r.stop().await;
}

#[tokio::test]
async fn writing_can_be_made_to_need_the_token() {
    let mut options = options();
    options.registry_writes_need_token = true;
    let r = start_with(options).await;
    for (method, path, body) in [
        ("POST", "/subjects/s/versions", first()),
        ("DELETE", "/subjects/s", Value::Null),
        ("PUT", "/config", json!({"compatibility": "NONE"})),
        ("PUT", "/mode", json!({"mode": "READONLY"})),
    ] {
        assert_eq!(
            failure(&r, method, path, body).await,
            (401, 40101),
            "{method} {path}"
        );
    }
    assert_eq!(get(&r, "/subjects").await, (200, json!([])));
    let request = r
        .post("/subjects/s/versions")
        .bearer_auth(TOKEN)
        .body(first().to_string());
    assert_eq!(request.send().await.unwrap().status(), 200);
    r.stop().await;
}
