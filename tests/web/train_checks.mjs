// From dropped pictures to a model that can be tried.
import {execFileSync} from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import {deflateSync} from "node:zlib";
import {assert, axe, prompt, check, equal, folder, until} from "./support.mjs";

const kHostileName = `<b onclick=alert(1)>evil 🦊 "x".png`;
const kHostileCaption = `<script>document.title="broken"</script> "quoted" ümläut`;

/// node:zlib has one from version 20.15 on only.
function crc32(bytes) {
  let sum = ~0;
  for (const byte of bytes) {
    sum ^= byte;
    for (let bit = 0; bit < 8; ++bit) sum = (sum >>> 1) ^ (sum & 1 ? 0xedb88320 : 0);
  }
  return ~sum >>> 0;
}

/// A PNG of one colour (RFC 2083), so that no file lies about.
function png(width, height, shade) {
  const chunk = (type, data) => {
    const body = Buffer.concat([Buffer.from(type), data]), size = Buffer.alloc(4), sum = Buffer.alloc(4);
    size.writeUInt32BE(data.length);
    sum.writeUInt32BE(crc32(body));
    return Buffer.concat([size, body, sum]);
  };
  const head = Buffer.alloc(13);
  head.writeUInt32BE(width, 0);
  head.writeUInt32BE(height, 4);
  head.set([8, 2, 0, 0, 0], 8);
  const rows = Buffer.concat(Array.from({length: height}, (_, y) => Buffer.concat([Buffer.from([0]), Buffer.from(Array.from({length: width * 3}, (_, x) => (shade + x * 3 + y * 5) & 255))])));
  return Buffer.concat([Buffer.from("\x89PNG\r\n\x1a\n", "latin1"), chunk("IHDR", head), chunk("IDAT", deflateSync(rows)), chunk("IEND", Buffer.alloc(0))]);
}

const dropped = () => [
  ...Array.from({length: 10}, (_, i) => ({name: `fox_${i}.png`, mimeType: "image/png", buffer: png(320, 300, i * 20)})),
  {name: "fox_1.txt", mimeType: "text/plain", buffer: Buffer.from("a clay fox")},
  {name: kHostileName, mimeType: "image/png", buffer: png(300, 320, 9)},
  {name: "broken.jpg", mimeType: "image/jpeg", buffer: Buffer.from("no picture")},
  {name: "notes.pdf", mimeType: "application/pdf", buffer: Buffer.from("%PDF")},
];

async function drop(page, files) {
  const transfer = await page.evaluateHandle((list) => {
    const transfer = new DataTransfer();
    for (const {name, mimeType, bytes} of list) transfer.items.add(new File([Uint8Array.from(atob(bytes), (c) => c.charCodeAt(0))], name, {type: mimeType}));
    return transfer;
  }, files.map(({name, mimeType, buffer}) => ({name, mimeType, bytes: buffer.toString("base64")})));
  await page.dispatchEvent(".drop-zone", "drop", {dataTransfer: transfer});
}

check("pictures are shown, captioned and judged", "idle", async ({page, server}) => {
  await page.goto(`${server.url}/train`);
  const zone = page.locator(".drop-zone");
  await zone.waitFor();
  await page.getByRole("button", {name: "Start training"}).click();
  await zone.getByText("Choose some pictures first").waitFor();
  await drop(page, dropped());
  await until(async () => /11 pictures/.test(await page.locator(".tally").textContent()), "eleven pictures are counted");
  assert(!await zone.locator(".complaint").isVisible(), "the complaint goes when there are pictures");
  await until(async () => /1 will be left out/.test(await page.locator(".tally").textContent()), "the broken one is seen");
  await page.getByText("notes.pdf: left out").waitFor();
  equal(await page.getByLabel("Caption of fox_1.png").inputValue(), "a clay fox", "the caption that came along");
  equal(await page.evaluate(() => document.querySelectorAll("main b").length), await page.evaluate(() => document.querySelectorAll(".legend b").length), "no element is made of a file name");
  await page.getByRole("button", {name: "Start training"}).click();
  await page.getByText("Give the model a name.").waitFor();
});

