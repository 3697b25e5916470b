//! The topic whose partitions are the work.

use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::WorkOptions;
use crate::client::{Context, Error};
use crate::reach;

/// Creates it, or gives it the partitions that newer pieces of work need. It never shrinks.
pub(super) async fn ensure(options: &WorkOptions) -> Result<(), Error> {
    let context = Context::of(&options.kafka);
    let admin: AdminClient<Context> = options
        .kafka
        .config()?
        .create_with_context(context.clone())
        .map_err(|e| Error::kafka("admin client", &e))?;
    let topic = options.kafka.topic(&options.topic);
    let partitions = options.units.len();
    let count = i32::try_from(partitions).map_err(|e| Error::internal("units", e))?;
    let times = AdminOptions::new()
        .request_timeout(Some(options.topics.timeout))
        .operation_timeout(Some(options.topics.timeout));
    let new = NewTopic::new(
        &topic,
        count,
        TopicReplication::Fixed(options.topics.replication),
    );
    let what = format!("create topic {topic}");
    let made = admin.create_topics([&new], &times).await;
    match made.map_err(|e| context.explain(&what, &e))?.pop() {
        Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => {}
        // who may not create is told so also about a topic that is there
        Some(Err((_, code @ RDKafkaErrorCode::TopicAuthorizationFailed))) => {
            let refused = context.explain(&what, &KafkaError::AdminOp(code));
            return wide_enough(options, topic.clone(), refused).await;
        }
        Some(Err((_, code))) => {
            return Err(context.explain(&what, &KafkaError::AdminOp(code)));
        }
        _ => return Ok(()),
    }
    let grown = admin
        .create_partitions([&NewPartitions::new(&topic, partitions)], &times)
        .await;
    match grown.map_err(|e| context.explain(&what, &e))?.pop() {
        // it has as many, or more
        Some(Err((_, RDKafkaErrorCode::InvalidPartitions))) => Ok(()),
        Some(Err((_, code @ RDKafkaErrorCode::TopicAuthorizationFailed))) => {
            let refused = context.explain(&what, &KafkaError::AdminOp(code));
            wide_enough(options, topic.clone(), refused).await
        }
        Some(Err((_, code))) => Err(context.explain(&what, &KafkaError::AdminOp(code))),
        _ => Ok(()),
    }
}

/// A refusal does not matter if the topic has all partitions that we need.
async fn wide_enough(options: &WorkOptions, topic: String, refused: Error) -> Result<(), Error> {
    let (kafka, wanted) = (options.kafka.clone(), options.units.len());
    let found = tokio::task::spawn_blocking(move || reach::partitions(&kafka, &topic));
    let found = found.await.map_err(|e| Error::internal("metadata", e))??;
    if found < wanted { Err(refused) } else { Ok(()) }
}
