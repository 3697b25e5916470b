//! The house rules of docs/ARCHITECTURE.md, held to the code. A rule that cannot run fails.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use cargo_metadata::{Dependency, DependencyKind, Metadata, MetadataCommand, Package};

/// The drawing: rooms from the ground up. An arrow may only point to a lower number.
const LAYERS: &[(&str, u8)] = &[
    ("sovereign-admission", 0),
    ("sovereign-librdkafka", 0),
    ("sovereign-passkeys", 0),
    ("sovereign-schemas", 1),
    ("sovereign-effects", 2),
    ("sovereign-aggregates", 3),
    ("sovereign-approval-proof", 4),
    ("sovereign-guard", 3),
    ("sovereign-servers", 3),
    ("sovereign-event-store", 4),
    ("sovereign-sinks", 4),
    ("sovereign-kafka", 5),
    ("sovereign-projections", 5),
    ("sovereign-agents", 6),
    ("sovereign-jobs", 6),
    ("sovereign-replay", 6),
    ("sovereign-console", 6),
    ("sovereign-cli", 7),
    ("sovereign-tests", 8),
];

fn root() -> PathBuf {
    sovereign_tests::root().to_owned()
}

fn metadata() -> Metadata {
    MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        // what other platforms need is not fetched by a build, and never shipped
        .other_options(
            ["--locked", "--offline", "--filter-platform", env!("TARGET")].map(str::to_owned),
        )
        .exec()
        .expect("cargo metadata must run: without it no house rule is checked")
}

fn rooms(metadata: &Metadata) -> Vec<&Package> {
    metadata.workspace_packages()
}

#[test]
fn arrows_point_down_only() {
    let layers: BTreeMap<&str, u8> = LAYERS.iter().copied().collect();
    let metadata = metadata();
    let rooms = rooms(&metadata);
    assert_eq!(
        rooms
            .iter()
            .map(|p| p.name.as_str())
            .collect::<BTreeSet<_>>(),
        layers.keys().copied().collect(),
        "every room stands in the drawing, and the drawing has no empty room"
    );
    for room in rooms {
        for dependency in room
            .dependencies
            .iter()
            .filter(|d| d.kind != DependencyKind::Development)
        {
            if let Some(below) = layers.get(dependency.name.as_str()) {
                let above = layers[room.name.as_str()];
                assert!(
                    *below < above,
                    "{} must not use {}",
                    room.name,
                    dependency.name
                );
            }
        }
    }
}

#[test]
fn heavy_dependencies_stay_in_their_rooms() {
    let text = std::fs::read_to_string(root().join("deny.toml")).unwrap();
    let deny: toml::Value = toml::from_str(&text).unwrap();
    let rules = deny["bans"]["deny"].as_array().unwrap();
    assert!(rules.len() >= 8, "deny.toml lost its wrappers");
    let metadata = metadata();
    for rule in rules {
        let name = rule["crate"].as_str().unwrap();
        let Some(wrappers) = rule.get("wrappers").and_then(toml::Value::as_array) else {
            let found = metadata.packages.iter().any(|p| p.name.as_str() == name);
            assert!(!found || !is_used(&metadata, name), "{name} is banned");
            continue;
        };
        let allowed: BTreeSet<&str> = wrappers.iter().map(|w| w.as_str().unwrap()).collect();
        for room in rooms(&metadata) {
            let uses = room
                .dependencies
                .iter()
                .any(|d| d.name == name && d.kind != DependencyKind::Development);
            assert!(
                !uses || allowed.contains(room.name.as_str()),
                "{} names {name}; only {allowed:?} may",
                room.name
            );
        }
    }
}

/// An authenticator in software signs what nobody saw: only tests and tools for tests may have it.
#[test]
fn no_room_of_the_product_has_an_authenticator_in_software() {
    let metadata = metadata();
    let mut seen = 0;
    for room in rooms(&metadata) {
        let passkeys = |d: &&Dependency| d.name == "sovereign-passkeys";
        for dependency in room.dependencies.iter().filter(passkeys) {
            seen += 1;
            let soft = dependency.features.iter().any(|f| f == "soft");
            let for_tests =
                dependency.kind == DependencyKind::Development || room.name == "sovereign-tests";
            assert!(!soft || for_tests, "{} turns on `soft`", room.name);
        }
    }
    assert!(seen >= 3, "the rule lost what it looks at");
}

/// Whether the package is in the resolved graph (Cargo.lock also lists optional ones).
fn is_used(metadata: &Metadata, name: &str) -> bool {
    let resolve = metadata.resolve.as_ref().expect("cargo resolves the graph");
    let id_of = |p: &&Package| p.name.as_str() == name;
    let ids: Vec<_> = metadata
        .packages
        .iter()
        .filter(id_of)
        .map(|p| &p.id)
        .collect();
    resolve
        .nodes
        .iter()
        .any(|n| n.deps.iter().any(|d| ids.contains(&&d.pkg)))
}

#[test]
fn every_licence_is_allowed() {
    let text = std::fs::read_to_string(root().join("deny.toml")).unwrap();
    let deny: toml::Value = toml::from_str(&text).unwrap();
    let allowed: BTreeSet<&str> = deny["licenses"]["allow"]
        .as_array()
        .unwrap()
        .iter()
        .map(|l| l.as_str().unwrap())
        .collect();
    for package in metadata().packages {
        let licence = package.license.clone().unwrap_or_default();
        // a choice (OR, or the older slash) needs one allowed side, a conjunction needs both
        let choice = licence.replace('/', " OR ").replace(['(', ')'], "");
        let fine = choice
            .split(" OR ")
            .any(|side| side.split(" AND ").all(|l| allowed.contains(l.trim())));
        assert!(
            fine,
            "{} {} has licence {licence:?}",
            package.name, package.version
        );
    }
}

fn sources() -> Vec<PathBuf> {
    let listed = std::process::Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .expect("git must run: without it no house rule is checked");
    assert!(listed.status.success(), "git ls-files failed");
    let text = String::from_utf8(listed.stdout).unwrap();
    let files: Vec<PathBuf> = text.lines().map(|l| root().join(l)).collect();
    assert!(files.len() > 50, "git lists the sources");
    files
}

#[test]
fn rust_files_stay_short_and_finished() {
    for file in sources()
        .into_iter()
        .filter(|f| f.extension().is_some_and(|e| e == "rs"))
    {
        let Ok(text) = std::fs::read_to_string(&file) else {
            continue;
        };
        let lines = text.lines().count();
        assert!(
            lines <= 700,
            "{} has {lines} lines; split it",
            file.display()
        );
        if file.ends_with("house.rs") {
            continue;
        }
        for stub in ["todo!(", "unimplemented!(", "FIXME", "#[ignore"] {
            assert!(!text.contains(stub), "{} contains {stub}", file.display());
        }
    }
}

#[test]
fn every_error_code_has_its_page() {
    for code in sovereign_schemas::ErrorCode::ALL {
        let page = root().join(format!("docs/errors/{code}.md"));
        let text = std::fs::read_to_string(&page)
            .unwrap_or_else(|_| panic!("{} is missing", page.display()));
        for part in [code.as_str(), "## What happened", "## What to do"] {
            assert!(
                text.contains(part),
                "{}: {part:?} is missing",
                page.display()
            );
        }
    }
}
