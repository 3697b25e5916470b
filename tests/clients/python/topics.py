"""All committed records of the department topics, once, up to where each partition ends now."""

import time
import uuid
from collections.abc import Iterator

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Message, TopicPartition

WAIT_S = 30


def partitions(consumer: Consumer, prefix: str = "dept.") -> list[TopicPartition]:
    """Every partition of every department topic, to be read from its first offset."""
    topics = consumer.list_topics(timeout=WAIT_S).topics.values()
    return [
        TopicPartition(topic.topic, number, OFFSET_BEGINNING)
        for topic in topics
        if topic.topic.startswith(prefix)
        for number in topic.partitions
    ]


def committed(brokers: str) -> Iterator[Message]:
    """Yields each record below the end that a read-committed consumer sees."""
    consumer = Consumer(
        {
            "bootstrap.servers": brokers,
            "group.id": f"reader-{uuid.uuid4()}",  # asked for by the library, never joined
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        }
    )
    try:
        waiting = partitions(consumer)
        if not waiting:
            raise SystemExit(f"no topic dept.* at {brokers}")
        consumer.assign(waiting)
        open_ends = {(p.topic, p.partition) for p in waiting}
        heard = time.monotonic()
        while open_ends:
            # waits for a full batch, so a short wait: the last one is never full
            for message in consumer.consume(1000, 0.2):
                heard = time.monotonic()
                error = message.error()
                if error is None:
                    yield message
                elif error.code() == KafkaError._PARTITION_EOF:
                    open_ends.discard((message.topic(), message.partition()))
                else:
                    raise SystemExit(f"{message.topic()}: {error}")
            if time.monotonic() - heard > WAIT_S:
                raise SystemExit(f"nothing came for {WAIT_S} s; unread: {sorted(open_ends)}")
    finally:
        consumer.close()
