// Reads all department topics with kafkajs and its schema registry client, and checks what a
// consumer may rely on: positions are exactly 1 to head, once each, they grow in each partition,
// and every value decodes.
//
// node consume.js --brokers HOST:PORT --registry URL --head N
"use strict";

const { parseArgs } = require("node:util");
const { Kafka, logLevel } = require("kafkajs");
const { SchemaRegistry } = require("@kafkajs/confluent-schema-registry");

const WAIT_MS = 30_000;
/** Long enough to notice a record that comes twice. */
const SETTLE_MS = 1_000;

function fail(message) {
  console.error(message);
  process.exit(1);
}

const text = { type: "string" };
const { values: args } = parseArgs({ options: { brokers: text, registry: text, head: text } });
const head = Number(args.head);
if (!args.brokers || !args.registry || !(head > 0)) {
  fail("usage: consume.js --brokers HOST:PORT --registry URL --head N");
}

const kafka = new Kafka({ brokers: args.brokers.split(","), logLevel: logLevel.NOTHING });
const registry = new SchemaRegistry({ host: args.registry });
const seen = new Uint8Array(head + 1);
const last = new Map();
const topics = {};
let events = 0;
let heard = Date.now();

async function take(topic, partition, message) {
  const position = Number(message.headers.sovereign_position.toString());
  const where = `${topic}/${partition}`;
  if (!(position >= 1 && position <= head)) fail(`position ${position} is not in 1 to ${head}`);
  if (seen[position]) fail(`position ${position} came twice, now in ${where}`);
  if (position <= (last.get(where) ?? 0)) {
    fail(`position ${position} came after ${last.get(where)} in ${where}`);
  }
  await registry.decode(message.value).catch((error) => {
    fail(`position ${position}: the value does not decode: ${error.message}`);
  });
  seen[position] = 1;
  last.set(where, position);
  topics[topic] = (topics[topic] ?? 0) + 1;
  events += 1;
  heard = Date.now();
}

async function main() {
  const groupId = `reader-node-${process.pid}-${Date.now()}`;
  const consumer = kafka.consumer({ groupId, readUncommitted: false });
  await consumer.connect();
  await consumer.subscribe({ topics: [/^dept\./], fromBeginning: true });
  await consumer.run({
    autoCommit: false,
    eachBatch: async ({ batch, resolveOffset, heartbeat }) => {
      for (const message of batch.messages) {
        await take(batch.topic, batch.partition, message);
        resolveOffset(message.offset);
      }
      await heartbeat();
    },
  });
  while (events < head) {
    if (Date.now() - heard > WAIT_MS) {
      fail(`position ${seen.indexOf(0, 1)} is missing; ${events} of ${head} came`);
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  await new Promise((resolve) => setTimeout(resolve, SETTLE_MS));
  await consumer.disconnect();
  const admin = kafka.admin();
  await admin.connect();
  await admin.deleteGroups([groupId]);
  await admin.disconnect();
  console.log(JSON.stringify({ events, head, partitions: last.size, topics }));
}

main().catch((error) => fail(`${error.name}: ${error.message}`));
