// A training as it goes: curve, previews, log; afterwards what to do with its result.
import * as api from "./api.js";
import {button, el, fill, icon} from "./dom.js";
import {follow} from "./events.js";
import {loss_chart, losses_of} from "./chart.js";
import {job_view, log_fold, settings_list, shown_log, status_line, warnings_of} from "./job_view.js";
import {ago, is_ended, local_path, seed_value} from "./text.js";

export function training_view(id, go) {
  const title = el("h1", {tabIndex: -1}, "Training"), words = el("p", {class: "muted"});
  const line = status_line("training"), chart = loss_chart();
  const messages = el("div", {class: "messages"}), result = el("div", {class: "below"}), previews = el("div", {class: "previews"}), below = el("div", {class: "below"});
  const previews_part = el("section", {hidden: true}, el("h2", {}, "Previews"), previews);
  const files = el("ul", {class: "plain"}), files_title = el("summary", {}), files_part = el("details", {class: "fold", hidden: true}, files_title, files);
  const node = el("div", {class: "training"}, el("div", {class: "heading"}, title, words), line.node, messages, files_part, result,
                  el("section", {}, el("h2", {}, "Loss"), chart.node), previews_part, below);
  let shown = "", points = 0;
  const stop = follow(id, (state) => {
    const {job} = state;
    if (!job) return;
    line.show(state);
    document.title = `${state.progress?.total && !is_ended(job.status) ? `${Math.round(100 * state.progress.done / state.progress.total)} % · ` : ""}Training ${job.destination ?? ""} · Calotype`;
    if (state.logs.length !== points) {
      points = state.logs.length;
      chart.show(losses_of(state.logs), Number(job.input.steps ?? job.input.training_steps) || state.progress?.total);
      const log = below.querySelector(".log pre");
      if (log) log.textContent = shown_log(state.logs);
    }
    while (previews.childElementCount < state.previews.length) {
      const {url, step} = state.previews[previews.childElementCount];
      previews_part.hidden = false;
      previews.append(el("figure", {}, el("img", {src: url, alt: `Preview after ${step} steps`}), el("figcaption", {}, `step ${step}`)));
    }
    const left_out = refused_files(state.logs);
    if (left_out.length !== files.childElementCount) fill(files, left_out.map((text) => el("li", {dir: "auto"}, text)));
    files_part.hidden = !left_out.length;
    files_title.textContent = left_out.length === 1 ? "One file was left out" : `${left_out.length} files were left out`;
    if (shown === job.status) return;
    shown = job.status;
    const name = job.destination || job.output?.version?.split(":")[0] || "";
    fill(title, el("span", {class: "owner"}, "Training of "), name || job.id);
    words.textContent = job.input.trigger_word ? `Trigger word ${job.input.trigger_word}` : "";
    fill(messages, job.error ? el("p", {class: "error", role: "alert"}, job.error) : null, warnings_of(job, state.logs).map((text) => el("p", {class: "warning"}, text)));
    fill(below, settings_list(job, state.logs), log_fold(state));
    if (job.status === "succeeded") fill(result, ready(job, name));
    else if (is_ended(job.status)) fill(result, el("div", {class: "actions"}, button("Train again", () => go(`/train?destination=${encodeURIComponent(name)}`))));
  });
  return {node, close: stop};
}

/// From the report that the data set's check writes into the log: "not used:" and its indented lines.
function refused_files(logs) {
  const block = /^not used:\n((?: {2}.*\n)*)/m.exec(logs);
  return block ? block[1].trimEnd().split("\n").map((line) => line.trim()) : [];
}

function ready(job, name) {
  const version = job.output?.version?.split(":")[1] ?? "";
  const weights = local_path(job.output?.weights);
  const compare = el("div", {});
  return [
    el("div", {class: "actions"},
      name ? el("a", {class: "button primary", href: `/${name}`}, "Try it") : null,
      version ? button("Compare", () => fill(compare, comparison(name, version, job.input.trigger_word ?? ""))) : null,
      weights ? el("a", {class: "button", href: weights, download: `${name.replace("/", "-") || "trained"}.tar`}, icon("download"), "Download the adapter") : null),
    compare,
  ];
}

/// The same prompt and seed twice: with the new adapter, and without it or with that of another version.
function comparison(name, version, trigger) {
  const field = el("textarea", {rows: 2, id: "compare-prompt", dir: "auto"});
  field.value = trigger ? `a picture of ${trigger}` : "";
  const other = el("select", {"aria-label": "Compared with"}, el("option", {value: ""}, "Without"));
  api.about_model(name).then(({versions}) => {
    for (const each of versions)
      if (each.id !== version) other.append(el("option", {value: each.id}, `Version ${each.id.slice(0, 8)}, ${ago(each.created_at)}`));
  }, () => {});
  const views = [job_view(), job_view()];
  const complaint = el("p", {class: "complaint", role: "alert", hidden: true});
  const run = async () => {
    complaint.hidden = true;
    const seed = seed_value(String(crypto.getRandomValues(new Uint32Array(1))[0]));
    const input = {prompt: field.value, seed};
    try {
      views[0].show((await api.run(name, input, version)).id);
      views[1].show((await (other.value ? api.run(name, input, other.value) : api.run(name, {...input, lora_scale: 0}, version))).id);
    } catch (error) {
      complaint.textContent = [...error.fields?.values() ?? []].join(" ") || error.message;
      complaint.hidden = false;
    }
  };
  return el("section", {class: "compare"}, el("h2", {}, "Side by side"), el("div", {class: "field"}, el("label", {htmlFor: "compare-prompt"}, "Prompt for both"), field, complaint),
    el("div", {class: "row"}, button("Draw both", run, {class: "button primary"})),
    el("div", {class: "pair"}, el("div", {}, el("div", {class: "row head"}, el("h3", {}, "With this adapter")), views[0].node),
       el("div", {}, el("div", {class: "row head"}, other), views[1].node)));
}