check("a zip is opened", "idle", async ({page, server}) => {
  // Made by Python, deflated, with a folder and what macOS leaves behind.
  const zip = path.join(folder, "made.zip");
  fs.writeFileSync(path.join(folder, "a.png"), png(300, 300, 4));
  execFileSync("python3", ["-c", `import zipfile,sys
with zipfile.ZipFile(sys.argv[1],"w",zipfile.ZIP_DEFLATED) as z:
    z.write(sys.argv[2],"set/a.png"); z.write(sys.argv[2],"set/ü.png"); z.writestr("set/a.txt","from the zip"); z.writestr("__MACOSX/set/._a.png","x"); z.writestr(".license/LICENSE","x")`, zip, path.join(folder, "a.png")]);
  await page.goto(`${server.url}/train`);
  await page.locator(".drop-zone input[type=file]").setInputFiles(zip);
  await until(async () => /2 pictures/.test(await page.locator(".tally").textContent()), "two pictures");
  equal(await page.getByLabel("Caption of a.png").inputValue(), "from the zip", "the caption in the zip");
  equal(await page.locator(".dataset .warning").count(), 0, "complaints about hidden files");
  // Captions and the name are still there after a visit elsewhere.
  await page.getByLabel("Caption of a.png").fill("written here");
  await page.getByPlaceholder("my-first-model").fill("from-a-zip");
  await page.getByRole("link", {name: "Gallery"}).click();
  await page.getByRole("heading", {name: "Gallery"}).waitFor();
  await page.goBack();
  equal(await page.getByLabel("Caption of a.png").inputValue(), "written here", "the caption after a visit elsewhere");
  equal(await page.getByPlaceholder("my-first-model").inputValue(), "from-a-zip", "the name after a visit elsewhere");
});

