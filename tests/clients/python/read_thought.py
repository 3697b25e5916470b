import hmac, json, os, subprocess
from confluent_kafka import Consumer
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

decode = AvroDeserializer(SchemaRegistryClient({"url": os.environ["REGISTRY"]}))
events = Consumer({"bootstrap.servers": os.environ["BROKERS"], "group.id": "readme",
                   "auto.offset.reset": "earliest", "isolation.level": "read_committed",
                   "enable.auto.commit": False})
events.subscribe(["dept.trader"])
while message := events.poll(30):  # reading and decoding: this much is enough for any event
    if message.error():
        raise SystemExit(str(message.error()))
    if dict(message.headers())["ce_type"] == b"sovereign.agent.ThoughtRecorded":
        text = decode(message.value(), None)["text"]
        break
else:
    raise SystemExit("no thought came within 30 s")
events.close()

subject = message.key().decode()  # unsealing: with the key that the owner of the data folder shows
shown = json.loads(subprocess.check_output(["sovereign", "keys", "show", "--subject", subject, "--json"]))
key = bytes.fromhex(shown["key"])
for bit in range(39, -1, -1):
    key = hmac.digest(key, bytes([text["index"] >> bit & 1]), "sha256")
key = hmac.digest(key, b"sovereign text key v1", "sha256")
bound = b"sovereign.Text.v1" + text["key_id"] + text["index"].to_bytes(8, "big")
print(subject, "thought:", AESGCM(key).decrypt(text["nonce"], text["bytes"], bound).decode())
