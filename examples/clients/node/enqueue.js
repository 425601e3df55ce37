// Enqueues tasks with @platformatic/kafka and avsc; all it knows of taskmill is Task.avsc.
//
//     node enqueue.js BOOTSTRAP TOPIC TASK_NAME Task.avsc [default] < LINES
//
// Each line on stdin is a task, {"id": …, "args": {…}}. With `default` the client's own default
// partitioner is left in place, to see what the wrong one costs.

import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { compatibilityPartitioner, ProduceAcks, Producer } from "@platformatic/kafka";
import avro from "avsc";

const [bootstrap, topic, name, avsc, partitioner] = process.argv.slice(2);
const type = avro.Type.forSchema(JSON.parse(readFileSync(avsc, "utf8")));

// CRC-64-AVRO, which avsc lacks, of the schema's Parsing Canonical Form.
const EMPTY = 0xc15d213aa4d7a795n;
let fingerprint = EMPTY;
for (const byte of Buffer.from(JSON.stringify(type.schema()))) {
  fingerprint ^= BigInt(byte);
  for (let bit = 0; bit < 8; bit++) {
    fingerprint = (fingerprint >> 1n) ^ (fingerprint & 1n ? EMPTY : 0n);
  }
}
// Avro's single-object encoding: a marker, the schema's fingerprint, the record.
const prefix = Buffer.from("c3010000000000000000", "hex");
prefix.writeBigUInt64LE(fingerprint, 2);

const messages = [];
for await (const line of createInterface({ input: process.stdin })) {
  const { id, args } = JSON.parse(line);
  const payload = Buffer.from(JSON.stringify(args));
  // What is left out takes the schema's defaults.
  const task = { id, name, payload, enqueued_at: Date.now(), headers: { client: "node" } };
  const value = Buffer.concat([prefix, type.toBuffer(task)]);
  const headers = new Map([[Buffer.from("client"), Buffer.from("node")]]);
  messages.push({ topic, key: Buffer.from(id), value, headers });
}

const producer = new Producer({
  clientId: "taskmill-example",
  bootstrapBrokers: bootstrap.split(","),
  acks: ProduceAcks.ALL,
  idempotent: true,
  retries: 10, // by default it tries for ever, and says nothing
  // The key decides the partition by the Java client's rule; this client's default puts half of
  // the keys elsewhere.
  ...(partitioner !== "default" && { partitioner: compatibilityPartitioner }),
});
await producer.send({ messages }); // rejects where one was not acknowledged
await producer.close();
