// What the fixtures share. Each reads one line of JSON from stdin, its orders,
// and writes events to stdout, a line of JSON each; everything meant for people
// goes to stderr, where the test finds it when something fails.
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

// npm installs into a cache folder, and an import looks next to the importing
// file: so names are resolved from that folder.
const modules = createRequire(pathToFileURL(process.env.GWORKER_INTEROP_MODULES + "/"));

/** Imports an installed package, whichever kind of module it is. */
export async function load(name) {
  const loaded = await import(pathToFileURL(modules.resolve(name)).href);
  return loaded.default ?? loaded;
}

/** The orders on stdin, and a promise of stdin's end. */
export async function orders() {
  const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
  const first = await lines.next();
  return { ...JSON.parse(first.value), ended: lines.next() };
}

/** Tells the test something. */
export function say(event) {
  process.stdout.write(JSON.stringify(event) + "\n");
}

/** A Graphile Worker logger that leaves stdout alone. */
export function stderrLogger({ Logger }) {
  return new Logger((scope) => (level, message) => {
    process.stderr.write(`${level} ${scope.label ?? ""} ${message}\n`);
  });
}
