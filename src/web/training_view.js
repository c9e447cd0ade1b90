// A training as it goes: curve, previews, log; afterwards what to do with its result.
import * as api from "./api.js";
import {button, el, fill, icon} from "./dom.js";
import {follow} from "./events.js";
import {loss_chart, losses_of} from "./chart.js";
import {job_view, log_fold, settings_list, shown_log, status_line, warnings_of} from "./job_view.js";
import {ago, is_ended, local_path, seed_value} from "./text.js";

export function training_view(id, go) {
  const title = el("h1", {tabIndex: -1}, "Training"), words = el("p", {class: "muted"}, "\u00a0");
  const line = status_line("training"), chart = loss_chart();
  const messages = el("div", {class: "messages"}), result = el("div", {class: "below outcome"}), previews = preview_strips(), below = el("div", {class: "below"});
  const files = el("ul", {class: "plain"}), files_title = el("summary", {}), files_part = el("details", {class: "fold", hidden: true}, files_title, files);
  const node = el("div", {class: "training"}, el("div", {class: "heading"}, title, words), line.node, messages, files_part, result,
                  el("section", {}, el("h2", {}, "Loss"), chart.node), previews.node, below);
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
    previews.show(state);
    const left_out = refused_files(state.logs);
    if (left_out.length !== files.childElementCount) fill(files, left_out.map((text) => el("li", {dir: "auto"}, text)));
    files_part.hidden = !left_out.length;
    files_title.textContent = left_out.length === 1 ? "One file was left out" : `${left_out.length} files were left out`;
    if (shown === job.status) return;
    shown = job.status;
    const name = job.destination || job.output?.version?.split(":")[0] || "";
    fill(title, el("span", {class: "owner"}, "Training of "), name || job.id);
    words.textContent = job.input.trigger_word ? `Trigger word ${job.input.trigger_word}` : "\u00a0";
    fill(messages, job.error ? el("p", {class: "error", role: "alert"}, job.error) : null, warnings_of(job, state.logs).map((text) => el("p", {class: "warning"}, text)));
    fill(below, settings_list(job, state.logs), log_fold(state));
    if (job.status === "succeeded") fill(result, ready(job, name, state.logs));
    else if (is_ended(job.status)) fill(result, el("div", {class: "actions"}, button("Train again", () => go(`/train?destination=${encodeURIComponent(name)}`))));
  });
  return {node, close: stop};
}

/// What the training draws on its way, a row for each prompt, by step. Room is kept from the start.
function preview_strips() {
  const rows = el("div", {class: "strips"}), note = el("p", {class: "empty"});
  const node = el("section", {hidden: true}, el("h2", {}, "Previews"), rows);
  const strips = new Map();
  const strip_of = (prompt) => {
    if (!strips.has(prompt)) {
      if (!strips.size) fill(rows);
      const strip = el("ol", {class: "previews", "aria-label": `Previews of ${prompt}`});
      strips.set(prompt, strip);
      rows.append(el("p", {class: "muted", dir: "auto"}, prompt), strip);
    }
    return strips.get(prompt);
  };
  const show = ({job, samples, logs}) => {
    const every = job.input.wandb_sample_prompts ? job.input.wandb_sample_interval ?? 100 : /a preview is drawn every (\d+) steps/.exec(logs)?.[1];
    node.hidden = !samples.length && is_ended(job.status);
    if (!samples.length && !strips.size) {
      note.textContent = every ? `The first one comes after ${Number(every) === 1 ? "the first step" : `${every} steps`}.` : "Pictures of what is learned appear here.";
      if (!note.isConnected) fill(rows, el("p", {class: "muted", dir: "auto"}, job.input.trigger_word || "\u00a0"), el("div", {class: "previews"}, note));
    }
    for (const {step, prompt, url} of samples) {
      const strip = strip_of(prompt);
      const known = [...strip.children].find((each) => Number(each.dataset.step) === step);
      if (known?.dataset.url === url) continue;
      const at_end = strip.scrollLeft + strip.clientWidth >= strip.scrollWidth - 20;
      const item = el("li", {data: {step, url}}, el("a", {href: url, target: "_blank"}, el("img", {src: url, alt: `Step ${step}: ${prompt}`, width: 180, height: 180})),
                        el("span", {}, `step ${step}`));
      if (known) known.replaceWith(item);
      else strip.insertBefore(item, [...strip.children].find((each) => Number(each.dataset.step) > step) ?? null);
      if (at_end) strip.scrollLeft = strip.scrollWidth;
    }
  };
  return {node, show};
}

/// From the report that the data set's check writes into the log: "not used:" and its indented lines.
function refused_files(logs) {
  const block = /^not used:\n((?: {2}.*\n)*)/m.exec(logs);
  return block ? block[1].trimEnd().split("\n").map((line) => line.trim()) : [];
}

