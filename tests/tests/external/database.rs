//! How Postgres can refuse, and what is said then.

use std::time::Instant;

use sovereign_tests::certificates::Flaw;

use crate::harness::Engine;
use crate::site::{
    BROKER_SECRET, DATABASE_SECRET, Expected, Site, WRONG_SECRET, Way, check, left_behind, site,
    wait,
};

struct Case {
    name: &'static str,
    url: String,
    exit: i32,
    code: &'static str,
    says: &'static str,
}

/// Refusals before anything is asked for.
fn no_entry(site: &Site) -> Vec<Case> {
    let main = site.main[0].as_str();
    let good = site.good_url(main);
    let case = |name, url, code, says| Case {
        name,
        url,
        exit: 5,
        code,
        says,
    };
    let own = site.authority.certificate.display().to_string();
    let other = site.stranger.certificate.display().to_string();
    vec![
        case(
            "unknown authority",
            good.replace(&own, &other),
            "tls-failed",
            "UnknownIssuer",
        ),
        case(
            "wrong password",
            site.url("sovereign", WRONG_SECRET, main),
            "database-auth",
            "password authentication failed",
        ),
        case(
            "unknown user",
            site.url("stranger", DATABASE_SECRET, main),
            "database-auth",
            "password authentication failed",
        ),
        case(
            "plain text",
            good.replace("verify-full", "disable"),
            "database-auth",
            "no encryption",
        ),
        Case {
            name: "no such database",
            url: site.good_url("nowhere"),
            exit: 2,
            code: "invalid-config",
            says: "does not exist",
        },
    ]
}

/// Runs every command that reaches for the database.
fn all_refuse(site: &Site, case: &Case) {
    let address = format!("127.0.0.1:{}", site.postgres.port());
    let expected = Expected {
        exit: case.exit,
        code: case.code,
        says: &[&address, case.says],
    };
    let engine = Engine::new("refused");
    let properties = site.properties("sovereign", BROKER_SECRET);
    let way = Way {
        database: case.url.clone(),
        keys_database: site.good_url(&site.main[1]),
        brokers: site.kafka.listener("GOOD"),
        properties: site.properties_file(&properties),
        one_topic_more: false,
    };
    let since = Instant::now();
    let done = way.up(&engine);
    check(case.name, &engine, &done, since, &expected);
    assert_eq!(
        engine.run(&["status"]).code,
        5,
        "{}: nothing is left running",
        case.name
    );
    drop(engine);
    let engine = left_behind(&case.url, &way.brokers, &properties);
    for command in [
        &["verify", "--json"][..],
        &["log", "--json"],
        &["export", "/dev/null/never", "--json"],
    ] {
        let since = Instant::now();
        check(case.name, &engine, &engine.run(command), since, &expected);
    }
}

#[test]
fn up_and_commands_say_how_the_database_refused() {
    let site = site();
    for case in no_entry(&site) {
        all_refuse(&site, &case);
    }
    for (name, flaw, says) in [
        ("expired-database", Flaw::Expired, "expired"),
        ("other-database", Flaw::OtherHost, "not valid for name"),
    ] {
        let pair = site.authority.server(name, flaw).unwrap();
        wait(site.postgres.show(&pair)).unwrap();
        let case = Case {
            name,
            url: site.good_url(&site.main[0]),
            exit: 5,
            code: "tls-failed",
            says,
        };
        all_refuse(&site, &case);
    }
    wait(site.postgres.show(&site.good)).unwrap();
}

#[test]
fn missing_rights_in_the_database_are_named() {
    let site = site();
    let properties = site.properties("sovereign", BROKER_SECRET);
    let properties = site.properties_file(&properties);
    let way = |database: String| Way {
        database,
        keys_database: site.good_url(&site.main[1]),
        brokers: site.kafka.listener("GOOD"),
        properties: properties.clone(),
        one_topic_more: false,
    };
    let address = format!("127.0.0.1:{}", site.postgres.port());
    // may connect, and make nothing
    let fresh = site.database();
    let no_create = way(site.url("guest", DATABASE_SECRET, &fresh));
    // all is there, and the role may only read it
    let made = site.database();
    let engine = Engine::new("maker");
    // on topics that hold another ledger's events this ends at the relay, after the migrations
    let _ = way(site.good_url(&made)).up(&engine);
    drop(engine);
    let grant = "grant usage on schema ledger, views to reader; \
        grant select on all tables in schema ledger, views to reader";
    wait(site.postgres.sql(&made, grant)).unwrap();
    let read_only = way(site.url("reader", DATABASE_SECRET, &made));
    // the owner, in a database that takes no writes
    let frozen = site.database();
    let sql = format!("alter database {frozen} set default_transaction_read_only = on");
    wait(site.postgres.sql("postgres", &sql)).unwrap();
    let frozen = way(site.good_url(&frozen));
    for (name, way, says) in [
        ("no right to create", no_create, "permission denied"),
        ("only rights to read", read_only, "permission denied"),
        ("read-only database", frozen, "read-only transaction"),
    ] {
        let engine = Engine::new("refused");
        let since = Instant::now();
        let done = way.up(&engine);
        let expected = Expected {
            exit: 1,
            code: "missing-rights",
            says: &[&address, says],
        };
        check(name, &engine, &done, since, &expected);
        assert_eq!(
            engine.run(&["status"]).code,
            5,
            "{name}: nothing is left running"
        );
    }
}
