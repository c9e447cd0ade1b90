// What needs no job: loading, safety, words, keyboard, accessibility.
import {assert, axe, check, equal, patience, prompt, until} from "./support.mjs";

const kModel = "/black-forest-labs/flux-dev";
const kPages = ["/", kModel, `${kModel}?tab=api`, `${kModel}?tab=examples`, `${kModel}?tab=versions`, `${kModel}?tab=train`, "/replicate/canary", "/train", "/gallery", "/settings"];

check("the first load is small, quick and only ours", "idle", async ({page, server}) => {
  const foreign = [];
  page.on("request", (request) => { if (!/^(data|blob):/.test(request.url()) && !request.url().startsWith(server.url)) foreign.push(request.url()); });
  await page.goto(server.url + kModel);
  await page.getByRole("button", {name: "Run", exact: true}).waitFor();
  await page.waitForLoadState("networkidle");
  equal(foreign, [], "requests to others");
  const bytes = await page.evaluate(() => [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")]
    .filter((entry) => !new URL(entry.name).pathname.startsWith("/v1/")).reduce((sum, entry) => sum + entry.decodedBodySize, 0));
  assert(bytes > 20_000 && bytes <= 150_000, `the page's files take ${bytes} bytes, expected at most 150,000`);
  // Later visits, so that the browser's own start does not count; the best of five and in proportion to what else the
  // processors do, as machines are busy.
  const times = [];
  for (let i = 0; i < 5; ++i) {
    await page.goto(server.url + kModel);
    await page.getByRole("button", {name: "Run", exact: true}).waitFor();
    times.push(await page.evaluate(() => performance.now()));
  }
  const limit = 300 * patience();
  assert(Math.min(...times) < limit, `usable after ${times.map(Math.round)} ms, expected less than ${limit.toFixed()}`);
});

check("files carry types, tags and a strict policy", "idle", async ({server}) => {
  for (const [path, type] of [["/", "text/html"], ["/gallery", "text/html"], ["/p/abc", "text/html"], ["/-/app.js", "text/javascript"], ["/-/style.css", "text/css"], ["/-/icon.svg", "image/svg+xml"]]) {
    const answer = await fetch(server.url + path, {headers: {Accept: "text/html"}});
    equal(answer.status, 200, path);
    assert(answer.headers.get("content-type").startsWith(type), `${path} is ${answer.headers.get("content-type")}`);
    const policy = answer.headers.get("content-security-policy");
    assert(policy.includes("default-src 'none'") && !policy.includes("unsafe") && policy.includes("trusted-types"), `${path}: ${policy}`);
    const again = await fetch(server.url + path, {headers: {Accept: "text/html", "If-None-Match": answer.headers.get("etag")}});
    equal(again.status, 304, `${path} again`);
  }
  equal((await fetch(`${server.url}/-/nothing.js`)).status, 404, "a file that is not there");
  // Programs that err must not get a page.
  equal((await fetch(`${server.url}/v1/nothing`, {headers: {Accept: "application/json"}})).status, 404, "an unknown path of the API");
});

for (const scheme of ["light", "dark"])
  check(`axe finds nothing, ${scheme}`, "idle", async ({page, server}) => {
    await page.emulateMedia({colorScheme: scheme});
    for (const path of kPages) {
      await page.goto(server.url + path);
      await page.locator("#main > *").first().waitFor();
      if (path === kModel) await page.locator(".more summary").click();
      await page.waitForTimeout(100);
      equal(await axe(page), [], path);
    }
  });

for (const [width, height] of [[1440, 900], [820, 1180], [390, 844]])
  check(`nothing is wider than ${width} pixels`, "idle", async ({page, server}) => {
    await page.setViewportSize({width, height});
    for (const path of kPages) {
      await page.goto(server.url + path);
      await page.locator("#main > *").first().waitFor();
      await page.waitForTimeout(50);
      const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
      assert(wide <= 0, `${path} is ${wide} pixels too wide`);
    }
    await page.goto(`${server.url}/black-forest-labs/flux-dev-lora`);
    await page.getByRole("button", {name: "Add an adapter"}).click();
    await page.locator(".more summary").click();
    const [field, form] = await page.evaluate(() => [Math.max(...[...document.querySelectorAll(".form *")].map((each) => each.getBoundingClientRect().right)), document.querySelector(".sheet").getBoundingClientRect().right]);
    assert(field <= form + 1, `a field ends at ${field}, its form at ${form}`);
  });

check("numbers come back as they were sent", "idle", async ({page, server}) => {
  await page.goto(server.url);
  const read = (text) => page.evaluate(async (text) => (await import("/-/text.js")).parse_json(text), text);
  const times = '{"predict_time":0.98765432109876543,"total_time":-1234567890123456789.5e-3,"logs":"at 0.98765432109876543"}';
  equal(await read(times), JSON.parse(times), "fractions are no integers");
  equal(await read('{"seed":18446744073709551615,"more":[-9007199254740993,42]}'), {seed: "18446744073709551615", more: ["-9007199254740993", 42]}, "no digit is lost");
});

check("the API page lists the routes", "idle", async ({page, server}) => {
  await page.goto(`${server.url}/docs`);
  for (const route of ["/v1/predictions", "/v1/images/generations", "/v1/flux-dev"]) await page.getByText(route, {exact: true}).first().waitFor();
});

check("an unknown address says so and leads on", "idle", async ({page, server}) => {
  await page.goto(`${server.url}/nobody/nothing`);
  await page.getByText("There is nothing at this address.").waitFor();
  await page.getByRole("link", {name: "All models"}).click();
  await page.getByRole("heading", {name: "Pictures from words"}).waitFor();
}, {expected: /404/});

check("empty pages say what to do first", "idle", async ({page, server}) => {
  await page.goto(`${server.url}/`);
  await page.getByRole("link", {name: "Train one"}).click();
  await page.getByText("Drop pictures, a folder or a zip here").waitFor();
});

check("what stands in for a model is said, and how to have the model", "idle", async ({page, server}) => {
  for (const path of ["/", kModel, "/train", "/settings"]) {
    await page.goto(server.url + path);
    const words = page.locator(".stand-in").first(), command = words.getByText("calotype serve --model dev=FOLDER");
    await words.waitFor();
    if (path !== "/settings") await words.getByText("How to have FLUX.1 itself").click();
    await command.waitFor();
    assert(/stands in/.test(await words.textContent()), await words.textContent());
  }
  // The model in the box is called what it is.
  await page.route("**/v1/page/site", async (route) => {
    const answer = await route.fetch();
    await route.fulfill({json: {...await answer.json(), note: "Pictures of black-forest-labs/flux-dev are drawn by calotype-icons, which stands in for them."}});
  });
  await page.goto(`${server.url}/`);
  await page.getByText("It is the small model in the box: it draws simple icons").waitFor();
  await page.goto(`${server.url}/train`);
  await page.getByText("it does not fit FLUX.1").waitFor();
});

check("a first prompt is two presses away", "idle", async ({page, server}) => {
  await page.goto(`${server.url}/`);
  await page.getByRole("link", {name: "Draw a picture"}).click();
  await page.getByRole("button", {name: "take an example"}).click();
  const card = page.locator(".example").first(), words = await card.locator("p").textContent();
  await card.getByRole("button").click();
  equal(await prompt(page).inputValue(), words, "the example's prompt");
  // What the model in the box cannot follow comes last.
  await page.route("**/v1/page/models/**", async (route) => {
    const answer = await route.fetch();
    await route.fulfill({json: {...await answer.json(), note: "Pictures of black-forest-labs/flux-dev are drawn by calotype-icons, which stands in for them."}});
  });
  await page.goto(`${server.url}${kModel}?tab=examples`);
  await page.locator(".examples h2").first().waitFor();
  equal(await page.locator(".examples h2").allTextContents(), ["Short and plain", "For FLUX.1: long prompts", "For FLUX.1: text in pictures"], "the order");
});

check("a start picture is shown, waited for and removed", "idle", async ({page, server}) => {
  await page.goto(server.url + kModel);
  await prompt(page).fill("a fox");
  await page.locator(".more summary").click();
  let go_on = () => {};
  const held = new Promise((resolve) => { go_on = resolve; });
  await page.route("**/v1/files", async (route) => { await held; await route.continue(); });
  const field = page.locator('[data-field="image"]'), url = page.getByLabel("Start picture", {exact: true});
  const [chooser] = await Promise.all([page.waitForEvent("filechooser"), field.getByRole("button", {name: "Choose a file for Start picture"}).click()]);
  await chooser.setFiles({name: "dot.gif", mimeType: "image/gif", buffer: Buffer.from("R0lGODlhAQABAPAAAP8AAP///yH5BAAAAAAALAAAAAABAAEAAAICRAEAOw==", "base64")});
  await page.getByRole("button", {name: "Run", exact: true}).click();
  go_on();
  await page.locator(".pill.starting").waitFor();
  const {results} = await server.get("/v1/predictions?limit=1");
  assert(/\/v1\/files\//.test(results[0].input.image), "Run waited for the picture");
  await page.reload();
  await page.locator(".more summary").click();
  await until(() => field.locator("img.thumb").evaluate((image) => !image.hidden && image.naturalWidth === 1), "the picture after reloading");
  await field.getByRole("button", {name: "Remove Start picture"}).click();
  equal(await url.inputValue(), "", "the field");
  equal(await page.evaluate(() => JSON.parse(localStorage.getItem("calotype.form.black-forest-labs/flux-dev")).image), undefined, "the kept form");
  await server.post(`/v1/predictions/${results[0].id}/cancel`, {});
});

check("the keyboard reaches everything", "idle", async ({page, server}) => {
  await page.goto(server.url + kModel);
  await page.locator("textarea").waitFor();
  await page.keyboard.press("Tab");
  equal(await page.evaluate(() => document.activeElement.textContent), "Skip to the content", "the first stop");
  await page.getByRole("tab", {name: "Playground"}).focus();
  await page.keyboard.press("ArrowRight");
  assert(await page.getByRole("tab", {name: "API"}).getAttribute("aria-selected") === "true", "the arrow chooses the next tab");
  await page.locator("pre.code").waitFor();
  await page.keyboard.press("Home");
  await page.locator("textarea").focus();
  const seen = new Set();
  for (let i = 0; i < 30 && !seen.has("Run"); ++i) {
    await page.keyboard.press("Tab");
    seen.add(await page.evaluate(() => document.activeElement.textContent.trim()));
  }
  assert(seen.has("Run") && seen.has("More settings"), `stops: ${[...seen]}`);
});

check("the form is kept, and snippets follow it", "idle", async ({page, server}) => {
  await page.goto(server.url + kModel);
  await prompt(page).fill(`He said "it's 5 $HOME" \\ done`);
  await page.getByLabel("Seed", {exact: true}).fill("18446744073709551615");
  await page.getByRole("radio", {name: "16:9"}).check();
  await page.reload();
  equal(await prompt(page).inputValue(), `He said "it's 5 $HOME" \\ done`, "the prompt after reloading");
  equal(await page.getByLabel("Seed", {exact: true}).inputValue(), "18446744073709551615", "the seed after reloading");
  await page.getByRole("tab", {name: "API"}).click();
  const code = page.locator("pre.code");
  assert((await code.textContent()).includes('"aspect_ratio": "16:9"'), "Python has the ratio");
  await page.getByRole("tab", {name: "Playground"}).click();
  await page.getByRole("radio", {name: "png"}).check();
  await page.getByRole("tab", {name: "API"}).click();
  assert((await code.textContent()).includes('out-{number}.png'), "the file is named for its format");
  await page.getByRole("button", {name: "curl"}).click();
  const command = await code.textContent();
  assert(command.includes(`it'\\''s 5 $HOME`), `quotes for the shell: ${command}`);
  // The shell is the judge: what curl would send is what the form holds.
  const {execFileSync} = await import("node:child_process");
  const sent = execFileSync("sh", ["-c", command.replace(/^curl/, "curl() { while [ $# -gt 1 ]; do shift; done; printf %s \"$1\"; }; curl")], {encoding: "utf8"});
  equal(JSON.parse(sent).input.prompt, `He said "it's 5 $HOME" \\ done`, "the prompt through the shell");
});

check("errors stand at their field", "idle", async ({page, server}) => {
  await page.goto(server.url + kModel);
  await page.getByRole("button", {name: "Run", exact: true}).click();
  const complaint = page.locator('[data-field="prompt"] .complaint');
  await until(async () => (await complaint.textContent()).length > 5, "a complaint about the missing prompt");
  equal(await page.evaluate(() => document.activeElement.tagName), "TEXTAREA", "the focus goes there");
  await prompt(page).fill("a fox");
  await page.getByLabel("Seed", {exact: true}).fill("-1.5");
  await page.getByRole("button", {name: "Run", exact: true}).click();
  await until(async () => (await page.locator('[data-field="seed"] .complaint').textContent()).length > 5, "a complaint about the seed");
}, {expected: /422/});

check("signing in", "locked", async ({page, server}) => {
  await page.goto(`${server.url}/settings`);
  const dialog = page.getByRole("dialog");
  await dialog.getByLabel("Token").fill("wrong-token");
  await dialog.getByRole("button", {name: "Sign in"}).click();
  await dialog.getByText("This token is not known here.").waitFor();
  await dialog.getByLabel("Token").fill("a-token-of-the-tests");
  await dialog.getByRole("button", {name: "Sign in"}).click();
  await page.getByRole("heading", {name: "Storage"}).waitFor();
  await page.goto(server.url + kModel);
  await prompt(page).fill("a fox");
  await page.getByRole("button", {name: "Run", exact: true}).click();
  await page.locator(".pill.starting").waitFor();
  await page.goto(`${server.url}/settings`);
  await page.getByRole("button", {name: "Sign out"}).click();
  await page.getByRole("dialog").waitFor();
}, {expected: /401/});
