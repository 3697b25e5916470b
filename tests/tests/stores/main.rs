//! One behaviour suite for stores of events, run against memory, the stock `postgres-es`, and the
//! ledger: through `cqrs-es`'s own store trait, and through its command port.
//!
//! `SOVEREIGN_TEST_DATABASE` names a server; `SOVEREIGN_BLESS=1` writes docs/CONTRACT.md anew.

#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_methods)]

#[path = "../../../event-store/tests/common/mod.rs"]
mod common;
mod facts;
mod store;
mod table;

use facts::Fact;
use store::{Kind, Store};
use table::{Expected, expected};

/// Runs every fact on a fresh store and holds what comes out to the table: a fact that holds where
/// the table says it cannot is a failure too, so that a new version of a peer is noticed.
async fn hold<S: Store>(kind: Kind) {
    let mut wrong = Vec::new();
    for fact in Fact::ALL {
        let wanted = expected(*fact, kind);
        if let Expected::Absent(_) = wanted {
            continue;
        }
        let store = S::fresh().await;
        let found = facts::run(*fact, &store).await;
        store.remove().await;
        let told = match (&wanted, &found) {
            (Expected::Holds, Ok(())) => continue,
            (Expected::Fails { how, .. }, Err(broken)) if broken.how == *how => continue,
            (Expected::Holds, Err(broken)) => format!("broken: {}, {}", broken.how, broken.detail),
            (_, Ok(())) => "holds now; correct the table and docs/CONTRACT.md".to_owned(),
            (_, Err(broken)) => {
                format!("broken in another way: {}, {}", broken.how, broken.detail)
            }
        };
        wrong.push(format!("{}: {told}", fact.sentence()));
    }
    assert!(wrong.is_empty(), "{kind:?}:\n{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn memory_keeps_what_the_table_says() {
    hold::<store::Memory>(Kind::Memory).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn stock_postgres_es_keeps_what_the_table_says() {
    hold::<store::Stock>(Kind::Stock).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_ledger_behind_cqrs_es_keeps_what_the_table_says() {
    hold::<store::LedgerStore>(Kind::Cqrs).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_ledger_behind_its_command_port_keeps_what_the_table_says() {
    hold::<store::LedgerPort>(Kind::Port).await;
}

#[test]
fn the_page_says_what_the_table_says() {
    let path = &sovereign_tests::root().join("docs/CONTRACT.md");
    let page = table::page();
    if std::env::var_os("SOVEREIGN_BLESS").is_some() {
        std::fs::write(path, page).unwrap();
        return;
    }
    let found = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        found == page,
        "docs/CONTRACT.md is not what the table gives; run this test with SOVEREIGN_BLESS=1"
    );
}