function ready(job, name, logs) {
  const version = job.output?.version?.split(":")[1] ?? "";
  const weights = local_path(job.output?.weights);
  const more = el("div", {});
  const sent_to = localStorage.getItem(pushed_key(job.id)) ?? /^Uploaded: (https?:\/\/\S+)$/m.exec(logs)?.[1];
  const open = (part) => {
    fill(more, part);
    part.querySelector("textarea, input").focus();
  };
  return [
    el("div", {class: "actions"},
      name ? el("a", {class: "button primary", href: `/${name}`}, "Try it") : null,
      version ? button("Compare", () => open(comparison(name, version, job.input.trigger_word ?? ""))) : null,
      weights ? el("a", {class: "button", href: weights, download: `${name.replace("/", "-") || "trained"}.tar`}, icon("download"), "Download the adapter") : null,
      version ? button("Push to Hugging Face", () => open(push_form(job.id, name))) : null),
    sent_to ? el("p", {}, "On the hub: ", hub_link(sent_to)) : null,
    more,
  ];
}

/// Where this browser sent a training's adapter last.
const pushed_key = (id) => `calotype.pushed.${id}`;

const hub_link = (url) => el("a", {href: url, target: "_blank", rel: "noopener noreferrer"}, url);

/// The token goes to the server with this one request and is kept nowhere.
function push_form(id, name) {
  const repository = el("input", {id: "hub-repository", type: "text", autocomplete: "off", spellcheck: false, placeholder: `your-name/${name.split("/").pop()}`, "aria-describedby": "hub-repository-error"});
  const token = el("input", {id: "hub-token", type: "password", autocomplete: "off", "aria-describedby": "hub-token-help hub-token-error"});
  const hidden = el("input", {id: "hub-private", type: "checkbox", class: "switch"});
  const complaint = (field) => el("p", {class: "complaint", id: `hub-${field}-error`, role: "alert", hidden: true});
  const complaints = {repository: complaint("repository"), token: complaint("token")}, general = complaint("general");
  const bar = el("progress", {max: 1, value: 0, "aria-label": "Upload", hidden: true}), words = el("p", {role: "status"});
  const send = el("button", {type: "submit", class: "button primary"}, "Push");
  const tell = (place, text = "") => {
    place.textContent = text;
    place.hidden = !text;
  };
  const form = el("form", {class: "push card", noValidate: true, "aria-label": "Push to Hugging Face"}, el("h2", {}, "Push to Hugging Face"),
    el("p", {class: "muted"}, "The adapter goes there with a card that names licence, base model and trigger word, and the newest previews."),
    el("div", {class: "field"}, el("label", {htmlFor: "hub-repository"}, "Repository"), repository, complaints.repository),
    el("div", {class: "field"}, el("label", {htmlFor: "hub-token"}, "Access token"), token, el("p", {class: "help", id: "hub-token-help"}, "One that may write. It is used for this upload and kept nowhere."), complaints.token),
    el("div", {class: "row"}, hidden, el("label", {htmlFor: "hub-private"}, "Private, when the repository is new")),
    general, bar, words, el("div", {class: "row"}, send));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    for (const each of [complaints.repository, complaints.token, general]) tell(each);
    send.disabled = true;
    bar.hidden = false;
    bar.removeAttribute("value");
    words.textContent = "Sending …";
    try {
      const page = await api.push(id, {repository: repository.value.trim(), token: token.value.trim(), hidden: hidden.checked}, (share) => { bar.value = share; });
      token.value = "";
      fill(words, "Done: ", hub_link(page));
      localStorage.setItem(pushed_key(id), page);
    } catch (error) {
      words.textContent = "";
      for (const [field, text] of error.fields ?? []) tell(complaints[field] ?? general, text);
      if (!error.fields?.size) tell(general, error.message);
    }
    send.disabled = false;
    bar.hidden = true;
  });
  return form;
}

/// The same prompt and seed twice: with the new adapter, and without it or with that of another version.
function comparison(name, version, trigger) {
  const field = el("textarea", {rows: 2, id: "compare-prompt", dir: "auto"});
  field.value = trigger ? `a picture of ${trigger}` : "";
  const other = el("select", {"aria-label": "Compared with"}, el("option", {value: ""}, "Without the adapter"));
  api.about_model(name).then(({versions}) => {
    const word = versions.find((each) => each.id === version)?.about?.trigger_word;
    if (word && !field.value) field.value = `a picture of ${word}`;  // a training that left it to the server
    for (const each of versions)
      if (each.id !== version) other.append(el("option", {value: each.id}, `Version ${each.id.slice(0, 8)}, ${ago(each.created_at)}`));
  }, () => {});
  const views = ["With this adapter", "Without it, or with another version"].map((label) => job_view({}, el("p", {class: "empty"}, "Not drawn yet"), label));
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
  return el("section", {class: "compare card"}, el("h2", {}, "Side by side"), el("div", {class: "field"}, el("label", {htmlFor: "compare-prompt"}, "Prompt for both"), field, complaint),
    el("div", {class: "row"}, button("Draw both", run, {class: "button primary"})),
    el("div", {class: "pair"}, el("div", {}, el("div", {class: "row head"}, el("h3", {}, "With this adapter")), views[0].node),
       el("div", {}, el("div", {class: "row head"}, other), views[1].node)));
}
