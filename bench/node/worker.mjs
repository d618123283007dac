// Graphile Worker for Node as one side of a measurement: see protocol.go for what
// comes in and goes out, and tally.go, which this does the same as.
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const modules = createRequire(pathToFileURL(process.env.GWORKER_BENCH_MODULES + "/"));
const load = async (name) => {
  const loaded = await import(pathToFileURL(modules.resolve(name)).href);
  return loaded.default ?? loaded;
};
const { Logger, run, makeWorkerUtils } = await load("graphile-worker");

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const order = JSON.parse((await lines.next()).value);
const stopped = lines.next();

const say = (reply) => process.stdout.write(JSON.stringify(reply) + "\n");
const milliseconds = () => performance.timeOrigin + performance.now();
const nanoseconds = () => Math.round(milliseconds() * 1000) * 1000;
const logger = new Logger(() => (level, message) => {
  if (level === "error" && process.env.GWORKER_BENCH_LOG) process.stderr.write(`${level} ${message}\n`);
});

let started = 0;
let finished = 0;
let failed = 0;
let first = 0;
let busy = 0;
let worst = 0;
const latencies = {};
const times = [];
const width = Math.log(1.02);

const tally = (event) => ({
  event,
  at: nanoseconds(),
  started,
  finished,
  failed,
  first,
  busy: Math.round(busy * 1e6),
});

let counting;
let last = 0;
function count() {
  if (finished === last) return;
  last = finished;
  say(tally("count"));
}

async function bench(payload, helpers) {
  const now = milliseconds();
  if (++started === 1) {
    first = Math.round(now * 1000) * 1000;
    counting = setInterval(count, 5); // not before: idle is idle
  }
  if (payload.probe) say({ event: "probe", n: payload.n, at: Math.round(now * 1000) * 1000 });
  if (payload.at) {
    const took = now - payload.at;
    const k = Math.floor(Math.log(Math.max(1, took * 1000)) / width);
    latencies[k] = (latencies[k] ?? 0) + 1;
    if (took > worst) worst = took;
  }
  if (order.record) times.push([payload.n, Math.round(now * 1000)]);
  if (payload.ms) await new Promise((resolve) => setTimeout(resolve, payload.ms));
  busy += milliseconds() - now;
  finished++;
  if (helpers.job.attempts <= (payload.fail ?? 0)) {
    failed++;
    throw new Error("as the payload asks");
  }
}

async function work() {
  const batching = order.peer === "node-batch";
  const runner = await run({
    connectionString: order.url,
    concurrency: order.concurrency,
    maxPoolSize: order.concurrency + 4,
    taskList: { bench },
    noHandleSignals: true,
    logger,
    ...(batching && {
      preset: {
        worker: { localQueue: { size: 500 }, completeJobBatchDelay: 0, failJobBatchDelay: 0 },
      },
    }),
  });
  say({ event: "ready", at: nanoseconds() });
  await stopped;
  clearInterval(counting);
  await runner.stop();
  say({ ...tally("end"), latencies, worst, times });
}

async function add() {
  const utils = await makeWorkerUtils({ connectionString: order.url, maxPoolSize: order.adders, logger });
  await Promise.all(
    Array.from({ length: order.adders }, () => utils.withPgClient((client) => client.query("select pg_sleep(0.05)"))),
  );
  say({ event: "ready", at: nanoseconds() });
  const begun = milliseconds();
  const until = begun + order.seconds * 1000;
  let calls = 0;
  const adder = async (a) => {
    for (let n = a * 10_000_000; milliseconds() < until; n += order.perCall) {
      if (order.perCall === 1) {
        await utils.addJob("bench", { n });
      } else {
        await utils.addJobs(
          Array.from({ length: order.perCall }, (_, i) => ({ identifier: "bench", payload: { n: n + i } })),
        );
      }
      calls++;
      if (order.record) times.push([n, Math.round(milliseconds() * 1000)]);
    }
  };
  await Promise.all(Array.from({ length: order.adders }, (_, a) => adder(a)));
  const nanos = Math.round((milliseconds() - begun) * 1e6);
  await utils.release();
  say({ event: "end", at: nanoseconds(), calls, added: calls * order.perCall, nanos, times });
}

await (order.role === "add" ? add() : work());
process.stdin.destroy();
