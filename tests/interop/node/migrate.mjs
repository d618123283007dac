// Migrates, as this version of Graphile Worker does it, and ends.
import { load, orders, stderrLogger } from "./lib.mjs";

const order = await orders();
const worker = await load(order.package);

await worker.runMigrations({
  connectionString: order.connectionString,
  logger: stderrLogger(worker),
});
process.stdin.destroy();
