// /train: pictures in, a model of one's own out.
import * as api from "./api.js";
import {button, el, fill, fresh_id, is_box, stand_in} from "./dom.js";
import {dataset_editor} from "./dataset.js";
import {make_form} from "./form.js";
import {kWords} from "./job_view.js";
import {fields_of, without_defaults} from "./schema.js";
import {ago, bytes, duration} from "./text.js";

const kInFront = ["trigger_word", "lora_type", "steps", "training_steps", "lora_rank", "learning_rate", "resolution"];
const kKept = "calotype.training";
const kKeptName = "calotype.training.name";
const kNew = "";

// Pictures and captions outlive a visit to another page; they are let go when their training has begun.
let pictures = null, pictures_changed = () => {};
addEventListener("beforeunload", (event) => { if (pictures?.count()) event.preventDefault(); });

export async function train_page({query, set_title, go}) {
  set_title("Train");
  const [models, account, site, earlier] = await Promise.all([api.models(), api.account(), api.site(), api.jobs({kind: "training", limit: 20}).catch(() => ({jobs: []}))]);
  const trainers = models.filter((model) => model.latest_version?.openapi_schema.components.schemas.TrainingInput);
  const own = models.filter((model) => !model.is_official);
  const destination = destination_field(own, account.username, query.get("destination"));
  pictures_changed = () => estimate();
  const dataset = pictures ??= dataset_editor({limit: site.upload_bytes, on_change: () => pictures_changed()});
  const settings = settings_form(trainers, query.get("trainer"), () => estimate());
  const facts = el("p", {class: "estimate"}), forecast = forecast_line(() => settings.chosen().trainer, () => settings.input());
  const estimate = () => {
    dataset.show_trigger(settings.form().get().trigger_word ?? settings.fallback("trigger_word") ?? "");
    const steps = Number(settings.form().get().steps ?? settings.form().get().training_steps) || 1000, count = dataset.count();
    facts.hidden = !count || dataset.whole();
    facts.textContent = `In ${steps} steps each picture is seen about ${Math.max(1, Math.round(steps / Math.max(count, 1)))} times.`;
    forecast.look();
  };
  const start = el("button", {type: "submit", class: "button primary run"}, "Start training");
  const complaint = el("p", {class: "complaint general", role: "alert", hidden: true});
  const bar = el("progress", {max: 1, value: 0, "aria-label": "Upload", hidden: true}), stage = el("span", {class: "muted", role: "status"});
  const stop = button("Stop", () => stopping.abort(), {class: "quiet", hidden: true});
  let stopping = new AbortController();

  const run = async () => {
    complaint.hidden = true;
    destination.error("");
    settings.form().show_errors(new Map());
    dataset.error("");
    if (!dataset.count()) return dataset.error("Choose some pictures first: ten or more of one thing, or in one manner.");
    stopping = new AbortController();
    start.disabled = forecast.node.hidden = true;
    bar.hidden = stop.hidden = false;
    try {
      stage.textContent = "Packing the pictures …";
      const zip = await dataset.zip((share) => { bar.value = share; });
      const name = await destination.ready();
      const input_images = await api.upload(zip, "pictures.zip", {signal: stopping.signal, on_pause: (seconds) => {
        stage.textContent = `The connection broke; sent again in ${seconds} s …`;
      }, on_progress: (share) => {
        bar.value = share;
        stage.textContent = share < 1 ? `Sending ${bytes(zip.size * share)} of ${bytes(zip.size)} …` : "The server stores them …";
      }});
      const {trainer} = settings.chosen();
      // The trigger word is told even where it is the usual one: the job's page names it.
      const input = {trigger_word: settings.fallback("trigger_word"), ...settings.input(), input_images};
      const job = await api.train(`${trainer.owner}/${trainer.name}`, trainer.latest_version.id, name, input);
      pictures = null;
      sessionStorage.removeItem(kKeptName);
      go(`/p/${job.id}`);
    } catch (error) {
      refuse(error);
    }
    start.disabled = forecast.node.hidden = false;
    bar.hidden = stop.hidden = true;
    stage.textContent = "";
  };
  const refuse = (error) => {
    if (error.name === "AbortError") return;
    if (error.in_destination) return destination.error(error.message);
    if (error.fields?.has("input_images")) return dataset.error(error.fields.get("input_images"));
    if (error.fields?.size) return settings.form().show_errors(error.fields, error.message);
    complaint.textContent = error.message;
    complaint.hidden = false;
  };
  const sheet = el("form", {class: "train", noValidate: true}, el("div", {class: "train-columns"},
      el("section", {}, step_head("Pictures", "ten to forty are usual"), dataset.node),
      el("div", {class: "form"}, el("section", {}, step_head("Model", "where the result goes"), destination.node), el("section", {}, step_head("Settings", ""), settings.node), facts,
         complaint, bar, el("div", {class: "run-bar"}, start, stop, stage, forecast.node))));
  sheet.addEventListener("submit", (event) => { event.preventDefault(); run(); });
  sheet.addEventListener("keydown", (event) => { if (event.key === "Enter" && event.target.matches("input")) event.preventDefault(); });
  estimate();
  return {node: el("div", {}, el("div", {class: "heading"}, el("h1", {tabIndex: -1}, "Train a model"),
    el("p", {class: "lead"}, "Show it a person, a thing or a manner of drawing. You get a model of your own that answers to a word you choose."),
    stand_in(site.note, {more: is_box(site.note) ? " What is trained now is an adapter for this small model; it does not fit FLUX.1." : ""})), sheet, earlier_list(earlier.jobs))};
}

const step_head = (title, words) => el("div", {class: "step-head"}, el("h2", {}, title), words ? el("span", {}, words) : null);

