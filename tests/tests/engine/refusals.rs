//! Bad input: a stable code, what was wrong, where; the others go on; nothing half done.

use serde_json::{Value, json};

use crate::harness::{bar, register, small, thought};

/// A line, the code that answers it, and the field that is named.
type Case = (Vec<u8>, &'static str, &'static str);

fn case(line: &Value, code: &'static str, field: &'static str) -> Case {
    (line.to_string().into_bytes(), code, field)
}

fn with(mut command: Value, field: &str, value: Value) -> Value {
    command[field] = value;
    command
}

fn with_data(mut command: Value, field: &str, value: Value) -> Value {
    command["data"][field] = value;
    command
}

fn unknown_things() -> Vec<Case> {
    let command = || register("picky");
    vec![
        case(
            &with(command(), "aggregate", json!("robot")),
            "unknown-aggregate",
            "aggregate",
        ),
        case(
            &with(command(), "command", json!("fly")),
            "unknown-command",
            "command",
        ),
        case(
            &with(command(), "department", json!("kitchen")),
            "unknown-department",
            "department",
        ),
        case(
            &with(command(), "department", json!(99)),
            "unknown-department",
            "department",
        ),
        case(
            &with(command(), "colour", json!("red")),
            "unknown-field",
            "colour",
        ),
        case(
            &with_data(command(), "colour", json!("red")),
            "unknown-field",
            "data.colour",
        ),
        case(
            &with(command(), "data", json!({})),
            "missing-field",
            "data.role",
        ),
        case(
            &json!({ "aggregate": "agent", "command": "register" }),
            "missing-field",
            "id",
        ),
        case(
            &json!({ "id": "picky", "command": "register" }),
            "missing-field",
            "aggregate",
        ),
    ]
}

fn wrong_types() -> Vec<Case> {
    let command = || register("picky");
    vec![
        case(&with(command(), "id", json!(5)), "wrong-type", "id"),
        case(
            &with(command(), "department", json!(true)),
            "wrong-type",
            "department",
        ),
        case(&with(command(), "data", json!([1])), "wrong-type", "data"),
        case(
            &with(command(), "data", json!("role")),
            "wrong-type",
            "data",
        ),
        case(
            &with_data(command(), "role", json!(7)),
            "wrong-type",
            "data.role",
        ),
        case(
            &with(command(), "command_id", json!(7)),
            "wrong-type",
            "command_id",
        ),
        case(
            &with_data(thought("picky", ""), "text", json!(["x"])),
            "wrong-type",
            "data.text",
        ),
        case(
            &with_data(bar("picky", 1), "open", json!(["1"])),
            "wrong-type",
            "data.open",
        ),
        case(
            &with_data(bar("picky", 1), "opened_at", json!("soon")),
            "wrong-type",
            "data.opened_at",
        ),
    ]
}

fn bad_amounts() -> Vec<Case> {
    let open = |value: Value| with_data(bar("picky", 1), "open", value);
    let not_a_number = bar("picky", 1).to_string().replace("\"100.25\"", "NaN");
    vec![
        case(&open(json!("NaN")), "invalid-amount", "data.open"),
        case(&open(json!("9".repeat(40))), "invalid-amount", "data.open"),
        case(&open(json!("1.0000000001")), "invalid-amount", "data.open"),
        case(&open(json!("1e400")), "invalid-amount", "data.open"),
        case(&open(json!("")), "invalid-amount", "data.open"),
        (not_a_number.into_bytes(), "malformed-json", ""),
    ]
}

fn bad_texts() -> Vec<Case> {
    let long_id = "x".repeat(10_000);
    vec![
        case(&thought("picky", "with \0 inside"), "invalid-text", "data"),
        case(&thought("picky", &"w".repeat(2 << 20)), "line-too-long", ""),
        case(
            &thought("picky", &"w".repeat((2 << 20) - 1_000)),
            "text-too-long",
            "data",
        ),
        case(
            &with(register("picky"), "id", json!(long_id)),
            "invalid-id",
            "id",
        ),
        case(
            &with(register("picky"), "id", json!("a\0b")),
            "invalid-id",
            "id",
        ),
        case(
            &with(register("picky"), "id", json!("")),
            "invalid-id",
            "id",
        ),
        case(
            &with(register("picky"), "id", json!("two words")),
            "invalid-id",
            "id",
        ),
        case(
            &with(register("picky"), "actor", json!(long_id)),
            "invalid-id",
            "actor",
        ),
        case(
            &with(register("picky"), "command_id", json!(long_id)),
            "invalid-id",
            "command_id",
        ),
        case(
            &with_data(register("picky"), "role", json!(long_id)),
            "invalid-id",
            "data.role",
        ),
    ]
}

