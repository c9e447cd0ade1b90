import fs from "node:fs";
import {folder, Hub, run_checks, Server, write_results} from "./support.mjs";
import "./page_checks.mjs";
import "./job_checks.mjs";
import "./train_checks.mjs";
import "./gallery_checks.mjs";

/// Started when a check first needs it.
class Servers {
  made = new Map();
  kinds = {
    idle: () => new Server("idle"),  // no worker: jobs wait
    working: () => new Server("working", {workers: 1, hub: new Hub()}),
    restarted: () => new Server("restarted", {workers: 1}),
    full: () => new Server("full"),
    locked: () => new Server("locked", {extra: ["--token", "a-token-of-the-tests"]}),
  };
  async get(name) {
    if (!this.made.has(name)) this.made.set(name, await this.kinds[name]().start());
    return this.made.get(name);
  }
  async stop() { for (const server of this.made.values()) await server.stop(); }
}

const servers = new Servers();
let results = [];
for (const signal of ["SIGTERM", "SIGINT"]) process.once(signal, async () => { await servers.stop(); process.exit(1); });
try {
  results = await run_checks(servers);
} finally {
  await servers.stop();
}
write_results(results);
const failed = results.filter(({wrong}) => wrong !== undefined).length;
if (failed) console.log(`logs and screenshots: ${folder}`);
else fs.rmSync(folder, {recursive: true, force: true});
console.log(`${results.length - failed} passed, ${failed} failed`);
process.exit(failed || !results.length ? 1 : 0);
