// A job as it happens: the server's events while the page is looked at, a question every few seconds otherwise. The
// page holds nothing of its own: after a reload, a lost connection or a restart of the server the same view comes back.
import * as api from "./api.js";
import {is_ended, local_path} from "./text.js";

const kPollEvery = 4000;

/// state: {job, kind, progress, place, preview, previews, samples, logs, outputs, connected}; samples are what a training
/// drew on its way, {step, prompt, url}. on_change(state) is called at most
/// once a frame, and when it has ended. Returns stop().
export function follow(id, on_change) {
  const state = {job: null, kind: "prediction", progress: null, place: null, preview: "", previews: [], samples: [], logs: "",
                 outputs: [], connected: true, missing: false};
  let source = null, timer = 0, scheduled = 0, stopped = false;

  const changed = () => {
    if (scheduled || stopped) return;
    // Frames do not come in hidden tabs.
    const run = () => { scheduled = 0; if (!stopped) on_change(state); };
    scheduled = document.hidden ? setTimeout(run, 0) : requestAnimationFrame(run);
  };
  const take = (answer) => {
    state.job = answer.job;
    state.kind = answer.kind;
    state.progress = answer.progress?.total ? with_rate(state.progress, answer.progress) : state.progress;
    state.place = answer.place;
    state.samples = (answer.samples ?? []).map((each) => ({...each, url: local_path(each.url)}));
    if (answer.preview) add_preview(state, local_path(answer.preview));
    if (answer.job.logs.length >= state.logs.length) state.logs = answer.job.logs;
    state.connected = true;
  };
  const refresh = async () => {
    try {
      take(await api.job(id));
    } catch (error) {
      state.connected = error.status !== 0;
      state.missing = error.status === 404;
      if (state.missing || error.status === 401) stopped = true, on_change(state);
    }
    changed();
  };
  const close = () => {
    source?.close();
    source = null;
    clearTimeout(timer);
  };
  const poll = () => {
    clearTimeout(timer);
    timer = setTimeout(async () => {
      await refresh();
      next();
    }, kPollEvery);
  };
  // A browser keeps six connections to a server: a hidden tab must not hold one.
  const over = () => stopped || (state.job && is_ended(state.job.status));
  const next = () => {
    close();
    if (over()) return;
    if (document.hidden || !state.job) return poll();
    source = listen(state, changed, refresh, async (lost) => {
      if (!lost) await refresh();
      if (!over()) poll();  // never at once again: an end that could not be read would be told for ever
    });
  };
  const on_visible = () => next();
  document.addEventListener("visibilitychange", on_visible);
  refresh().then(next);
  return () => {
    stopped = true;
    close();
    document.removeEventListener("visibilitychange", on_visible);
  };
}

function listen(state, changed, refresh, ended) {
  const token = state.job.urls.stream.split("/").pop().replace(/^stream-/, "");
  const source = new EventSource(`/v1/events/${token}`);
  let fresh = true;  // a new stream tells everything from the beginning
  const on = (name, handle) => source.addEventListener(name, (event) => {
    if (fresh) state.logs = "", state.outputs = [], fresh = false;
    handle(event.data);
    changed();
  });
  // The end is told by "done": the job is asked for then, and comes with its output and times.
  on("status", (word) => { if (!is_ended(word)) state.job = {...state.job, status: word}; });
  on("logs", (text) => { state.logs += text; });
  on("progress", (text) => { state.progress = with_rate(state.progress, JSON.parse(text)); });
  on("preview", (url) => {
    add_preview(state, local_path(url));
    if (state.kind === "training") refresh();  // it comes with its step and prompt
  });
  on("queue", (text) => { state.place = JSON.parse(text).place; });
  on("output", (url) => { if (!url.startsWith("{")) state.outputs.push(local_path(url)); });
  on("done", () => { source.close(); ended(false); });
  source.addEventListener("open", () => { state.connected = true; changed(); });
  source.addEventListener("error", (event) => {
    if (event.data !== undefined) return;  // the job's own error; "done" follows
    state.connected = false;
    changed();
    // While it is CONNECTING the browser comes back by itself, with the last event's id.
    if (source.readyState === EventSource.CLOSED) ended(true);
  });
  return source;
}

function add_preview(state, url) {
  if (state.previews.at(-1)?.url === url) return;
  state.preview = url;
  state.previews.push({url, step: state.progress?.done ?? 0});
}

/// Progress with `rate`, seconds per unit as seen here since the stage began.
function with_rate(before, now) {
  const time = performance.now() / 1000;
  const same = before && before.stage === now.stage && before.first && now.done >= before.first.done;
  const first = same ? before.first : {done: now.done, time};
  const moved = now.done - first.done;
  const last = same && before.done === now.done ? before.last : time;
  return {...now, first, last, rate: moved > 0 ? (last - first.time) / moved : 0};
}
