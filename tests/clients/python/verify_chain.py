"""Recomputes the hash chain of a Sovereign ledger from Kafka alone, or from a recorded file.

Written from docs/FORMATS.md and from nothing else, with its own reader of the header's bytes.
Prints one JSON line with the head's position and hash; exit 1 names what does not hold and where.

python verify_chain.py --brokers HOST:PORT [--registry URL] [--expect HASH]
python verify_chain.py --file FILE [--expect HASH]
"""

import argparse
import datetime
import hashlib
import heapq
import io
import json
import sys
from typing import NamedTuple
from uuid import UUID

import fastavro
from fastavro.schema import fingerprint, parse_schema, to_parsing_canonical_form

ZERO = bytes(32)


class Refused(Exception):
    """Something does not hold."""


class Header(NamedTuple):
    """The canonical header, field by field in the order of its schema."""

    position: int
    event_id: UUID
    aggregate_type: str
    aggregate_id: str
    sequence: int
    event_type: str
    event_version: int
    department: int
    actor: str
    command_id: UUID
    correlation_id: UUID
    causation_id: UUID | None
    recorded_at: int
    schema_fingerprint: bytes


class Datum:
    """Reads Avro data, and refuses any spelling but the shortest."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, count: int) -> bytes:
        if count < 0 or self.at + count > len(self.data):
            raise Refused("the header ends too early")
        self.at += count
        return self.data[self.at - count : self.at]

    def long(self) -> int:
        number = 0
        for shift in range(0, 70, 7):
            byte = self.take(1)[0]
            number |= (byte & 0x7F) << shift
            if not byte & 0x80:
                if (byte == 0 and shift > 0) or number >= 1 << 64:
                    raise Refused("an integer is not in its shortest form")
                return (number >> 1) ^ -(number & 1)
        raise Refused("an integer has more than 10 bytes")

    def string(self) -> str:
        return self.take(self.long()).decode()

    def uuid(self) -> UUID:
        return UUID(bytes=self.take(16))

    def optional_uuid(self) -> UUID | None:
        branch = self.long()
        if branch not in (0, 1):
            raise Refused("a union has no such branch")
        return self.uuid() if branch else None


def read_header(data: bytes) -> Header:
    datum = Datum(data)
    header = Header(
        position=datum.long(),
        event_id=datum.uuid(),
        aggregate_type=datum.string(),
        aggregate_id=datum.string(),
        sequence=datum.long(),
        event_type=datum.string(),
        event_version=datum.long(),
        department=datum.long(),
        actor=datum.string(),
        command_id=datum.uuid(),
        correlation_id=datum.uuid(),
        causation_id=datum.optional_uuid(),
        recorded_at=datum.long(),
        schema_fingerprint=datum.take(8),
    )
    if datum.at != len(data):
        raise Refused("bytes are left over behind the header")
    return header


class Chain:
    """What is carried from one event to the next."""

    def __init__(self, first: int = 1, previous: bytes = ZERO) -> None:
        self.position, self.hash = first - 1, previous
        self.from_start = first == 1
        self.sequences: dict[tuple[str, str], int] = {}

    def add(self, data: bytes, payload: bytes, stored: bytes) -> Header:
        self.position += 1
        header = read_header(data)
        if header.position != self.position:
            raise Refused(f"expected position {self.position}, found {header.position}")
        self.hash = hashlib.sha256(self.hash + data + payload).digest()
        if stored != self.hash:
            raise Refused(f"expected hash {self.hash.hex()}, found {stored.hex()}")
        key = header.aggregate_type, header.aggregate_id
        if self.from_start or key in self.sequences:
            expected = self.sequences.get(key, 0) + 1
            if header.sequence != expected:
                raise Refused(f"{key}: expected sequence {expected}, found {header.sequence}")
        self.sequences[key] = header.sequence
        return header


class Schemas:
    """Schemas with the fingerprints that fastavro computes from them."""

    def __init__(self) -> None:
        self.known: dict[object, tuple[str, bytes, object]] = {}

    def add(self, key: object, text: str) -> None:
        schema = json.loads(text)
        digits = fingerprint(to_parsing_canonical_form(schema), "CRC-64-AVRO")
        name = f"{schema['namespace']}.{schema['name']}"
        self.known[key] = name, bytes.fromhex(digits), parse_schema(schema)

    def check(self, key: object, header: Header, payload: bytes) -> None:
        name, digest, schema = self.known[key]
        if name != f"sovereign.{header.aggregate_type}.{header.event_type}":
            raise Refused(f"the schema is that of {name}")
        if digest != header.schema_fingerprint:
            raise Refused(
                f"expected fingerprint {digest.hex()}, found {header.schema_fingerprint.hex()}"
            )
        rest = io.BytesIO(payload)
        fastavro.schemaless_reader(rest, schema)
        if rest.read(1):
            raise Refused("bytes are left over behind the payload")


def moment(micros: int) -> str:
    start = datetime.datetime(1970, 1, 1)
    time = start + datetime.timedelta(microseconds=micros)
    return time.isoformat(timespec="microseconds") + "Z"


def check_record(message, headers: dict[str, bytes], header: Header) -> None:
    """The parts of a record that repeat the header for readers that do not decode Avro."""
    expected = {
        "sovereign_position": str(header.position),
        "ce_specversion": "1.0",
        "ce_id": str(header.event_id),
        "ce_type": f"sovereign.{header.aggregate_type}.{header.event_type}",
        "ce_source": f"/sovereign/{header.aggregate_type}/{header.aggregate_id}",
        "ce_time": moment(header.recorded_at),
    }
    for name, value in expected.items():
        if headers.get(name) != value.encode():
            raise Refused(f"header {name}: expected {value}, found {headers.get(name)}")
    if message.key() != header.aggregate_id.encode():
        raise Refused(f"expected key {header.aggregate_id}, found {message.key()}")
    if message.timestamp()[1] != header.recorded_at // 1000:
        raise Refused(f"timestamp {message.timestamp()[1]} is not that of the header")


def verify_kafka(brokers: str, registry: str | None, chain: Chain) -> dict:
    from confluent_kafka.schema_registry import SchemaRegistryClient

    from topics import committed

    client = SchemaRegistryClient({"url": registry}) if registry else None
    schemas, partitions, departments = Schemas(), {}, {}
    for message in committed(brokers):
        headers = dict(message.headers())
        position = int(headers["sovereign_position"])
        records = partitions.setdefault((message.topic(), message.partition()), [])
        if records and records[-1][0] >= position:
            raise Refused(f"position {position} came after {records[-1][0]} in {message.topic()}")
        records.append((position, message, headers))
    # merged by position alone: nothing else orders records of different partitions
    for _, message, headers in heapq.merge(*partitions.values(), key=lambda record: record[0]):
        value = message.value()
        payload = value[5:]
        stored = bytes.fromhex(headers["sovereign_hash"].decode())
        header = chain.add(headers["sovereign_header"], payload, stored)
        check_record(message, headers, header)
        if departments.setdefault(header.department, message.topic()) != message.topic():
            raise Refused(f"department {header.department} is on {message.topic()} as well")
        if client:
            schema_id = int.from_bytes(value[1:5], "big")
            if value[0] != 0:
                raise Refused("no Confluent header in front of the value")
            if schema_id not in schemas.known:
                schemas.add(schema_id, client.get_schema(schema_id).schema_str)
            schemas.check(schema_id, header, payload)
    return {"source": "kafka", "partitions": len(partitions), "schemas": len(schemas.known)}


def verify_file(path: str, make_chain) -> dict:
    with open(path, "rb") as file:
        raw = file.read()
    reader = fastavro.reader(io.BytesIO(raw))
    meta = reader.metadata
    digits = meta["sovereign.content_sha256"].encode()
    at = raw.index(digits, raw.index(b"sovereign.content_sha256"))
    content = hashlib.sha256(raw[:at] + b"0" * 64 + raw[at + 64 :]).hexdigest()
    if content.encode() != digits:
        raise Refused(f"expected content_sha256 {content}, found {digits.decode()}")
    first = int(meta["sovereign.first"])
    chain = make_chain(first, bytes.fromhex(meta["sovereign.previous_hash"]))
    schemas = Schemas()
    for known in json.loads(meta["sovereign.schemas"]):
        key = known["event_type"], known["version"]
        schemas.add(key, known["schema"])
        if schemas.known[key][1].hex() != known["fingerprint"]:
            raise Refused(f"{key}: the file's fingerprint is not that of the schema beside it")
    header_schema = parse_schema(json.loads(meta["avro.schema"])["fields"][0]["type"])
    for event in reader:
        datum = io.BytesIO()
        fastavro.schemaless_writer(datum, header_schema, event["header"])
        header = chain.add(datum.getvalue(), event["payload"], event["hash"])
        schemas.check((header.event_type, header.event_version), header, event["payload"])
    end = int(meta["sovereign.last"]), meta["sovereign.last_hash"]
    if (chain.position, chain.hash.hex()) != end:
        raise Refused(f"the metadata ends at {end}")
    return {"source": "file", "first": first, "schemas": len(schemas.known)}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    source = options.add_mutually_exclusive_group(required=True)
    source.add_argument("--brokers")
    source.add_argument("--file")
    options.add_argument("--registry", help="also check schemas and their fingerprints")
    options.add_argument("--expect", help="hash of the head, noted elsewhere")
    args = options.parse_args()

    chain = Chain()

    def make_chain(first: int, previous: bytes) -> Chain:
        nonlocal chain
        chain = Chain(first, previous)
        return chain

    try:
        if args.file:
            report = verify_file(args.file, make_chain)
        else:
            report = verify_kafka(args.brokers, args.registry, chain)
        if args.expect and args.expect != chain.hash.hex():
            raise Refused(f"expected hash {args.expect}, found {chain.hash.hex()}")
    except Exception as error:  # bytes that no decoder takes are a finding as well
        sys.exit(f"position {chain.position}: {type(error).__name__}: {error}")
    report |= {"head": chain.position, "head_hash": chain.hash.hex()}
    report["aggregates"] = len(chain.sequences)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