/// Which model gets the version: a new one by name, or one there is.
function destination_field(own, username, wanted) {
  const id = fresh_id("destination"), name_id = fresh_id("name");
  const select = el("select", {id, "aria-label": "Model"}, el("option", {value: kNew}, "A new model"), own.map((model) => el("option", {value: `${model.owner}/${model.name}`}, `${model.owner}/${model.name}`)));
  const name = el("input", {id: name_id, type: "text", placeholder: "my-first-model", autocomplete: "off", spellcheck: false, value: sessionStorage.getItem(kKeptName) ?? "", "aria-describedby": `${name_id}-error`});
  const complaint = el("p", {class: "complaint", id: `${name_id}-error`, role: "alert", hidden: true});
  const named = el("div", {class: "field"}, el("label", {htmlFor: name_id}, "Name"), el("div", {class: "row"}, el("span", {class: "muted fixed"}, `${username} /`), name));
  const look = () => { named.hidden = select.value !== kNew; };
  select.onchange = look;
  if (wanted && own.some((model) => `${model.owner}/${model.name}` === wanted)) select.value = wanted;
  look();
  // Names as the server takes them; blanks and capitals are mended while typing.
  name.addEventListener("input", () => {
    const mended = name.value.toLowerCase().replace(/[^a-z0-9._-]+/g, "-");
    if (mended !== name.value) name.value = mended;
    sessionStorage.setItem(kKeptName, mended);
  });
  const error = (text) => {
    complaint.textContent = text;
    complaint.hidden = !text;
    name.setAttribute("aria-invalid", Boolean(text));
    if (text) name.focus();
  };
  const failed = (text) => Object.assign(new api.ApiError(text, 422), {in_destination: true});
  const ready = async () => {
    if (select.value !== kNew) return select.value;
    if (!name.value) throw failed("Give the model a name.");
    try {
      const model = await api.create_model(username, name.value, "");
      const full = `${model.owner}/${model.name}`;
      select.append(el("option", {value: full}, full));  // should the upload fail: not created twice
      select.value = full;
      look();
      return full;
    } catch (cause) {
      if (cause.status === 409) throw failed("You have a model of this name; choose it above, or take another name.");
      throw cause.status === 422 ? failed([...cause.fields.values()].join(" ") || cause.message) : cause;
    }
  };
  return {node: el("div", {class: "form"}, own.length ? select : null, named, complaint), ready, error};
}

/// The form of the chosen trainer; what was typed is kept.
function settings_form(trainers, wanted, on_change) {
  let trainer = trainers.find((each) => `${each.owner}/${each.name}` === wanted) ?? trainers[0];
  let form, fields;
  const place = el("div", {});
  const kept = () => { try { return JSON.parse(localStorage.getItem(kKept)) ?? {}; } catch { return {}; } };
  const build = () => {
    fields = fields_of(trainer.latest_version, "TrainingInput").filter((field) => field.name !== "input_images");
    form = make_form(fields, {in_front: kInFront});
    form.set(kept());
    form.node.addEventListener("input", () => {
      const {hf_token, wandb_api_key, ...plain} = form.get();  // secrets are not kept
      localStorage.setItem(kKept, JSON.stringify(plain));
      on_change();
    });
    fill(place, form.node);
  };
  const choices = el("div", {class: "chips", role: "group", "aria-label": "Trainer"}, trainers.map((each) => button(each.name, () => {
    trainer = each;
    mark();
    build();
    on_change();
  }, {class: "chip", title: each.description})));
  const about = el("p", {class: "help"});
  const mark = () => {
    [...choices.children].forEach((each, i) => each.setAttribute("aria-pressed", trainers[i] === trainer));
    about.textContent = trainer.description ?? "";
  };
  mark();
  build();
  return {node: el("div", {class: "form"}, el("div", {class: "field"}, choices, about), place), form: () => form, fallback: (name) => fields.find((field) => field.name === name)?.fallback, chosen: () => ({trainer, fields}), input: () => without_defaults(fields, form.get())};
}

/// What the training will take, asked of the server a moment after the last change.
function forecast_line(trainer, input) {
  const node = el("span", {class: "forecast", role: "status"});
  let timer = 0, asked = null;
  const look = () => {
    clearTimeout(timer);
    timer = setTimeout(async () => {
      asked?.abort();
      asked = new AbortController();
      const {hf_token, wandb_api_key, ...plain} = input();
      try {
        node.textContent = forecast_words(await api.forecast(`${trainer().owner}/${trainer().name}`, plain, asked.signal));
      } catch (error) {
        if (error.name !== "AbortError") node.textContent = "";  // Start says what is wrong
      }
    }, node.textContent ? 300 : 0);
  };
  return {node, look};
}

/// "About 12 min · 14 GB of memory", and plainly what nobody knows yet.
export function forecast_words({steps, seconds, memory_bytes, memory_measured}) {
  if (!steps) return "";
  const memory = memory_bytes ? `${memory_measured ? "" : "about "}${bytes(memory_bytes)} of memory` : "memory not known yet";
  if (seconds) return `About ${duration(seconds)} · ${memory}`;
  return memory_bytes ? `${memory[0].toUpperCase()}${memory.slice(1)} · the first steps will tell how long it takes` : "Time and memory are not known yet; the first steps will tell";
}

function earlier_list(jobs) {
  if (!jobs.length) return null;
  return el("section", {class: "earlier"}, el("h2", {}, "Earlier trainings"), el("ul", {class: "rows"}, jobs.map((job) =>
    el("li", {}, el("a", {href: `/p/${job.id}`}, job.destination || job.id), el("span", {}, el("span", {class: "muted"}, ago(job.created_at)), el("span", {class: `pill ${job.status}`}, kWords[job.status] ?? job.status))))));
}