check("from dropped pictures to a model of one's own", "working", async ({page, server}) => {
  await page.goto(`${server.url}/train`);
  await page.locator(".drop-zone").waitFor();
  await drop(page, dropped());
  await until(async () => /11 pictures/.test(await page.locator(".tally").textContent()), "the pictures");
  await page.getByLabel(`Caption of ${kHostileName}`).fill(kHostileCaption);
  await page.getByLabel("Trigger word").fill("ZWX");
  await page.getByRole("spinbutton", {name: "Steps"}).fill("6");
  await page.getByPlaceholder("my-first-model").fill("Clay Fox");
  equal(await page.getByPlaceholder("my-first-model").inputValue(), "clay-fox", "the name as the server takes it");
  // Nothing was trained here before.
  await until(async () => /^About \d.* [MG]B of memory · the first steps will tell/.test(await page.locator(".forecast").textContent()), "memory is forecast, time is not");
  await page.getByRole("button", {name: "Start training"}).click();
  await page.waitForURL(/\/p\//, {timeout: 30000});

  await page.evaluate(() => {
    globalThis.shifts = [];
    new PerformanceObserver((list) => { for (const entry of list.getEntries()) globalThis.shifts.push([entry.value, ...entry.sources.map((source) => source.node?.className ?? source.node?.nodeName)]); }).observe({type: "layout-shift"});
  });

  // The upload is a zip that another program reads.
  const {results} = await server.get("/v1/files?limit=1");
  const zip = path.join(folder, "sent.zip");
  fs.writeFileSync(zip, Buffer.from(await (await fetch(`${server.url}/v1/files/${results[0].id}/download`)).arrayBuffer()));
  const listed = JSON.parse(execFileSync("python3", ["-c", `import zipfile,sys,json
z=zipfile.ZipFile(sys.argv[1]); assert z.testzip() is None
print(json.dumps({n: z.read(n).decode() if n.endswith(".txt") else len(z.read(n)) for n in z.namelist()}))`, zip], {encoding: "utf8"}));
  equal(Object.keys(listed).length, 13, `entries of the zip: ${Object.keys(listed)}`);
  equal(listed["fox_1.txt"], "a clay fox", "a caption");
  equal(listed[kHostileName.replace(".png", ".txt")], kHostileCaption, "a hostile caption, untouched");
  equal(listed[kHostileName], png(300, 320, 9).length, "a picture, untouched");

  await page.getByRole("link", {name: "Try it"}).waitFor({timeout: 240000});
  await until(async () => await page.locator("ol.previews li").count() === 6, "a preview of each step came while the page was open");
  // The one broken file was left out, and says so at the end.
  const shifts = await page.evaluate(() => globalThis.shifts);
  assert(shifts.reduce((sum, [value]) => sum + value, 0) < 0.03, `layout shifts ${JSON.stringify(shifts)}`);
  await page.getByRole("link", {name: "Try it"}).click();
  await page.getByRole("heading", {name: "clay-fox"}).waitFor();
  await prompt(page).fill("ZWX in the snow");
  await page.getByRole("spinbutton", {name: "Steps"}).fill("2");
  await page.getByRole("button", {name: "Run", exact: true}).click();
  await page.locator(".stage a.tile img").first().waitFor({timeout: 120000});
  await page.locator(".more summary").click();
  await page.getByLabel("Mask: the part to draw anew", {exact: true}).fill("https://example.com/mask.png");
  await page.getByRole("button", {name: "Run", exact: true}).click();
  await page.locator('[data-field="image"] .complaint').getByText("A mask needs the picture").waitFor();
  await page.getByRole("tab", {name: "Versions"}).click();
  await page.getByText("latest").waitFor();
  assert(await page.locator(".versions li").count() === 1, "one version");
});

/// The training that made clay-fox, by its page.
async function finished(page, server) {
  const {results} = await server.get("/v1/trainings");
  const training = results.find(({status, output}) => status === "succeeded" && output?.version);
  await page.goto(`${server.url}/p/${training.id}`);
  return training;
}

check("previews stay with their training", "working", async ({page, server}) => {
  await finished(page, server);
  const strip = page.getByRole("list", {name: "Previews of ZWX"});
  await strip.waitFor();
  equal(await strip.locator("img").evaluateAll((images) => images.map((image) => image.alt)), [1, 2, 3, 4, 5, 6].map((step) => `Step ${step}: ZWX`), "in the order of steps");
  await until(() => strip.locator("img").last().evaluate((image) => image.complete && image.naturalWidth > 0), "the last one is shown");
  equal(await axe(page), [], "axe");
});

check("the second training is forecast from the first", "working", async ({page, server}) => {
  await page.goto(`${server.url}/train`);
  const forecast = page.locator(".forecast");
  await until(async () => /^About \d[^·]* · \d+[^·]* of memory$/.test(await forecast.textContent()), "time and measured memory");
  const seconds = async () => (await server.post("/v1/page/forecast", {trainer: "ostris/flux-dev-lora-trainer", input: {steps: 500}})).seconds;
  const answer = await server.post("/v1/page/forecast", {trainer: "ostris/flux-dev-lora-trainer", input: {steps: 1000}});
  assert(Math.abs(answer.seconds - 2 * await seconds()) < 1e-6 * answer.seconds, "twice the steps take twice as long");
  // Other sizes of pictures were never trained here.
  await page.locator(".more summary, .form summary").first().click();
  await page.getByLabel("Resolution", {exact: true}).fill("64");
  await until(async () => /the first steps will tell/.test(await forecast.textContent()), "unknown is said");
  await page.getByLabel("Resolution", {exact: true}).fill("nonsense");
  await until(async () => /not known yet/.test(await forecast.textContent()), "nonsense is no reason to fail");
});

check("with and without the adapter, side by side", "working", async ({page, server}) => {
  await finished(page, server);
  await page.getByRole("button", {name: "Compare"}).click();
  await page.getByLabel("Prompt for both").fill("ZWX in the rain");
  await page.getByRole("button", {name: "Draw both"}).click();
  await until(async () => await page.locator(".pair .stage a.tile img").count() === 2, "two pictures", 240000);
  const {results} = await server.get("/v1/predictions?limit=2");
  equal(results[0].input.seed, results[1].input.seed, "the same seed");
  equal(results.map(({input}) => input.lora_scale ?? 1).sort(), [0, 1], "one without the adapter");
  equal(await axe(page), [], "axe");
});

check("to the hub", "working", async ({page, server}) => {
  const training = await finished(page, server);
  await page.getByRole("button", {name: "Push to Hugging Face"}).click();
  const form = page.getByRole("form", {name: "Push to Hugging Face"});
  const push = form.getByRole("button", {name: "Push"});
  await push.click();
  await form.locator("#hub-repository-error").getByText("This is needed.").waitFor();
  await form.getByLabel("Repository", {exact: true}).fill("no slash");
  await form.getByLabel("Access token").fill("hf_wrong");
  await push.click();
  await until(async () => (await form.locator("#hub-repository-error").textContent()).length > 10, "a name that cannot be");
  await form.getByLabel("Repository", {exact: true}).fill("me/clay-fox");
  await push.click();
  await until(async () => (await form.locator("#hub-general-error").textContent()).length > 10, "a token that may not", 30000);
  equal(await axe(page), [], "axe");
  await form.getByLabel("Access token").fill("hf_valid");
  await push.click();
  const link = form.getByRole("link", {name: `${server.hub.url}/me/clay-fox`});
  await link.waitFor({timeout: 30000});
  const card = await (await fetch(`${server.hub.url}/me/clay-fox/resolve/main/README.md`)).text();
  assert(card.includes('instance_prompt: "ZWX"') && card.includes("sample-0.webp"), card);
  const weights = await fetch(`${server.hub.url}/me/clay-fox/resolve/main/lora.safetensors`);
  assert((await weights.arrayBuffer()).byteLength > 1000, "the adapter is there");
  // The token is nowhere any more.
  equal(await form.getByLabel("Access token").inputValue(), "", "the field");
  const kept = await page.evaluate(() => document.documentElement.outerHTML + JSON.stringify({...localStorage, ...sessionStorage}));
  assert(!kept.includes("hf_valid"), "the page keeps the token");
  assert(!JSON.stringify(await server.get(`/v1/page/jobs/${training.id}`)).includes("hf_valid"), "the job keeps the token");
  const found = execFileSync("sh", ["-c", `grep -rl hf_valid "$0" || true`, server.data], {encoding: "utf8"});
  equal(found, "", "files of the server with the token");
  await page.reload();
  await page.getByText("On the hub:").getByRole("link", {name: `${server.hub.url}/me/clay-fox`}).waitFor();
}, {expected: /422/});

check("an upload goes on after the connection broke", "idle", async ({page, server}) => {
  await page.goto(`${server.url}/train`);
  await page.locator(".drop-zone").waitFor();
  await drop(page, dropped());
  await page.getByPlaceholder("my-first-model").fill("flaky-fox");
  let tries = 0;
  await page.route("**/v1/files", (route) => ++tries <= 2 ? route.abort("connectionreset") : route.continue());
  await page.getByRole("button", {name: "Start training"}).click();
  await page.getByText("The connection broke; sent again in 2 s").waitFor();
  await page.waitForURL(/\/p\//, {timeout: 30000});
  equal(tries, 3, "tries");
}, {expected: /ERR_|Failed to load/});

check("a training is canceled", "working", async ({page, server}) => {
  await page.goto(`${server.url}/ostris/flux-dev-lora-trainer`);  // a trainer's address is the same page
  await page.locator(".drop-zone").waitFor();
  await drop(page, dropped());
  await page.getByRole("spinbutton", {name: "Steps"}).fill("3000");
  await page.getByPlaceholder("my-first-model").fill("other-fox");
  await page.getByRole("button", {name: "Start training"}).click();
  await page.waitForURL(/\/p\//, {timeout: 30000});
  await page.getByText("Trigger word TOK").waitFor();
  await page.getByRole("button", {name: "Cancel"}).click();
  await page.locator(".pill.canceled").waitFor({timeout: 30000});
  await page.getByRole("button", {name: "Train again"}).waitFor();
});
