// A worker that keeps a record of every run in interop.runs. It says "started"
// once the record of a run is there, "finished" once the run is through the
// gate, and works until stdin ends or, with "once", until nothing is runnable.
//
// A payload with a "fail" member makes the run fail with that message. A batch
// task answers so for each element of its payload, and leaves out the results of
// elements with "noResult".
import { load, orders, say, stderrLogger } from "./lib.mjs";

const order = await orders();
const worker = await load(order.package);
const { Pool } = await load("pg");

const record = new Pool({ connectionString: order.connectionString, max: order.concurrency });

async function task(payload, { job, getQueueName }) {
  const seen = {
    id: Number(job.id),
    task: job.task_identifier,
    queue: (await getQueueName()) ?? "",
    payload,
    priority: job.priority,
    runAt: job.run_at.toISOString(),
    attempts: job.attempts,
    maxAttempts: job.max_attempts,
    key: job.key ?? "",
    flags: Object.keys(job.flags ?? {}).sort(),
  };
  const { rows } = await record.query("select interop.start($1, $2) as run", [
    order.worker,
    JSON.stringify(seen),
  ]);
  say({ event: "started", job: seen.id });
  await record.query("select interop.finish($1)", [rows[0].run]);
  say({ event: "finished", job: seen.id });
  if (payload?.fail) throw new Error(payload.fail);
}

async function batchTask(payload, helpers) {
  await task(payload, helpers);
  if (!Array.isArray(payload)) return [];
  return payload
    .filter((element) => !element.noResult)
    .map(async (element) => {
      if (element.fail) throw new Error(element.fail);
    });
}

const options = {
  connectionString: order.connectionString,
  maxPoolSize: order.concurrency + 4,
  taskList: Object.fromEntries([
    ...(order.tasks ?? []).map((name) => [name, task]),
    ...(order.batchTasks ?? []).map((name) => [name, batchTask]),
  ]),
  concurrency: order.concurrency,
  crontab: order.crontab,
  ...(order.schema && { schema: order.schema }),
  noHandleSignals: true,
  logger: stderrLogger(worker),
  ...(order.forbiddenFlags && { forbiddenFlags: order.forbiddenFlags }),
  preset: {
    worker: {
      ...(order.localQueue && { localQueue: { size: order.localQueue } }),
      ...(order.batchMs !== undefined && {
        completeJobBatchDelay: order.batchMs,
        failJobBatchDelay: order.batchMs,
      }),
    },
  },
};

if (order.once) {
  await worker.runOnce(options);
} else {
  const runner = await worker.run(options);
  await Promise.race([order.ended, runner.promise]);
  await runner.stop();
}
await record.end();
process.stdin.destroy();
