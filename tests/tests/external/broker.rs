//! How a broker can refuse, and what is said then.

use std::collections::BTreeMap;
use std::time::Instant;

use sovereign_kafka::{KafkaOptions, Start, Subscription, SubscriptionError};

use crate::harness::Engine;
use crate::site::{
    BROKER_SECRET, Expected, LIMIT, Site, WRONG_SECRET, Way, check, left_behind, site, wait,
};

struct Case {
    name: &'static str,
    listener: &'static str,
    properties: BTreeMap<String, String>,
    exit: i32,
    code: &'static str,
    says: &'static str,
}

/// Refusals before anything is asked for.
fn no_entry(site: &Site) -> Vec<Case> {
    let good = || site.properties("sovereign", BROKER_SECRET);
    let with = |name: &str, value: &str| {
        let mut properties = good();
        properties.insert(name.to_owned(), value.to_owned());
        properties
    };
    let stranger = site.stranger.certificate.display().to_string();
    let plain = BTreeMap::new();
    let case = |name, listener, properties, code, says| Case {
        name,
        listener,
        properties,
        exit: 5,
        code,
        says,
    };
    let unknown = site.properties("nobody-knows", BROKER_SECRET);
    vec![
        case(
            "expired certificate",
            "EXPIRED",
            good(),
            "tls-failed",
            "has expired",
        ),
        case(
            "other host",
            "OTHER",
            good(),
            "tls-failed",
            "is for another host name",
        ),
        case(
            "unknown authority",
            "GOOD",
            with("ssl.ca.location", &stranger),
            "tls-failed",
            "signed by an authority",
        ),
        case(
            "wrong password",
            "GOOD",
            with("sasl.password", WRONG_SECRET),
            "broker-auth",
            "credentials",
        ),
        case(
            "unknown user",
            "GOOD",
            unknown,
            "broker-auth",
            "credentials",
        ),
        case(
            "other mechanism",
            "GOOD",
            with("sasl.mechanism", "PLAIN"),
            "broker-auth",
            "PLAIN",
        ),
        case(
            "plain text on a tls port",
            "GOOD",
            plain,
            "broker-unreachable",
            "security.protocol",
        ),
        case(
            "tls without login",
            "GOOD",
            with("security.protocol", "SSL"),
            "broker-unreachable",
            "security.protocol",
        ),
    ]
}

fn way(site: &Site, case: &Case) -> Way {
    Way {
        database: site.good_url(&site.main[0]),
        keys_database: site.good_url(&site.main[1]),
        brokers: site.kafka.listener(case.listener),
        properties: site.properties_file(&case.properties),
        one_topic_more: case.name == "no-create",
    }
}

/// The topics, made by one who may, so that only the right in question is missing.
fn make_topics(site: &Site) {
    let mut options = KafkaOptions::new(site.kafka.listener("GOOD"));
    options.properties = site.properties("sovereign", BROKER_SECRET);
    let departments = sovereign_schemas::Departments::default();
    let settings = sovereign_kafka::TopicSettings::default();
    wait(sovereign_kafka::ensure_topics(
        &options,
        &departments,
        &settings,
    ))
    .unwrap();
}

#[test]
fn who_may_not_create_topics_uses_those_that_are_there() {
    let site = site();
    make_topics(&site);
    let engine = Engine::new("external");
    let properties = site.properties("no-create", BROKER_SECRET);
    let way = Way {
        database: site.good_url(&site.main[0]),
        keys_database: site.good_url(&site.main[1]),
        brokers: site.kafka.listener("GOOD"),
        properties: site.properties_file(&properties),
        one_topic_more: false,
    };
    way.up(&engine).ok();
    engine.settle();
}

#[test]
fn up_says_how_the_broker_refused() {
    let site = site();
    let mut cases = no_entry(&site);
    for (name, says) in [
        ("no-create", "create topic dept.never-made"),
        ("no-write", "Topic authorization failed"),
        ("no-transactions", "Transactional Id authorization failed"),
    ] {
        cases.push(Case {
            name,
            listener: "GOOD",
            properties: site.properties(name, BROKER_SECRET),
            exit: 1,
            code: "missing-rights",
            says,
        });
    }
    make_topics(&site);
    for case in cases {
        let engine = Engine::new("refused");
        let since = Instant::now();
        let way = way(&site, &case);
        let done = way.up(&engine);
        let address = site.kafka.listener(case.listener);
        let expected = Expected {
            exit: case.exit,
            code: case.code,
            says: &[&address, case.says],
        };
        check(case.name, &engine, &done, since, &expected);
        assert_eq!(
            engine.run(&["status"]).code,
            5,
            "{}: nothing is left running",
            case.name
        );
    }
}

#[test]
fn commands_say_how_the_broker_refused() {
    let site = site();
    let url = site.good_url(&site.main[0]);
    for case in no_entry(&site) {
        let address = site.kafka.listener(case.listener);
        let engine = left_behind(&url, &address, &case.properties);
        let expected = Expected {
            exit: case.exit,
            code: case.code,
            says: &[&address, case.says],
        };
        for command in [
            &["verify", "--source", "kafka", "--json"][..],
            &["replay", "--source", "kafka", "--json"],
        ] {
            let since = Instant::now();
            let done = engine.run(command);
            check(case.name, &engine, &done, since, &expected);
        }
    }
}

/// An application without the right to its group.
#[test]
fn a_subscription_says_that_its_group_is_not_allowed() {
    let site = site();
    let mut options = KafkaOptions::new(site.kafka.listener("GOOD"));
    let subscribe = |options: KafkaOptions| async move {
        let opened = Subscription::builder(options)
            .group("sovereign.audit")
            .start(Start::Beginning)
            .open();
        match opened.await {
            Ok(mut events) => match events.next().await {
                Ok(_) => None,
                Err(SubscriptionError::Kafka(error)) => Some(error),
                Err(other) => panic!("{other}"),
            },
            Err(error) => Some(error),
        }
    };
    make_topics(&site);
    options.properties = site.properties("sovereign", BROKER_SECRET);
    for (user, says) in [
        ("no-group", "GroupAuthorizationFailed"),
        ("no-read", "TopicAuthorizationFailed"),
    ] {
        if user == "no-read" && wait(empty(&options)) {
            continue;
        }
        options.properties = site.properties(user, BROKER_SECRET);
        let since = Instant::now();
        let limited = async { tokio::time::timeout(LIMIT, subscribe(options.clone())).await };
        let error = wait(limited).expect("in time").expect("refused");
        println!("{user}: {} ms {error}", since.elapsed().as_millis());
        assert_eq!(error.code().as_str(), "missing-rights", "{error}");
        assert!(error.to_string().contains(says), "{error}");
    }
}

/// Nothing is read from topics without events, so nothing is refused there.
async fn empty(options: &KafkaOptions) -> bool {
    let departments = sovereign_schemas::Departments::default();
    let log = sovereign_kafka::KafkaLog::new(options.clone(), departments);
    log.end().await.unwrap().0 == 0
}
