// Reads crontabs with this version's own parser and tells for each what it made
// of it, a line each: {"event":"crontab","error":...} or {"event":"crontab",
// "items":[{task, identifier, fill, ..., payload, matches}]}, where matches has a
// 1 for each of the order's times that the item matches and a 0 for the others.
import { load, orders, say } from "./lib.mjs";

const order = await orders();
const { parseCrontab } = await load(order.package);

const digests = (order.times ?? []).map((time) => {
  const at = new Date(time);
  return {
    min: at.getUTCMinutes(),
    hour: at.getUTCHours(),
    date: at.getUTCDate(),
    month: at.getUTCMonth() + 1,
    dow: at.getUTCDay(),
  };
});

function told({ task, identifier, options, payload, match }) {
  return {
    task,
    identifier,
    fill: options.backfillPeriod,
    max: options.maxAttempts ?? 0,
    queue: options.queueName ?? "",
    key: options.jobKey ?? "",
    priority: options.priority ?? 0,
    payload: JSON.stringify(payload ?? {}),
    matches: digests.map((digest) => (match(digest) ? "1" : "0")).join(""),
  };
}

for (const text of order.crontabs) {
  try {
    say({ event: "crontab", items: parseCrontab(text).map(told) });
  } catch (error) {
    say({ event: "crontab", error: error.message });
  }
}
process.stdin.destroy();
