// What becomes of a prediction: its pictures while they form and when they are there, and what can be done with them.
// Everything has its room from the start, so that nothing moves while a job runs.
import * as api from "./api.js";
import {button, copy_text, el, fill, icon, notice} from "./dom.js";
import {follow} from "./events.js";
import {shape_of} from "./schema.js";
import {clock, duration, is_ended, picture_urls} from "./text.js";

export const kWords = {starting: "Waiting", processing: "Running", succeeded: "Done", failed: "Failed", canceled: "Canceled"};
const kStages = {load: "Loading the model", text: "Reading the prompt", encode: "Reading the prompt", denoise: "Drawing",
                 decode: "Developing", train: "Training", cache: "Encoding pictures", prepare: "Preparing",
                 fetch: "Fetching files", save: "Saving", check: "Checking the pictures", unpack: "Unpacking the pictures",
                 remote: "At the remote service"};

/// The seed as used: from the input, else from what the worker logged.
export function seed_of(job, logs = job.logs) {
  if (job.input?.seed !== undefined) return String(job.input.seed);
  return /Using seed:\s*(\d+)/.exec(logs)?.[1];
}

export const warnings_of = (job, logs = job.logs) =>
  [...new Set([...(job.metrics?.warnings ?? []), ...[...logs.matchAll(/^Warning: (.+)$/gm)].map((match) => match[1])])];

/// "Drawing, step 3 of 28 · 0.4 s a step · 10 s left".
export function progress_words({job, progress, place, connected}) {
  if (!connected) return "The server does not answer; waiting for it …";
  if (!job) return "";
  if (is_ended(job.status)) {
    const time = job.metrics?.predict_time;
    return time ? `in ${duration(time)}` : "";
  }
  if (job.status === "starting" && !progress?.total) {
    if (place === 0 || place === null) return "a worker takes it next";
    return place === 1 ? "one job is ahead" : `${place} jobs are ahead`;
  }
  if (!progress?.total) return progress?.stage ? kStages[progress.stage] ?? progress.stage : "starting";
  const parts = [`${kStages[progress.stage] ?? progress.stage}, ${progress.done} of ${progress.total}`];
  if (progress.rate > 0) parts.push(`${duration(progress.rate)} each`);
  if (progress.eta_seconds >= 0) parts.push(`${duration(progress.eta_seconds)} left`);
  return parts.join(" · ");
}

/// A line that says how far a job is, with Cancel; of fixed height.
export function status_line(kind) {
  const pill = el("span", {class: "pill"}), words = el("span", {class: "words"});
  const bar = el("progress", {max: 1, value: 0, "aria-label": "Progress"});
  const spoken = el("span", {class: "offscreen", role: "status"});
  const cancel = button("Cancel", async () => {
    cancel.disabled = true;
    try {
      await api.cancel(cancel.dataset.id, kind);
    } catch (error) {
      notice(error.message, "bad");
      cancel.disabled = false;
    }
  }, {icon: "stop", class: "cancel"});
  const node = el("div", {class: "status-line"}, el("div", {class: "row"}, pill, words, cancel), bar, spoken);
  const show = (state) => {
    const {job, progress} = state;
    if (!job) return;
    const ended = is_ended(job.status);
    pill.textContent = kWords[job.status];
    pill.className = `pill ${job.status}`;
    words.textContent = progress_words(state);
    bar.style.visibility = ended ? "hidden" : "visible";
    if (progress?.total) bar.value = progress.done / progress.total;
    else bar.removeAttribute("value");
    cancel.style.visibility = ended ? "hidden" : "visible";
    if (cancel.dataset.id !== job.id) cancel.dataset.id = job.id, cancel.disabled = false;
    // Only changes of state are read aloud; steps would never end.
    if (spoken.textContent !== kWords[job.status]) spoken.textContent = kWords[job.status];
  };
  return {node, show};
}

/// actions: {use_seed(seed), vary(input), start_from(url)?, reuse(input)}; each is a button when given. What concerns one
/// of several pictures stands on that picture.
export function job_view(actions = {}, empty = null, label = "Result") {
  const stage = el("div", {class: "stage"});
  const line = status_line("prediction");
  line.node.style.visibility = "hidden";
  const messages = el("div", {class: "messages"}), below = el("div", {class: "below"});
  const node = el("section", {class: "result", "aria-label": label}, stage, line.node, messages, below);
  let stop = null, shown = "";
  if (empty) fill(stage, empty);

  const render = (state) => {
    if (state.missing) {
      fill(stage, el("p", {class: "empty"}, "This job is no longer there; it was deleted."));
      return;
    }
    if (!state.job) return;
    line.node.style.visibility = "visible";
    line.show(state);
    show_pictures(stage, state, actions);
    const {job} = state, ended = is_ended(job.status);
    const key = `${job.id} ${job.status} ${state.outputs.length}`;
    if (key !== shown) {
      shown = key;
      fill(messages, job.error ? el("p", {class: "error", role: "alert"}, job.error) : null,
           warnings_of(job, state.logs).map((words) => el("p", {class: "warning"}, words)));
      fill(below, ended ? [action_row(state, actions), settings_list(job, state.logs)] : null, log_fold(state));
    }
    const log = below.querySelector(".log pre");
    if (log && log.textContent !== shown_log(state.logs)) log.textContent = shown_log(state.logs);
  };
  return {
    node,
    show(id, on_change) {
      stop?.();
      shown = "";
      stop = follow(id, (state) => { render(state); on_change?.(state); });
    },
    reserve(input) { stage.style.setProperty("--shape", shape_of(input)); },
    close: () => stop?.(),
  };
}