fn broken_lines() -> Vec<Case> {
    let lines: [&[u8]; 9] = [
        b"hello",
        b"{\"aggregate\":\"agent\",\"id\":\"pic",
        b"{\"aggregate\":\"agent\"} trailing",
        b"[1,2]",
        b"null",
        b"\"text\"",
        b"\x00\x01\x02\xff\xfe",
        b"{\"aggregate\":\"agent\",\"id\":\"\xc3\x28\"}",
        b"{'aggregate':'agent'}",
    ];
    let mut cases: Vec<Case> = lines
        .iter()
        .map(|line| (line.to_vec(), "malformed-json", ""))
        .collect();
    cases.push(("[".repeat(100_000).into_bytes(), "malformed-json", ""));
    cases
}

#[test]
fn negative_and_contradictory_amounts_are_refused() {
    let engine = small();
    engine.send(register("picky").to_string().as_bytes());
    let before = engine.head();
    let price = |field: &str, value: &str| with_data(bar("picky", 999), field, json!(value));
    let cases = [
        (price("open", "-1"), "invalid-amount", "data.open"),
        (price("open", "0"), "invalid-amount", "data.open"),
        (price("volume", "-1"), "invalid-amount", "data.volume"),
    ];
    let lines: Vec<String> = cases.iter().map(|(line, ..)| line.to_string()).collect();
    let (code, outcomes) = engine.send(lines.join("\n").as_bytes());
    assert_ne!(code, 0);
    assert_eq!(outcomes.len(), cases.len());
    for ((_, code, field), outcome) in cases.iter().zip(&outcomes) {
        assert_eq!(outcome["error"]["code"], *code, "{outcome}");
        assert_eq!(outcome["error"]["field"], *field, "{outcome}");
    }
    assert_eq!(engine.head(), before);
}

#[test]
fn bad_lines_are_named_and_the_others_go_on() {
    let engine = small();
    let (_, known) = engine.send(register("picky").to_string().as_bytes());
    assert_eq!(known[0]["status"], "accepted", "{known:?}");
    let before = engine.head();
    let cases: Vec<Case> = [
        unknown_things(),
        wrong_types(),
        bad_amounts(),
        bad_texts(),
        broken_lines(),
    ]
    .concat();
    // a good line before and after each bad one
    let mut input = Vec::new();
    for (index, (line, ..)) in cases.iter().enumerate() {
        let good = bar("picky", 2 * index as u64).to_string();
        for line in [good.as_bytes(), line.as_slice()] {
            input.extend_from_slice(line);
            input.push(b'\n');
        }
    }
    let (code, outcomes) = engine.send(&input);
    assert_eq!(code, 2);
    assert_eq!(outcomes.len(), 2 * cases.len());
    let mut wrong = Vec::new();
    for (index, (line, code, field)) in cases.iter().enumerate() {
        let (good, bad) = (&outcomes[2 * index], &outcomes[2 * index + 1]);
        assert_eq!(good["status"], "accepted", "{good}");
        assert_eq!(good["positions"][0], before + 1 + index as u64);
        let error = &bad["error"];
        let found = error["field"].as_str().unwrap_or("");
        let line_number = error["line"].as_u64();
        // everything but the id, by which the caller knows it
        let mut bounded = bad.clone();
        bounded["command_id"].take();
        if bad["status"] != "invalid"
            || error["code"] != *code
            || found != *field
            || line_number != Some(2 * index as u64 + 2)
            || !bad["positions"].is_null()
            || bounded.to_string().len() > 2_000
        {
            let start = String::from_utf8_lossy(&line[..line.len().min(120)]).into_owned();
            wrong.push(format!(
                "{start}\n  expected {code} at {field:?}, found {bad}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(
        engine.head(),
        before + cases.len() as u64,
        "nothing half done"
    );
}
