// Ten thousand pictures: only those in view are in the page, and scrolling stays smooth.
import {execFileSync} from "node:child_process";
import path from "node:path";
import {assert, axe, check, equal, patience, until} from "./support.mjs";

const kCount = 10_000;

// Copies of one canceled job with other ids and times, as the database has them.
const kCopies = `
import sqlite3, sys
base = sqlite3.connect(sys.argv[1], timeout=30)
base.row_factory = sqlite3.Row
row = dict(base.execute("SELECT * FROM jobs LIMIT 1").fetchone())
names = list(row)
place = ",".join("?" * len(names))
def copy(i):
    new = dict(row)
    for name in names:
        if name in ("id", "stream_token"): new[name] = f"copy{i:022d}"
        elif name == "created_at": new[name] = row[name] - (i + 1) * 60_000_000
        elif isinstance(row[name], str) and "number zero" in row[name]: new[name] = row[name].replace("number zero", f"number {i}")
    return [new[name] for name in names]
base.executemany(f"INSERT INTO jobs ({','.join(names)}) VALUES ({place})", (copy(i) for i in range(int(sys.argv[2]))))
base.commit()
`;

check("ten thousand entries scroll smoothly", "full", async ({page, server}) => {
  const job = await server.post("/v1/models/black-forest-labs/flux-schnell/predictions", {input: {prompt: "picture number zero"}});
  await server.post(`/v1/predictions/${job.id}/cancel`, {});
  execFileSync("python3", ["-c", kCopies, path.join(server.data, "calotype.db"), String(kCount)]);
  await page.goto(`${server.url}/gallery`);
  await page.locator(".cell").first().waitFor();
  // To the end, as fast as pages come; frames are counted on the way.
  const frames = await page.evaluate(async (count) => {
    const gaps = [];
    let before = performance.now(), most = 0;
    const end = before + 60000;
    for (let still = 0, height = 0; still < 120 && before < end;) {
      scrollBy(0, 1500);
      await new Promise(requestAnimationFrame);
      const now = performance.now();
      gaps.push(now - before);
      before = now;
      most = Math.max(most, document.querySelectorAll(".cell").length);
      still = document.documentElement.scrollHeight === height ? still + 1 : 0;
      height = document.documentElement.scrollHeight;
    }
    gaps.sort((a, b) => a - b);
    return {most, p95: gaps[Math.floor(gaps.length * 0.95)], last: Math.max(...[...document.querySelectorAll(".cell")].map((cell) => Number(cell.getAttribute("aria-posinset"))))};
  }, kCount);
  assert(frames.last === kCount + 1, `the end is reached: ${frames.last}`);
  assert(frames.most < 200, `${frames.most} entries were in the page at once`);
  // 60 frames a second leave 17 ms; busy machines get three times as long.
  const limit = 50 * patience();
  assert(frames.p95 < limit, `95 of 100 frames took up to ${frames.p95.toFixed(1)} ms, expected ${limit.toFixed()}`);
});

check("axe finds nothing on pages with content", "working", async ({page, server}) => {
  const done = await server.post("/v1/models/black-forest-labs/flux-schnell/predictions", {input: {prompt: "an accessible fox", num_outputs: 2}});
  const failed = await server.post("/v1/models/black-forest-labs/flux-schnell-lora/predictions", {input: {prompt: "fail", lora_weights: "http://127.0.0.1:9/nothing.safetensors"}});
  for (const job of [done, failed])
    await until(async () => ["succeeded", "failed"].includes((await server.get(`/v1/predictions/${job.id}`)).status), "the job ends", 60000);
  const trainings = (await server.get("/v1/trainings")).results.map((training) => `/p/${training.id}`);
  for (const path of [`/p/${done.id}`, `/p/${failed.id}`, "/", "/gallery", "/settings", ...trainings.slice(0, 2)]) {
    await page.goto(server.url + path);
    await page.locator("#main > *").first().waitFor();
    await page.waitForTimeout(400);
    for (const fold of await page.locator("main summary:visible").all()) await fold.click();
    equal(await axe(page), [], path);
  }
});

check("a strip of pictures widens nothing", "working", async ({page, server}) => {
  for (let i = 0; i < 8; ++i) await server.post("/v1/models/black-forest-labs/flux-schnell/predictions", {input: {prompt: `picture ${i}`, num_inference_steps: 1}});
  for (const [width, height] of [[390, 844], [820, 1180]]) {
    await page.setViewportSize({width, height});
    await page.goto(`${server.url}/black-forest-labs/flux-schnell`);
    await until(async () => await page.locator(".strip .mini").count() >= 8, "the strip");
    const [stage, strip] = await page.evaluate(() => [".stage", ".strip"].map((each) => document.querySelector(each).getBoundingClientRect().right));
    const edge = await page.evaluate(() => document.documentElement.clientWidth);
    assert(Math.max(stage, strip) <= edge - 15, `stage ends at ${stage}, strip at ${strip}, of ${edge} pixels`);
  }
});

check("search and filters", "full", async ({page, server}) => {
  await page.goto(`${server.url}/gallery`);
  await page.locator(".cell").first().waitFor();
  await page.getByLabel("Search in prompts").fill("number 4711");
  await until(async () => await page.locator(".cell").count() === 1, "one entry is left");
  await page.reload();
  await until(async () => await page.locator(".cell").count() === 1, "the search is kept");
  await page.getByLabel("Status").selectOption("succeeded");
  await page.getByText("Nothing fits.").waitFor();
  equal(new URL(page.url()).searchParams.get("search"), "number 4711", "the address");
});
