"""Reads all department topics with stock clients and checks what a consumer may rely on:
positions are exactly 1 to head, once each, they grow in each partition, and every value decodes.

python consume.py --brokers HOST:PORT --registry URL --head N
"""

import argparse
import io
import json
import sys
from collections import Counter

import fastavro
from confluent_kafka.schema_registry import SchemaRegistryClient

from topics import committed


class Values:
    """Decodes Confluent's wire format with the schemas of the registry."""

    def __init__(self, registry: str) -> None:
        self.client = SchemaRegistryClient({"url": registry})
        self.schemas: dict[int, object] = {}

    def decode(self, value: bytes) -> dict:
        if len(value) < 5 or value[0] != 0:
            raise ValueError("no Confluent header in front of the value")
        schema_id = int.from_bytes(value[1:5], "big")
        if schema_id not in self.schemas:
            text = self.client.get_schema(schema_id).schema_str
            self.schemas[schema_id] = fastavro.parse_schema(json.loads(text))
        rest = io.BytesIO(value[5:])
        record = fastavro.schemaless_reader(rest, self.schemas[schema_id])
        if rest.read(1):
            raise ValueError("bytes are left over behind the value")
        return record


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--brokers", required=True)
    options.add_argument("--registry", required=True)
    options.add_argument("--head", required=True, type=int)
    args = options.parse_args()

    values = Values(args.registry)
    seen = bytearray(args.head + 1)
    last: dict[tuple[str, int], int] = {}
    per_topic: Counter[str] = Counter()
    per_type: Counter[str] = Counter()
    for message in committed(args.brokers):
        headers = dict(message.headers())
        position = int(headers["sovereign_position"])
        where = message.topic(), message.partition()
        if not 1 <= position <= args.head:
            sys.exit(f"position {position} is not in 1 to {args.head}")
        if seen[position]:
            sys.exit(f"position {position} came twice, now in {where}")
        if position <= last.get(where, 0):
            sys.exit(f"position {position} came after {last[where]} in {where}")
        try:
            values.decode(message.value())
        except Exception as error:  # any failure to decode is the finding
            sys.exit(f"position {position}: the value does not decode: {error}")
        seen[position] = 1
        last[where] = position
        per_topic[message.topic()] += 1
        per_type[headers["ce_type"].decode()] += 1
    missing = seen.find(0, 1)
    if missing != -1:
        sys.exit(f"position {missing} is missing; {sum(per_topic.values())} of {args.head} came")
    summary = {
        "events": sum(per_topic.values()),
        "head": args.head,
        "partitions": len(last),
        "schemas": len(values.schemas),
        "topics": dict(sorted(per_topic.items())),
        "types": dict(sorted(per_type.items())),
    }
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
