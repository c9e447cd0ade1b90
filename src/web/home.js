// /: the models, and the latest pictures.
import * as api from "./api.js";
import {el, stand_in} from "./dom.js";
import {fields_of} from "./schema.js";
import {picture_urls} from "./text.js";

const rank = (model) => model.name === "flux-schnell" ? 0 : model.name === "flux-dev" ? 1 : 2;

export async function home_page({set_title}) {
  set_title("");
  const [models, site, recent] = await Promise.all([api.models(), api.site().catch(() => ({})), api.jobs({kind: "prediction", status: "succeeded", limit: 16}).catch(() => ({jobs: []}))]);
  const has = (name) => models.filter((model) => model.latest_version?.openapi_schema.components.schemas[name]);
  const trainers = new Set(has("TrainingInput"));
  const official = models.filter((model) => model.is_official && !trainers.has(model)).sort((a, b) => rank(a) - rank(b));
  const remote = official.filter((model) => /API/.test(model.description ?? ""));
  const local = official.filter((model) => !remote.includes(model) && model.name !== "canary");
  const own = models.filter((model) => !model.is_official);
  const node = el("div", {class: "home"},
    el("div", {class: "heading"}, el("h1", {tabIndex: -1}, "Pictures from words"),
       el("p", {class: "lead"}, "Run FLUX.1 on your own machine, teach it your own pictures, and call it from the programs you have."),
       el("div", {class: "row"}, local.length ? el("a", {class: "button primary", href: `/${local[0].owner}/${local[0].name}`}, "Draw a picture") : null, el("a", {class: "button", href: "/train"}, "Train a model")),
       stand_in(site.note)),
    recent.jobs.length ? el("section", {}, el("div", {class: "row between"}, el("h2", {}, "Latest pictures"), el("a", {href: "/gallery"}, "All of them")),
      el("div", {class: "latest"}, recent.jobs.filter((job) => picture_urls(job.output).length).map((job) =>
        el("a", {href: `/p/${job.id}`, title: job.prompt}, el("img", {src: picture_urls(job.output)[0], alt: job.prompt.slice(0, 200) || "Picture", loading: "lazy"}))))) : null,
    section("Models", "", local.map(card)),
    section("Your models", "", own.length ? own.map(card) : [el("div", {class: "card invite"}, el("p", {}, "None yet. Ten pictures of one thing or in one manner are enough for a first try."),
      el("a", {class: "button", href: "/train"}, "Train one"))]),
    section("Elsewhere", "Reached through this server with your own key.", remote.map(card)));
  return {node};
}

const section = (title, words, cards) => cards.length ? el("section", {}, el("h2", {}, title), words ? el("p", {class: "muted"}, words) : null, el("div", {class: "cards"}, cards)) : null;

function card(model) {
  return el("a", {class: "card", href: `/${model.owner}/${model.name}`},
    el("h3", {}, el("span", {class: "owner"}, `${model.owner} / `), model.name),
    el("p", {dir: "auto"}, model.description || (model.latest_version ? "Trained here" : "Not trained yet")),
    model.is_official && fields_of(model.latest_version).some((field) => field.name === "lora_weights") ? el("p", {}, "Takes adapters (LoRA)") : null,
    model.run_count ? el("p", {class: "muted"}, `${model.run_count} run${model.run_count === 1 ? "" : "s"}`) : null);
}