function show_pictures(stage, {job, preview, outputs}, actions) {
  const finished = picture_urls(job.output);
  const urls = finished.length ? finished : picture_urls(outputs);
  const said = [job.output ?? outputs].flat().filter((part) => part !== null && part !== "");
  const ended = is_ended(job.status);
  const count = Math.max(urls.length, ended ? urls.length : Number(job.input?.num_outputs) || 1, 1);
  stage.style.setProperty("--shape", shape_of(job.input ?? {}));
  stage.classList.toggle("several", count > 1);
  const key = `${job.id} ${count} ${urls.length ? urls.join(" ") : said.length} ${urls.length < count ? preview : ""} ${job.status}`;
  if (stage.dataset.key === key) return;
  stage.dataset.key = key;
  if (said.length && !urls.length) {
    const words = said.map((part) => typeof part === "string" ? part : JSON.stringify(part)).join("");
    return void fill(stage, el("p", {class: "text-output", dir: "auto"}, words));
  }
  const tiles = [];
  for (let i = 0; i < count; ++i) {
    const node = tile(job, urls[i], i, urls.length === 0 && i === 0 ? preview : "", ended);
    tiles.push(urls[i] && count > 1 ? el("div", {class: "held"}, node, corner(job, urls[i], i, actions)) : node);
  }
  fill(stage, tiles);
}

function tile(job, url, index, preview, ended) {
  const prompt = String(job.input?.prompt ?? "");
  if (url)
    return el("a", {class: "tile", href: url, target: "_blank", rel: "noopener", title: "Open the picture by itself"},
              el("img", {src: url, alt: prompt.slice(0, 300) || `Picture ${index + 1}`, decoding: "async"}));
  if (preview) return el("div", {class: "tile forming"}, el("img", {src: preview, alt: "The picture as it forms"}));
  const words = !ended ? "" : job.data_removed ? "Deleted after its time of keeping" : job.status === "failed" ? "No picture" : "Canceled";
  return el("div", {class: `tile ${ended ? "none" : "forming"}`}, words ? el("p", {class: "empty"}, words) : null);
}

const file_name = (job, url) => `${job.id.slice(0, 8)}-${decodeURIComponent(url.split("/").pop())}`;

/// The buttons on one of several pictures.
function corner(job, url, index, {start_from}) {
  const save = `Download picture ${index + 1}`, start = `Use picture ${index + 1} as start picture`;
  return el("div", {class: "corner"},
    start_from ? button("", () => start_from(url), {icon: "picture", class: "square", title: start, "aria-label": start}) : null,
    el("a", {class: "button square", href: url, download: file_name(job, url), title: save, "aria-label": save}, icon("download")));
}

function action_row({job, logs}, actions) {
  const urls = picture_urls(job.output), seed = seed_of(job, logs), single = urls.length === 1;
  const row = el("div", {class: "actions"});
  if (single) row.append(el("a", {class: "button", href: urls[0], download: file_name(job, urls[0])}, icon("download"), "Download"));
  if (seed && actions.use_seed) row.append(button("Use this seed", () => actions.use_seed(seed), {icon: "dice"}));
  if (urls.length && actions.vary) row.append(button("Vary", () => actions.vary(job.input), {icon: "vary", title: "Runs the same settings with another seed"}));
  if (single && actions.start_from) row.append(button("Use as start picture", () => actions.start_from(urls[0]), {icon: "picture"}));
  if (actions.reuse) row.append(button("Use these settings", () => actions.reuse(job.input)));
  if (actions.more) row.append(...actions.more(job));
  return row;
}

export function settings_list(job, logs = job.logs) {
  const used = {...job.input};
  const seed = seed_of(job, logs);
  if (seed) used.seed = seed;
  const list = el("dl", {class: "settings"});
  for (const [name, value] of Object.entries(used))
    list.append(el("dt", {}, name), el("dd", {dir: "auto"}, typeof value === "string" ? value : JSON.stringify(value)));
  list.append(el("dt", {}, "made"), el("dd", {}, clock(job.created_at)), el("dt", {}, "model"), el("dd", {}, el("a", {href: `/${job.model}`}, job.model)),
              el("dt", {}, "job"), el("dd", {}, el("a", {href: `/p/${job.id}`}, job.id)));
  const copy = button("Copy as JSON", () => copy_text(JSON.stringify(used, null, 2)), {icon: "copy", class: "quiet"});
  return el("details", {class: "fold", open: false}, el("summary", {}, "Settings as used", seed ? el("span", {class: "muted"}, ` · seed ${seed}`) : null), list, copy);
}

/// Bars of progress overwrite each other on a terminal; here the last of each run of them is kept.
export function shown_log(logs) {
  const lines = logs.split(/\r\n|\r|\n/);
  const is_bar = (line) => /^\s*\d+%\|/.test(line);
  return lines.filter((line, i) => !(is_bar(line) && i + 1 < lines.length && is_bar(lines[i + 1]))).join("\n");
}

export const log_fold = ({logs}) => el("details", {class: "fold log"}, el("summary", {}, "Log"), el("pre", {tabIndex: 0}, shown_log(logs)));
