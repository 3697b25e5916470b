use sovereign_kafka::{TopicSettings, ensure_topics, names};
use sovereign_schemas::Departments;

use crate::support::kafka;

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
