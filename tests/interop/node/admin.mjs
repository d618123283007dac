// Administers the queue through this version's own utilities, and prints the ids
// of the jobs that each call returned: {"event":"administered","ids":[...]}.
import { load, orders, say, stderrLogger } from "./lib.mjs";

const order = await orders();
const worker = await load(order.package);

const utils = await worker.makeWorkerUtils({
  connectionString: order.connectionString,
  logger: stderrLogger(worker),
});
try {
  for (const { method, ids, reason, options, workers } of order.administer) {
    let jobs = [];
    switch (method) {
      case "completeJobs":
        jobs = await utils.completeJobs(ids);
        break;
      case "permanentlyFailJobs":
        jobs = await utils.permanentlyFailJobs(ids, reason);
        break;
      case "rescheduleJobs":
        jobs = await utils.rescheduleJobs(ids, options);
        break;
      case "forceUnlockWorkers":
        await utils.forceUnlockWorkers(workers);
        break;
      case "cleanup":
        await utils.cleanup(options);
        break;
      default:
        throw new Error(`admin.mjs knows no ${method}`);
    }
    say({ event: "administered", ids: jobs.map((job) => Number(job.id)).sort((a, b) => a - b) });
  }
} finally {
  await utils.release();
}
process.stdin.destroy();
