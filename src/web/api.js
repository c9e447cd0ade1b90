// Requests to this server, and its errors in words. The token, where one is needed, stays in this browser's storage.
import {parse_json} from "./text.js";

const kTokenKey = "calotype.token";

export const token = () => localStorage.getItem(kTokenKey) ?? "";

export function set_token(text) {
  if (text) localStorage.setItem(kTokenKey, text);
  else localStorage.removeItem(kTokenKey);
}

/// status 0: the server was not reached. fields: complaints by the name of the input they belong to.
export class ApiError extends Error {
  constructor(message, status, fields = new Map()) {
    super(message);
    this.status = status;
    this.fields = fields;
  }
}

function error_from(status, body) {
  const fields = new Map();
  for (const {field, description} of body?.invalid_fields ?? []) {
    // What is missing is reported for the input as a whole: "prompt is required".
    const missing = field === "input" ? /^(\w+) is required/.exec(description)?.[1] : null;
    fields.set(missing ?? field.replace(/^input\./, ""), missing ? "This is needed." : description);
  }
  const message = body?.detail || body?.title || `The server answered ${status}.`;
  return new ApiError(message, status, fields);
}

export function headers(more = {}) {
  return {...(token() ? {Authorization: `Bearer ${token()}`} : {}), "X-Calotype-Source": "web", ...more};
}

export const unreachable = () =>
  new ApiError("The server does not answer. Nothing is lost: try again when it is back.", 0);

/// JSON in, JSON out. ApiError for everything else; 401 also asks the person to sign in.
export async function call(path, {method = "GET", body, signal} = {}) {
  let answer, text;
  try {
    answer = await fetch(path, {
      method,
      signal,
      cache: "no-store",
      headers: headers(body === undefined ? {} : {"Content-Type": "application/json"}),
      body: body === undefined ? undefined : JSON.stringify(body),
    });
    text = await answer.text();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw unreachable();
  }
  let parsed = null;
  try {
    parsed = text ? parse_json(text) : null;
  } catch {
    // a proxy's page, for example
  }
  if (answer.status === 401) document.dispatchEvent(new CustomEvent("sign-in-needed"));
  if (!answer.ok) throw error_from(answer.status, parsed);
  if (parsed === null && answer.status !== 204) throw unreachable();  // cut off on the way
  return parsed;
}

// A connection that breaks is tried again after these seconds, and at once when the network is back.
const kPauses = [1, 2, 5, 10, 20];
const kStalled = 60_000;  // without a byte
const kPassing = new Set([0, 408, 429, 502, 503, 504]);

/// Uploads one file; on_progress(share 0 to 1), on_pause(seconds) before it is tried again. Resolves to the file's URL
/// for inputs. signal cancels.
export async function upload(file, name, {on_progress, on_pause, signal} = {}) {
  for (const pause of [...kPauses, 0]) {
    try {
      return await send_file(file, name, on_progress, signal);
    } catch (error) {
      if (!(error instanceof ApiError) || !kPassing.has(error.status) || !pause) throw error;
      on_pause?.(pause);
      await rest(pause * 1000, signal);
    }
  }
}

function send_file(file, name, on_progress, signal) {
  return new Promise((resolve, reject) => {
    const form = new FormData();
    form.append("content", file, name);
    const request = new XMLHttpRequest();  // fetch() tells no progress of uploads
    let stalled = false, clock = 0;
    const watch = () => {
      clearTimeout(clock);
      clock = setTimeout(() => { stalled = true; request.abort(); }, kStalled);
    };
    request.open("POST", "/v1/files");
    for (const [key, value] of Object.entries(headers())) request.setRequestHeader(key, value);
    request.upload.onprogress = (event) => {
      watch();
      on_progress?.(event.loaded / Math.max(event.total, 1));
    };
    request.upload.onload = () => clearTimeout(clock);  // now the server works
    request.onerror = () => reject(unreachable());
    request.onabort = () => reject(stalled ? unreachable() : new DOMException("canceled", "AbortError"));
    request.onload = () => {
      let body = null;
      try {
        body = JSON.parse(request.responseText);
      } catch {
        // below
      }
      if (request.status === 401) document.dispatchEvent(new CustomEvent("sign-in-needed"));
      if (request.status >= 200 && request.status < 300 && body) resolve(body.urls.get);
      else reject(error_from(request.status, body));
    };
    const cancel = () => request.abort();
    signal?.addEventListener("abort", cancel);
    request.onloadend = () => {
      clearTimeout(clock);
      signal?.removeEventListener("abort", cancel);
    };
    if (signal?.aborted) return reject(new DOMException("canceled", "AbortError"));
    watch();
    request.send(form);
  });
}

