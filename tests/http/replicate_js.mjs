// The official JavaScript client, version 1.4.0, unmodified.
import { createRequire } from "node:module";
import { createServer } from "node:http";
import { readFileSync } from "node:fs";

const require = createRequire(process.env.CALOTYPE_NODE_FOLDER + "/");
const Replicate = require("replicate");
const { validateWebhook, parseProgressFromLogs } = Replicate;
const BASE = process.env.CALOTYPE_URL;
const auth = process.env.CALOTYPE_TEST_TOKEN ?? "any-token-will-do";
const replicate = new Replicate({ auth, baseUrl: BASE + "/v1" });
const SCHNELL = "black-forest-labs/flux-schnell";
const FAST = { prompt: "a red fox", num_inference_steps: 2, megapixels: "0.25" };
const DEV = "black-forest-labs/flux-dev";
const SLOW = { prompt: "a slow red fox", num_inference_steps: 25, num_outputs: 4, megapixels: "1" };  // for DEV
const LONG = { prompt: "a slow red fox", num_inference_steps: 50, num_outputs: 4 };
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
const ensure = (condition, what) => { if (!condition) throw new Error(typeof what === "string" ? what : JSON.stringify(what)); };
const picture = (bytes) => ["89504e47", "52494646"].includes(Buffer.from(bytes).subarray(0, 4).toString("hex"));
const failure = async (promise) => { try { await promise; } catch (error) { return error; } throw new Error("no error"); };
const bytesOf = async (file) => Buffer.from(await (await file.blob()).arrayBuffer());

