// /OWNER/NAME: a model to be tried, called from programs, and taught.
import * as api from "./api.js";
import {button, copy_text, el, fill, is_box, notice, stand_in, tab_bar} from "./dom.js";
import {examples_tab} from "./examples.js";
import {make_form} from "./form.js";
import {job_view} from "./job_view.js";
import {fields_of, shape_of, without_defaults} from "./schema.js";
import {snippets_tab} from "./snippets.js";
import {ago, is_ended, picture_urls} from "./text.js";

const kKeep = 30;  // pictures in the strip below the result

/// Keeps what the person typed, per model and browser, and what was run last, per tab first.
function memory(full_name) {
  const form_key = `calotype.form.${full_name}`, job_key = `calotype.job.${full_name}`;
  return {
    form() {
      try { return JSON.parse(localStorage.getItem(form_key)) ?? {}; } catch { return {}; }
    },
    keep_form(input) { localStorage.setItem(form_key, JSON.stringify(input)); },
    job: () => sessionStorage.getItem(job_key) ?? localStorage.getItem(job_key),
    keep_job(id) { sessionStorage.setItem(job_key, id); localStorage.setItem(job_key, id); },
  };
}

export async function model_page({owner, name, query, set_title, go}) {
  const full_name = `${owner}/${name}`;
  const [model, about] = await Promise.all([api.model(full_name), api.about_model(full_name).catch(() => ({versions: []}))]);
  set_title(full_name);
  if (!model.latest_version) return untrained_page(model);
  if (model.latest_version.openapi_schema.components.schemas.TrainingInput) {
    const {train_page} = await import("./train_page.js");
    return train_page({query: new URLSearchParams({trainer: full_name}), set_title, go});
  }
  const version = query.get("version") ?? "";
  const playground = make_playground(model, about, version, () => tabs.choose("examples", true));
  const api_tab = snippets_tab({
    form: playground.form,
    reference: version || !model.is_official ? `${full_name}:${version || model.latest_version.id}` : full_name,
    by_version: Boolean(version) || !model.is_official,
    needs_token: Boolean(api.token()),
  });
  const use = (input) => {
    playground.form.set({...(input.num_outputs ? {} : playground.form.get()), ...input});
    playground.form.node.dispatchEvent(new Event("input", {bubbles: true}));
    tabs.choose("playground", true);
    playground.form.focus();
  };
  const tabs = tab_bar([
    {name: "playground", title: "Playground", make: () => playground.node},
    {name: "api", title: "API", make: () => api_tab.node, shown: api_tab.update},
    {name: "examples", title: "Examples", make: () => examples_tab(full_name, is_box(about.note), use)},
    {name: "versions", title: "Versions", make: () => versions_tab(model, about)},
    {name: "train", title: "Train", make: () => train_tab(model)},
  ], query.get("tab") ?? "playground", (tab) => {
    const url = new URL(location.href);
    if (tab === "playground") url.searchParams.delete("tab");
    else url.searchParams.set("tab", tab);
    history.replaceState(null, "", url);
  });
  return {node: el("div", {class: "model"}, heading(model, about, version), tabs.bar, tabs.panel), close: playground.close};
}

function heading(model, about, version = "") {
  const trigger = about.trigger_word ? ["Trained here · listens to ", el("code", {}, about.trigger_word)] : null;
  return el("div", {class: "heading"},
    el("h1", {tabIndex: -1}, el("span", {class: "owner"}, `${model.owner} / `), model.name),
    model.description || model.license_url ? el("p", {class: "muted", dir: "auto"}, model.description ?? "", model.license_url
      ? [model.description ? " · " : "", el("a", {href: model.license_url, target: "_blank", rel: "noopener noreferrer"}, "licence")] : null) : null,
    trigger ? el("p", {class: "muted"}, trigger) : null,
    version ? el("p", {class: "muted"}, "Version ", el("code", {}, version.slice(0, 12)), " · ", el("a", {href: `/${model.owner}/${model.name}`}, "to the latest")) : null,
    stand_in(about.note));
}

function untrained_page(model) {
  return {node: el("div", {class: "model"}, heading(model, {}),
    el("div", {class: "empty-page"}, el("p", {}, "Nothing has been trained into this model yet."),
       el("a", {class: "button primary", href: `/train?destination=${encodeURIComponent(`${model.owner}/${model.name}`)}`}, "Train it with your pictures")))};
}