/// Until the time is over or the network is back.
function rest(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const end = () => {
      clearTimeout(clock);
      removeEventListener("online", end);
      signal?.removeEventListener("abort", end);
      if (signal?.aborted) reject(new DOMException("canceled", "AbortError"));
      else resolve();
    };
    const clock = setTimeout(end, milliseconds);
    addEventListener("online", end);
    signal?.addEventListener("abort", end);
  });
}

const path_of = (full_name) => full_name.split("/").map(encodeURIComponent).join("/");

export const model = (full_name) => call(`/v1/models/${path_of(full_name)}`);
export const versions = (full_name) => call(`/v1/models/${path_of(full_name)}/versions?limit=100`);
export const about_model = (full_name) => call(`/v1/page/models/${path_of(full_name)}`);
export const examples = (full_name) => call(`/v1/models/${path_of(full_name)}/examples`);
export const site = () => call("/v1/page/site");
export const account = () => call("/v1/account");
export const job = (id, signal) => call(`/v1/page/jobs/${encodeURIComponent(id)}`, {signal});

/// kind, status, search, model, cursor, limit: empty ones are left out.
export function jobs(query = {}, signal) {
  const parameters = new URLSearchParams(Object.entries(query).filter(([, value]) => value));
  return call(`/v1/page/jobs?${parameters}`, {signal});
}

/// All pages of models: there are rarely more than a few dozen.
export async function models() {
  const all = [];
  for (let path = "/v1/models?limit=100"; path;) {
    const page = await call(path);
    all.push(...page.results);
    path = page.next ? new URL(page.next).pathname + new URL(page.next).search : "";
  }
  return all;
}

export function run(full_name, input, version) {
  return version
    ? call("/v1/predictions", {method: "POST", body: {version, input}})
    : call(`/v1/models/${path_of(full_name)}/predictions`, {method: "POST", body: {input}});
}

export const train = (trainer, version, destination, input) =>
  call(`/v1/models/${path_of(trainer)}/versions/${version}/trainings`, {method: "POST", body: {destination, input}});

/// What a training will take: {steps, seconds, memory_bytes, memory_measured}, null for what is not known.
export const forecast = (trainer, input, signal) => call("/v1/page/forecast", {method: "POST", body: {trainer, input}, signal});

/// A training's adapter to the hub; on_progress(share 0 to 1). Resolves to the address of the repository.
export async function push(id, {repository, token: key, hidden}, on_progress) {
  const answer = await fetch(`/v1/page/trainings/${encodeURIComponent(id)}/push`, {
    method: "POST", cache: "no-store", headers: headers({"Content-Type": "application/json"}),
    body: JSON.stringify({repository, token: key, private: hidden}),
  }).catch(() => { throw unreachable(); });
  if (!answer.ok) throw error_from(answer.status, await answer.json().catch(() => null));
  const events = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let text = ""; ;) {
    const {value, done} = await events.read().catch(() => ({done: true}));
    if (done) throw new ApiError("The connection broke; the server goes on sending. Press again to be sure: what the hub has is not sent twice.", 0);
    text += value;
    for (let end; (end = text.indexOf("\n\n")) >= 0; text = text.slice(end + 2)) {
      const kind = /^event: (\w+)/m.exec(text.slice(0, end))?.[1], data = parse_json(/^data: (.*)$/m.exec(text.slice(0, end))?.[1] ?? "{}");
      if (kind === "progress" && data.total) on_progress(data.done / data.total);
      if (kind === "failed") throw new ApiError(data.detail, 502);
      if (kind === "done") return data.page;
    }
  }
}

export const cancel = (id, kind = "prediction") =>
  call(`/v1/${kind}s/${encodeURIComponent(id)}/cancel`, {method: "POST"});

export const create_model = (owner, name, description) =>
  call("/v1/models", {method: "POST", body: {owner, name, description, visibility: "private", hardware: "cpu"}});