const checks = {
  async run_gives_file_outputs() {
    const output = await replicate.run(SCHNELL, { input: FAST });
    ensure(picture(await bytesOf(output[0])), "no picture");
  },
  async run_polls_with_progress() {
    const progress = [];
    const output = await replicate.run(SCHNELL, { input: { ...FAST, num_inference_steps: 4, prompt: "a slow fox" }, wait: { mode: "poll", interval: 100 } }, (p) => progress.push(parseProgressFromLogs(p)));
    ensure(progress.some((p) => p !== null && p.current <= p.total), progress);
    ensure(output.length === 1, output);
  },
  async run_longer_than_the_hold() {
    const output = await replicate.run(DEV, { input: SLOW, wait: { mode: "block", timeout: 1, interval: 100 } });
    ensure(picture(await bytesOf(output[0])), "no picture");
  },
  async abort_cancels() {
    const controller = new AbortController();
    let id;
    const running = replicate.run(DEV, { input: LONG, signal: controller.signal, wait: { mode: "poll", interval: 100 } }, (p) => { id = p.id; });
    setTimeout(() => controller.abort(), 800);
    await running.catch(() => {});
    for (let i = 0; i < 50 && (await replicate.predictions.get(id)).status !== "canceled"; ++i) await sleep(100);
    ensure((await replicate.predictions.get(id)).status === "canceled", "not canceled");
  },
  async stream_without_token() {
    const events = [];
    for await (const event of replicate.stream("replicate/canary", { input: { text: "stream" } })) events.push(event);
    ensure(events.at(-1).event === "done" && events.some((e) => e.event === "output"), events.map((e) => e.event));
    ensure(events.filter((e) => e.event === "output").map((e) => e.data).join("").includes("stream"), "text");
    const files = [];
    for await (const event of replicate.stream(SCHNELL, { input: FAST })) if (event.event === "output") files.push(event.data);
    ensure(files.length === 1 && picture(await bytesOf(files[0])), "no picture in the stream");
  },
  async paginate_over_a_hundred() {
    for (let i = 0; i < 11; ++i) await Promise.all(Array.from({ length: 10 }, () => replicate.predictions.create({ version: "replicate/canary", input: { text: "page" } })));
    const ids = new Set();
    for await (const page of replicate.paginate(replicate.predictions.list)) page.forEach((p) => ids.add(p.id));
    ensure(ids.size > 110, `${ids.size}`);
  },
  async resources() {
    const name = "j" + Date.now();
    await replicate.models.create("me", name, { visibility: "private", hardware: "cpu", description: "from JavaScript" });
    ensure((await replicate.models.get("me", name)).description === "from JavaScript", "model");
    ensure((await replicate.models.search("JavaScript")).results.some((m) => m.name === name), "search");
    ensure((await replicate.models.list()).results.some((m) => m.name === name), "list");
    ensure((await replicate.models.versions.list("black-forest-labs", "flux-dev")).results.length === 1, "versions");
    ensure((await replicate.hardware.list()).some((h) => h.sku === "cpu"), "hardware");
    ensure((await replicate.accounts.current()).username === "me", "account");
    const { results } = await replicate.collections.list();
    ensure((await replicate.collections.get(results[0].slug)).models.length > 0, "collections");
    ensure((await replicate.webhooks.default.secret.get()).key.startsWith("whsec_"), "secret");
    const version = (await replicate.models.get("black-forest-labs", "flux-schnell")).latest_version.id;
    await replicate.deployments.create({ name, model: SCHNELL, version, hardware: "cpu", min_instances: 0, max_instances: 1 });
    ensure((await replicate.deployments.update("me", name, { max_instances: 2 })).current_release.number === 2, "deployment");
    const made = await replicate.deployments.predictions.create("me", name, { input: FAST });
    ensure((await replicate.wait(made, { interval: 100 })).status === "succeeded", "deployment's prediction");
    await replicate.deployments.delete("me", name);
  },
  async files() {
    const made = await replicate.files.create(Buffer.from("hello"), { colour: "red" });
    ensure(made.size === 5 && made.metadata.colour === "red", made);
    ensure((await replicate.files.get(made.id)).id === made.id && (await replicate.files.list()).results.length > 0, "get, list");
    await replicate.files.delete(made.id);
    await failure(replicate.files.get(made.id));
  },
  async buffers_become_uploads() {
    const prediction = await replicate.predictions.create({ model: DEV, input: { prompt: "again", image: Buffer.alloc(50000, 7) } });
    await replicate.predictions.cancel(prediction.id);
    ensure(prediction.input.image.startsWith(BASE + "/v1/files/"), prediction.input);
    ensure((await replicate.files.get(prediction.input.image.split("/").at(-1))).size === 50000, "size");
  },
  async webhooks() {
    const received = [];
    let refusals = 2;
    const receiver = createServer((request, response) => {
      let body = "";
      request.on("data", (part) => (body += part));
      request.on("end", () => {
        const event = { at: Date.now(), body, headers: request.headers, json: JSON.parse(body) };
        const ended = ["succeeded", "failed", "canceled"].includes(event.json.status);
        if (ended && refusals-- > 0) { response.writeHead(500).end(); return; }
        received.push(event);
        response.writeHead(200).end();
      });
    });
    await new Promise((done) => receiver.listen(0, "127.0.0.1", done));
    try {
      const webhook = `http://127.0.0.1:${receiver.address().port}/hook`;
      const made = await replicate.predictions.create({ model: SCHNELL, input: { ...FAST, prompt: "a slow fox", num_inference_steps: 3 }, webhook, webhook_events_filter: ["start", "output", "logs", "completed"] });
      await replicate.wait(made, { interval: 100 });
      for (let i = 0; i < 100 && !received.some((e) => e.json.status === "succeeded"); ++i) await sleep(100);
      ensure(received.at(-1).json.status === "succeeded" && received.at(-1).json.output.length === 1, received.map((e) => e.json.status));
      ensure(received[0].json.status === "processing" && received[0].json.id === made.id, "start");
      ensure(received.filter((e) => e.json.status === "succeeded").length === 1, "completed once");
      const spacing = received.slice(2, -1).map((e, i) => e.at - received[i + 1].at);
      ensure(spacing.every((ms) => ms > 400), spacing);
      const { key } = await replicate.webhooks.default.secret.get();
      const { headers, body } = received[0];
      const signed = { id: headers["webhook-id"], timestamp: headers["webhook-timestamp"], signature: headers["webhook-signature"], body, secret: key };
      ensure(await validateWebhook(signed), "signature");
      ensure(!(await validateWebhook({ ...signed, body: body + " " })), "a changed body passes");
      const again = new Set(received.map((e) => e.headers["webhook-id"]));
      ensure(again.size === received.length, "ids are unique");
    } finally {
      receiver.close();
    }
  },
  async training_from_a_buffer() {
    const name = "z" + Date.now();
    await replicate.models.create("me", name, { visibility: "private", hardware: "cpu" });
    const zip = await replicate.files.create(readFileSync(process.env.CALOTYPE_TEST_ZIP));
    let training = await replicate.trainings.create("ostris", "flux-dev-lora-trainer", "4ffd32160efd92e956d39c5338a9b8fbafca58e03f791f6d8011f3e20e8ea6fa", {
      destination: `me/${name}`, input: { input_images: zip.urls.get, steps: 4, resolution: "96", lora_rank: 2, autocaption: false } });
    for (let i = 0; i < 3000 && !["succeeded", "failed", "canceled"].includes(training.status); ++i) {
      await sleep(200);
      training = await replicate.trainings.get(training.id);
    }
    ensure(training.status === "succeeded", { status: training.status, error: training.error });
    ensure(parseProgressFromLogs(training)?.percentage === 1, training.logs.slice(-300));
    ensure((await replicate.trainings.list()).results.some((t) => t.id === training.id), "list");
  },
  async wrong_token_gets_401() {
    if (!process.env.CALOTYPE_LIMITED_URL) return;
    const other = new Replicate({ auth: "wrong-wrong", baseUrl: process.env.CALOTYPE_LIMITED_URL + "/v1" });
    const error = await failure(other.accounts.current());
    ensure(error.message.includes("401") && error.message.includes("Unauthenticated"), error.message);
  },
  async errors() {
    const version = await failure(replicate.predictions.create({ version: "0".repeat(64), input: {} }));
    ensure(version.message.includes("422"), version.message);
    const input = await failure(replicate.run(SCHNELL, { input: { prompt: "x", num_outputs: 9 } }));
    ensure(input.message.includes("num_outputs"), input.message);
    const failed = await failure(replicate.run(DEV, { input: { prompt: "fail please", image: BASE + "/nothing.png", num_inference_steps: 1 } }));
    ensure(failed.message.includes("Prediction failed"), failed.message);
  },
};

const only = process.argv.slice(2);
for (const [name, run] of Object.entries(checks)) {
  if (only.length && !only.includes(name)) continue;
  try {
    await run();
    console.log("ok", name);
  } catch (error) {
    console.log(`FAIL ${name}: ${error.message.slice(0, 400)} ${(error.stack ?? "").split("\n").find((l) => l.includes("replicate_js.mjs"))?.trim() ?? ""}`);
  }
}
process.exit(0);
