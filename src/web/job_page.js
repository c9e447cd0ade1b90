// /p/ID: one job, whatever it is: the address that `urls.web` of a job leads to.
import * as api from "./api.js";
import {el} from "./dom.js";
import {job_view} from "./job_view.js";

export async function job_page({id, set_title, go}) {
  const {kind, job} = await api.job(id);
  if (kind === "training") {
    set_title(`Training ${job.destination ?? ""}`);
    const {training_view} = await import("./training_view.js");
    return training_view(id, go);
  }
  const prompt = String(job.input.prompt ?? "");
  set_title(prompt.slice(0, 60) || job.model);
  const view = job_view({
    reuse: (input) => {
      localStorage.setItem(`calotype.form.${job.model}`, JSON.stringify(input));
      go(`/${job.model}`);
    },
  });
  view.show(id);
  const node = el("div", {class: "single"},
    el("div", {class: "heading"}, el("h1", {tabIndex: -1, class: "prompt-title", dir: "auto"}, prompt || "A job"),
       el("p", {class: "muted"}, "Made with ", el("a", {href: `/${job.model}`}, job.model))), view.node);
  return {node, close: view.close};
}
