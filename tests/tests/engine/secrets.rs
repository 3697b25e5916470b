//! What must not be readable anywhere on the disk.

use std::path::Path;

use serde_json::json;

use crate::harness::{register, small, thought};

/// Public examples of secrets, in words, and what becomes of them.
const SECRETS: &[(&str, &str, &str)] = &[
    ("AKIAIOSFODNN7EXAMPLE", "key", "[API_KEY_REDACTED]"),
    (
        "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
        "wallet",
        "[WALLET_ADDRESS_REDACTED]",
    ),
    (
        "legal winner thank year wave sausage worth useful legal winner thank yellow",
        "phrase",
        "[SEED_PHRASE_REDACTED]",
    ),
    ("203.0.113.77", "host", "[IP_ADDRESS_REDACTED]"),
];
/// Words that are no secret, and sealed nevertheless.
const PRIVATE: &str = "the quartz zebra sells at dawn";

/// Files below the folder that hold one of the needles, and the number of bytes looked at.
fn search(folder: &Path, needles: &[&str], found: &mut Vec<String>) -> u64 {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        if kind.is_dir() {
            bytes += search(&path, needles, found);
        } else if kind.is_file() {
            // a file of Postgres may go while we look
            let Ok(content) = std::fs::read(&path) else {
                continue;
            };
            bytes += content.len() as u64;
            for needle in needles {
                let hit = memchr::memmem::find(&content, needle.as_bytes()).is_some();
                if hit {
                    found.push(format!("{needle} in {}", path.display()));
                }
            }
        }
    }
    bytes
}

#[test]
fn secrets_are_redacted_and_texts_are_sealed_everywhere_on_disk() {
    let engine = small();
    let from = (engine.head() + 1).to_string();
    let mut commands = vec![register("marked-agent")];
    for (secret, what, _) in SECRETS {
        commands.push(thought(
            "marked-agent",
            &format!("my {what} {secret} leaked"),
        ));
    }
    commands.push(thought("marked-agent", PRIVATE));
    engine.send_all(&commands);
    engine.settle();

    let shown = engine.run(&["log", "--json", "--from", &from]).ok().lines();
    for ((_, what, label), event) in SECRETS.iter().zip(&shown[1..]) {
        assert_eq!(event["data"]["text"], format!("my {what} {label} leaked"));
    }
    assert_eq!(
        shown.last().unwrap()["data"]["text"],
        PRIVATE,
        "plain prose passes unchanged"
    );

    // tables, write-ahead log, segments of the topics, logs
    engine.psql("checkpoint");
    let secrets: Vec<&str> = SECRETS
        .iter()
        .map(|(secret, ..)| *secret)
        .chain([PRIVATE])
        .collect();
    let mut found = Vec::new();
    let bytes = search(&engine.data, &secrets, &mut found);
    assert_eq!(found, Vec::<String>::new());
    assert!(bytes > 20 << 20, "only {bytes} bytes were looked at");
    // this search would have found them: ids lie open in both stores
    let mut open = Vec::new();
    search(&engine.data, &["marked-agent"], &mut open);
    for store in [
        "/postgres/data/base/",
        "/postgres/data/pg_wal/",
        "/kafka/data/dept.",
    ] {
        assert!(
            open.iter().any(|hit| hit.contains(store)),
            "{store}: {open:?}"
        );
    }
}

#[test]
fn ids_that_look_like_secrets_are_refused_and_not_repeated() {
    let engine = small();
    let head = engine.head();
    let mut input = Vec::new();
    for secret in [
        "AKIAIOSFODNN7EXAMPLE",
        "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
    ] {
        input.push(register(secret));
        let mut as_role = register("innocent");
        as_role["data"]["role"] = json!(secret);
        input.push(as_role);
        let mut as_actor = register("innocent");
        as_actor["actor"] = json!(secret);
        input.push(as_actor);
    }
    let lines: Vec<String> = input.iter().map(ToString::to_string).collect();
    let (code, outcomes) = engine.send(lines.join("\n").as_bytes());
    assert_eq!(code, 4);
    for (outcome, field) in outcomes
        .iter()
        .zip(["id", "data.role", "actor"].iter().cycle())
    {
        assert_eq!(outcome["status"], "refused", "{outcome}");
        assert_eq!(outcome["error"]["code"], "sensitive-identifier");
        assert_eq!(outcome["error"]["field"], *field);
        let text = outcome.to_string();
        assert!(!text.contains("AKIA") && !text.contains("5aAeb"), "{text}");
    }
    assert_eq!(engine.head(), head);
}

#[test]
fn the_key_of_a_subject_is_shown_to_the_owner_only() {
    let engine = small();
    let shown = engine.json(&["keys", "show", "--subject", "filler"]);
    assert_eq!(shown["key"].as_str().unwrap().len(), 64);
    let nobody = ["keys", "show", "--subject", "nobody-at-all", "--json"];
    engine.run(&nobody).fails(4, "key-missing");
    for file in ["master.key", "api.token", "tokens.key", "engine.json"] {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(engine.data.join(file))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o077, 0, "{file} is for its owner only");
    }
}
