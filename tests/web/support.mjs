// Servers, a browser, and checks with names.
import {spawn} from "node:child_process";
import fs from "node:fs";
import {createRequire} from "node:module";
import os from "node:os";
import path from "node:path";

const require = createRequire(path.resolve("build/clients/node/package.json"));
export const {chromium} = require("playwright-core");
const axe_source = fs.readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

const kFlags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];

export const launch = () => chromium.launch({executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", headless: true, args: kFlags, env: {...process.env, HOME: folder}});

/// The model in the box where it is there, else random numbers: $CALOTYPE_MODEL names another.
const kBox = "models/calotype-icons";
const model = process.env.CALOTYPE_MODEL ?? (fs.existsSync(`${kBox}/model_index.json`) ? kBox : "tests/golden/models/m1_dev");

export const options = {program: "build/release/calotype", words: []};
for (const rest = process.argv.slice(2); rest.length;) {
  const word = rest.shift();
  if (word === "--program") options.program = rest.shift();
  else options.words.push(word);
}

export const folder = fs.mkdtempSync(path.join(os.tmpdir(), "calotype-web-"));

/// The stand-in hub of the tests; "hf_valid" is its token.
export class Hub {
  async start() {
    if (this.url) return this.url;
    this.process = spawn("python3", ["tests/support/hub_server.py"], {stdio: ["pipe", "pipe", "ignore"]});
    const ports = await new Promise((resolve, reject) => {
      this.process.stdout.once("data", (line) => resolve(String(line).trim().split(" ")));
      this.process.once("error", reject);
    });
    return this.url = `http://127.0.0.1:${ports[0]}`;
  }
  stop() { this.process?.kill(); }
}

/// A server on a free port (or the one it had), with a data folder that outlives it.
export class Server {
  constructor(name, {workers = 0, extra = [], hub = null} = {}) {
    this.hub = hub;
    this.data = path.join(folder, name);
    this.workers = workers;
    this.extra = extra;
    this.port = 0;
  }
  async start() {
    const log = fs.openSync(`${this.data}.log`, "a");
    this.process = spawn(options.program, ["serve", "--port", String(this.port), "--data", this.data, "--workers", String(this.workers), "--model", model, ...this.extra],
                         {stdio: ["ignore", "pipe", log], env: {...process.env, ...this.hub ? {HF_ENDPOINT: await this.hub.start()} : {}}});
    this.url = await new Promise((resolve, reject) => {
      let text = "";
      this.process.stdout.on("data", (part) => {
        text += part;
        const match = /listens on (\S+)/.exec(text);
        if (match) resolve(match[1]);
      });
      this.process.on("exit", () => reject(new Error(`the server ended: ${fs.readFileSync(`${this.data}.log`, "utf8")}`)));
    });
    this.port = Number(new URL(this.url).port);
    return this;
  }
  async end_server(signal = "SIGTERM") {
    const ended = new Promise((resolve) => this.process.removeAllListeners("exit").once("exit", resolve));
    this.process.kill(signal);
    await ended;
  }
  async stop() {
    this.hub?.stop();
    if (this.process?.exitCode === null) await this.end_server();
  }
  async post(where, body, headers = {}) {
    const answer = await fetch(this.url + where, {method: "POST", headers: {"Content-Type": "application/json", ...headers}, body: JSON.stringify(body)});
    return answer.json();
  }
  async get(where) { return (await fetch(this.url + where)).json(); }
}

export function assert(condition, words) {
  if (!condition) throw new Error(words);
}

export function equal(got, expected, words) {
  assert(JSON.stringify(got) === JSON.stringify(expected), `${words}: got ${JSON.stringify(got)}, expected ${JSON.stringify(expected)}`);
}

export async function until(ask, words, patience = 15000) {
  const end = Date.now() + patience;
  for (;;) {
    const value = await ask();
    if (value) return value;
    if (Date.now() > end) throw new Error(`waited ${patience / 1000} s in vain: ${words}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

const checks = [];
/// body({page, context, server, browser}); `server`: which of main.mjs's servers.
export const check = (name, server, body, more = {}) => checks.push({name, server, body, ...more});

/// Complaints of the page itself make a check fail, but for those that the check expects.
export async function run_checks(servers) {
  const browser = await launch();
  const results = [];
  for (const {name, server, body, context: settings = {}, expected = /^$/} of checks) {
    if (options.words.length && !options.words.some((word) => name.includes(word))) continue;
    const context = await browser.newContext({viewport: {width: 1440, height: 900}, ...settings});
    const page = await context.newPage();
    const complaints = [], begin = Date.now();
    let wrong;
    context.on("console", (message) => { if (message.type() === "error" && !expected.test(message.text())) complaints.push(`${message.text()} ${message.location().url}`); });
    context.on("weberror", (error) => complaints.push(error.error().message));
    try {
      const running = await servers.get(server);
      await body({page, context, browser, server: running});
      equal(complaints, [], "the console of the page");
      console.log(`ok ${name}`);
    } catch (error) {
      wrong = error.message;
      console.log(`FAIL ${name}: ${error.message.split("\n").slice(0, 12).join("\n    ")}`);
      await page.screenshot({path: path.join(folder, `${name.replace(/\W+/g, "-")}.png`)}).catch(() => {});
    }
    results.push({name, wrong, seconds: (Date.now() - begin) / 1000});
    await context.close();
  }
  await browser.close();
  return results;
}

/// As GoogleTest writes them, where GoogleTest would, so that tools/test counts both alike.
export function write_results(results) {
  const place = /^xml:(.*\/)$/.exec(process.env.GTEST_OUTPUT ?? "");
  if (!place) return;
  const quoted = (text) => `"${text.replace(/[^\x20-\x7e\u00a0-\ud7ff]/g, " ").replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`)}"`;
  const failed = results.filter(({wrong}) => wrong !== undefined).length;
  const cases = results.map(({name, wrong, seconds}) => `<testcase classname="web" name=${quoted(name)} time="${seconds}">${wrong === undefined ? "" : `<failure message=${quoted(wrong)}/>`}</testcase>\n`);
  fs.writeFileSync(`${place[1]}web_browser.xml`, `<?xml version="1.0" encoding="UTF-8"?>
<testsuites tests="${results.length}" failures="${failed}" disabled="0" errors="0" name="web_browser">
<testsuite name="web_browser" tests="${results.length}" failures="${failed}">
${cases.join("")}</testsuite>
</testsuites>
`);
}

export const prompt = (page) => page.locator('[data-field="prompt"] textarea');

/// How much longer than on a quiet machine things may take: by what else wants the processors.
export const patience = () => Math.max(1, os.loadavg()[0] / os.cpus().length);

/// What axe-core complains about, but for trifles.
export async function axe(page) {
  await page.evaluate(axe_source);
  const found = await page.evaluate(async () => (await globalThis.axe.run(document, {resultTypes: ["violations"]})).violations
    .map((each) => `${each.impact} ${each.id}: ${each.nodes[0].target} ${each.nodes[0].failureSummary}`));
  return found.filter((each) => !each.startsWith("minor"));
}
