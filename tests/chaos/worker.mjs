// The Node worker of the chaos program: worker.go in the other language. It
// lies next to lib.mjs of tests/interop/node when it is run.
import { EventEmitter } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { load, orders, say, stderrLogger } from "./lib.mjs";

const order = await orders();
const worker = await load(order.package);
const { Pool } = await load("pg");

const oracle = new Pool({ connectionString: order.oracle, max: order.concurrency });

async function task(payload, { job, getQueueName }) {
  const { rows } = await oracle.query(
    "insert into runs (n, job_id, queue, attempt, worker, worker_id) values ($1, $2, $3, $4, $5, $6) returning id",
    [payload.n, job.id, (await getQueueName()) ?? "", job.attempts, order.worker, job.locked_by],
  );
  await sleep(payload.ms);
  const failed = job.attempts <= (payload.fails ?? 0);
  await oracle.query("update runs set ended_at = clock_timestamp(), outcome = $2 where id = $1", [
    rows[0].id,
    failed ? "failed" : "ok",
  ]);
  if (failed) throw new Error("as the payload says");
}

const events = new EventEmitter();
events.on("pool:create", ({ workerPool }) => say({ event: "worker", workerId: workerPool.id }));

const asked = new Promise((resolve) => process.once("SIGTERM", resolve));
const runner = await worker.run({
  connectionString: order.connectionString,
  maxPoolSize: order.concurrency + 4,
  taskList: Object.fromEntries(order.tasks.map((name) => [name, task])),
  concurrency: order.concurrency,
  pollInterval: order.pollInterval,
  noHandleSignals: true,
  logger: stderrLogger(worker),
  events,
});
await Promise.race([asked, runner.promise]);
await runner.stop();
await oracle.end();
process.exit(0);
