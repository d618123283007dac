// Adds jobs through this version's own client and prints the ids it returned:
// {"event":"added","ids":[...]}.
//
// An order's calls are {"addJob": spec}, {"quickAddJob": spec} or
// {"addJobs": [spec, ...], "preserveRunAt": bool}.
import { load, orders, say, stderrLogger } from "./lib.mjs";

const order = await orders();
const worker = await load(order.package);

const options = { connectionString: order.connectionString, logger: stderrLogger(worker) };
const utils = await worker.makeWorkerUtils(options);
const ids = [];
try {
  for (const call of order.calls) {
    if (call.addJobs) {
      const jobs = await utils.addJobs(call.addJobs.map(dated), call.preserveRunAt ?? false);
      ids.push(...jobs.map((job) => Number(job.id)));
    } else if (call.addJob) {
      const { identifier, payload, ...spec } = dated(call.addJob);
      ids.push(Number((await utils.addJob(identifier, payload, spec)).id));
    } else if (call.quickAddJob) {
      const { identifier, payload, ...spec } = dated(call.quickAddJob);
      const job = await worker.quickAddJob(options, identifier, payload, spec);
      ids.push(Number(job.id));
    } else {
      throw new Error(`client.mjs knows no such call: ${Object.keys(call)}`);
    }
  }
} finally {
  await utils.release();
}
say({ event: "added", ids });
process.stdin.destroy();

// The client wants a Date where JSON has a string.
function dated(spec) {
  return spec.runAt ? { ...spec, runAt: new Date(spec.runAt) } : spec;
}
