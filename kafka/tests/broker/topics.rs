use std::time::Duration;

use rdkafka::consumer::Consumer as _;
use sovereign_kafka::{TopicSettings, ensure_topics, names};
use sovereign_schemas::Departments;

use crate::support::{kafka, plain_consumer};

#[tokio::test]
async fn topics_are_created_once_and_left_as_they_are() {
    let kafka = kafka();
    let departments = Departments::default();
    let first = ensure_topics(&kafka, &departments, &TopicSettings::default())
        .await
        .unwrap();
    assert_eq!(first.created.len(), 13);
    assert!(first.created.contains(&kafka.topic(names::RELAY)));
    let other = TopicSettings {
        partitions: 5,
        ..TopicSettings::default()
    };
    let second = ensure_topics(&kafka, &departments, &other).await.unwrap();
    assert_eq!((second.created.len(), second.existing.len()), (0, 13));
}

/// A broker learns of a topic a moment after the controller has created it, the later the more it
/// has to do: whoever looks as soon as the call returns must find all of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_are_shown_when_the_call_returns() {
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..6 {
        all.spawn(async {
            let kafka = kafka();
            ensure_topics(&kafka, &Departments::default(), &TopicSettings::default())
                .await
                .unwrap();
            let shown = tokio::task::spawn_blocking(move || {
                let found = plain_consumer(&kafka)
                    .fetch_metadata(None, Duration::from_secs(10))
                    .unwrap();
                let names = found.topics().iter().map(|topic| topic.name().to_owned());
                names.filter(|n| n.starts_with(&kafka.namespace)).count()
            });
            shown.await.unwrap()
        });
    }
    assert_eq!(all.join_all().await, [13; 6]);
}
