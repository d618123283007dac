// Migrates, as this version of Graphile Worker does it, and ends.
import { load, orders, stderrLogger } from "./lib.mjs";

const order = await orders();
const worker = await load(order.package);

if (worker.runMigrations) {
  await worker.runMigrations({
    connectionString: order.connectionString,
    logger: stderrLogger(worker),
  });
} else {
  // The first version exports no such function, and its PostgreSQL driver
  // waits forever on a current Node.js: its migrations get a newer one.
  const { migrate } = await load(`${order.package}/dist/migrate.js`);
  const { Client } = await load("pg");
  const client = new Client({ connectionString: order.connectionString });
  await client.connect();
  await migrate(client);
  await client.end();
}
process.stdin.destroy();
