//! What is no source of an import, and what nobody outside may claim to have imported.

use serde_json::json;

use crate::harness::sturdy;
use crate::import::{Source, TABLE, import};

#[test]
fn a_source_that_is_none_is_told_by_code_and_writes_nothing() {
    let engine = sturdy();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let source = runtime.block_on(async {
        let source = Source::create(&engine, "stock_none").await;
        source
            .sql("create table short (aggregate_type text, aggregate_id text)")
            .await;
        source
            .sql(&format!(
                "create table texts {}",
                TABLE.replace("json", "text")
            ))
            .await;
        source.table().await;
        source
    });
    let head = engine.head();
    let fails = |url: &str, args: &[&str], exit: i32, code: &str| {
        let own = ["import", "postgres-es", "--json", "--database", url];
        let done = engine.run(&[&own[..], args].concat());
        let problem = done.fails(exit, code);
        assert!(!done.stderr.contains("hunter2"), "{problem}");
    };
    let url = source.url.as_str();
    fails(url, &["--table", "nothing"], 2, "invalid-source");
    fails(url, &["--table", "short"], 2, "invalid-source");
    fails(url, &["--table", "texts"], 2, "invalid-source");
    fails(url, &["--table", "a\"b.c"], 2, "invalid-source");
    fails(
        url,
        &["--table", "events; drop table events"],
        2,
        "invalid-source",
    );
    fails(url, &["--department", "nobody"], 2, "unknown-department");
    fails("nonsense", &[], 2, "invalid-config");
    fails(
        &url.replace("stock_none", "missing_db"),
        &[],
        2,
        "invalid-config",
    );
    fails(
        "postgres://u:hunter2@127.0.0.1:1/x",
        &[],
        5,
        "database-unreachable",
    );
    let (server, _) = url.split_once('@').unwrap();
    let (scheme, login) = server.split_once("://").unwrap();
    let user = login.split(':').next().unwrap();
    let other = url.replacen(server, &format!("{scheme}://{user}:hunter2"), 1);
    fails(&other, &[], 5, "database-auth");
    // nothing in it is nothing to do
    let (code, empty) = import(&engine, &source, &[]);
    assert_eq!((code, &empty["rows"]), (0, &0.into()));
    assert_eq!(engine.head(), head);
    // nobody outside can take the name of imports, nor send what was decided elsewhere
    for line in [
        json!({"aggregate": "agent", "id": "sly", "command": "register", "data": {"role": "r"},
            "actor": "sovereign:import"}),
        json!({"aggregate": "agent", "id": "sly", "command": "recorded", "data": []}),
        json!({"aggregate": "imported", "id": "sly", "command": "recorded", "data": []}),
    ] {
        let (code, outcomes) = engine.send(line.to_string().as_bytes());
        assert_eq!(
            (code, &outcomes[0]["status"]),
            (2, &"invalid".into()),
            "{outcomes:?}"
        );
    }
    assert_eq!(engine.head(), head);
}