function make_playground(model, about, version, to_examples) {
  const full_name = `${model.owner}/${model.name}`, kept = memory(full_name);
  const fields = fields_of(model.latest_version);
  const form = make_form(fields, {trigger: about.trigger_word, trained: !model.is_official});
  form.set(kept.form());
  const run_button = el("button", {type: "submit", class: "button primary run"}, "Run");
  const shortcut = el("span", {class: "muted keys"}, /Mac|iPhone|iPad/.test(navigator.platform) ? "⌘ + Enter" : "Ctrl + Enter");
  const sheet = el("form", {class: "sheet", noValidate: true, "aria-label": "Settings"}, form.node,
                   el("div", {class: "run-bar"}, run_button, shortcut, button("Reset", () => { form.set({}); changed(); }, {class: "quiet"})));
  const strip = recent_strip(full_name, (id) => show(id));
  const view = job_view({
    use_seed: (seed) => { form.controls.get("seed")?.set(seed); changed(); notice(`Seed ${seed} is set.`); },
    vary: (input) => { form.set({...input, seed: undefined}); changed(); run(); },
    start_from: form.controls.has("image") ? (url) => {
      form.controls.get("image").set(new URL(url, location.origin).href);
      form.open_more();
      changed();
      form.controls.get("image").node.scrollIntoView({block: "center", behavior: "smooth"});
    } : undefined,
    reuse: (input) => { form.set(input); changed(); notice("The form has these settings now."); },
  }, el("p", {class: "empty"}, el("span", {}, "Your picture appears here. Describe it, or ", button("take an example", to_examples, {class: "link"}), ", and press Run.")));

  const changed = () => {
    kept.keep_form(form.get());
    if (!busy) view.reserve(form.get());
  };
  let busy = false;
  const show = (id) => {
    kept.keep_job(id);
    view.show(id, ({job, progress}) => {
      busy = job && !is_ended(job.status);
      document.title = busy && progress?.total ? `${Math.round(100 * progress.done / progress.total)} % · ${full_name}` : `${full_name} · Calotype`;
      if (job) strip.update(job);
    });
  };
  const run = async () => {
    form.show_errors(new Map());
    run_button.disabled = true;
    try {
      if (!await form.ready()) return;
      const input = without_defaults(fields, form.get());
      if (input.mask && !input.image) return form.show_errors(new Map([["image", "A mask needs the picture that it belongs to."]]));
      const job = await api.run(full_name, input, version);
      show(job.id);
      if (matchMedia("(max-width: 760px)").matches) view.node.scrollIntoView({behavior: "smooth"});
    } catch (error) {
      form.show_errors(error.fields ?? new Map(), error.message);
    } finally {
      run_button.disabled = false;
    }
  };
  sheet.addEventListener("submit", (event) => { event.preventDefault(); run(); });
  sheet.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); run(); }
    else if (event.key === "Enter" && event.target.matches("input")) event.preventDefault();  // only Run runs
  });
  form.node.addEventListener("input", changed);
  view.reserve(form.get());
  const last = kept.job();
  if (last) show(last);
  else run_button.classList.add("first");
  return {node: el("div", {class: "playground"}, sheet, el("div", {class: "right"}, view.node, strip.node)), form, close: view.close};
}

/// The latest pictures of this model: what was made before is one press away.
function recent_strip(full_name, choose) {
  const row = el("div", {class: "strip-row"});
  const node = el("section", {class: "strip", hidden: true, "aria-label": "Recent pictures"}, el("h2", {}, "Recent"), row);
  const known = new Map();
  const item = ({id, status, prompt, url}) => {
    const old = known.get(id);
    if (old?.status === status) return old;
    const node = el("button", {type: "button", class: `mini ${status}`, title: prompt, onclick: () => choose(id), "aria-label": prompt ? `Show: ${prompt.slice(0, 80)}` : "Show"},
                    url ? el("img", {src: url, alt: "", loading: "lazy"}) : status === "failed" ? "!" : status === "canceled" ? "–" : "…");
    old?.node.replaceWith(node);
    const entry = {status, node};
    known.set(id, entry);
    return entry;
  };
  api.jobs({kind: "prediction", model: full_name, limit: kKeep}).then(({jobs}) => {
    for (const job of jobs) if (!known.has(job.id)) row.append(item({...job, url: picture_urls(job.output)[0]}).node);
    node.hidden = !row.childElementCount;
  }, () => {});
  const update = (job) => {
    const is_new = !known.has(job.id);
    const entry = item({id: job.id, status: job.status, prompt: String(job.input?.prompt ?? ""), url: picture_urls(job.output)[0]});
    if (is_new) row.prepend(entry.node);
    for (const [id, each] of known) each.node.setAttribute("aria-current", id === job.id);
    node.hidden = false;
  };
  return {node, update};
}

function versions_tab(model, about) {
  const list = about.versions.length ? about.versions : [{id: model.latest_version.id, created_at: model.latest_version.created_at, about: {}}];
  return el("div", {class: "versions"}, el("p", {class: "muted"}, model.is_official ? "One version: the model as this server has it." : "Each training makes a version. A program that names one always gets that one."),
    el("ul", {class: "rows"}, list.map((version, i) => {
      const training = version.about?.training ?? version.about?.training_id;
      return el("li", {}, el("div", {}, el("code", {}, version.id.slice(0, 12)), i === 0 ? el("span", {class: "pill succeeded"}, "latest") : null,
          el("span", {class: "muted"}, model.is_official ? "" : ` ${ago(version.created_at)}`),
          version.about?.trigger_word ? el("span", {}, " · trigger word ", el("code", {}, version.about.trigger_word)) : null),
        el("div", {class: "row"}, button("Copy id", () => copy_text(`${model.owner}/${model.name}:${version.id}`), {icon: "copy", class: "quiet"}),
           typeof training === "string" ? el("a", {class: "button quiet", href: `/p/${training}`}, "Its training") : null,
           el("a", {class: "button quiet", href: `/${model.owner}/${model.name}?version=${version.id}`}, "Try it")));
    })));
}

function train_tab(model) {
  const destination = model.is_official ? "" : `?destination=${encodeURIComponent(`${model.owner}/${model.name}`)}`;
  return el("div", {class: "empty-page"},
    el("p", {}, model.is_official ? "Teach it a person, a thing or a manner of drawing with ten or more of your own pictures. The result is a model of your own; this one stays as it is."
                                  : "Train again: the result becomes a new version of this model, the earlier ones stay."),
    el("a", {class: "button primary", href: `/train${destination}`}, "Choose pictures"));
}
