// The form of a model, made from its schema: what most people change in front, the rest under "More".
import {el} from "./dom.js";
import {adapters_field, control_for} from "./fields.js";
import {offer_painting} from "./mask.js";

const kInFront = ["prompt", "aspect_ratio", "width", "height", "num_outputs", "num_inference_steps", "guidance", "guidance_scale",
                  "seed", "output_format"];
const kAdapters = [["lora_weights", "lora_scale"], ["replicate_weights", "lora_scale"], ["extra_lora", "extra_lora_scale"]];

/// {node, get(), set(input), ready(), show_errors(map), focus()}. `get` leaves out what is empty; `ready` waits for files
/// that are still being sent and tells whether they arrived. `in_front`: names, instead of the usual ones. Changes are told
/// by "input" events that bubble from node.
export function make_form(fields, {trigger, trained = false, in_front = kInFront} = {}) {
  const named = new Map(fields.map((field) => [field.name, field]));
  const controls = new Map();
  const front = el("div", {class: "front"}), more = el("div", {class: "rest"});
  const pairs = kAdapters.filter(([a, b]) => named.has(a) && named.has(b)).map(([a, b]) => [named.get(a), named.get(b)]);
  const in_pairs = new Set(pairs.flat().map((field) => field.name));
  let adapters = null;
  const ahead = (field) => field.required || in_front.includes(field.name);
  const place = (name) => in_front.includes(name) ? in_front.indexOf(name) : -1;
  const ordered = [...fields.filter(ahead).sort((a, b) => place(a.name) - place(b.name)), ...fields.filter((f) => !ahead(f))];
  for (const field of ordered) {
    if (in_pairs.has(field.name)) continue;
    const control = control_for(field, {trigger});
    controls.set(field.name, control);
    (ahead(field) ? front : more).append(control.node);
  }
  if (controls.has("image") && controls.has("mask")) offer_painting(controls.get("image"), controls.get("mask"));
  if (pairs.length) {
    adapters = adapters_field(pairs, trained);
    for (const control of adapters.controls) {
      controls.set(control.name, control);
      if (control.apart) more.append(control.node);
    }
    front.append(adapters.node);
  }
  const fold = el("details", {class: "more"}, el("summary", {}, "More settings"), more);
  const general = el("p", {class: "complaint general", role: "alert", hidden: true});
  const node = el("div", {class: "form"}, front, more.childElementCount ? fold : null, general);

  const custom = () => {
    const chosen = controls.get("aspect_ratio")?.get() === "custom";
    for (const name of ["width", "height"])
      if (controls.has(name) && controls.has("aspect_ratio")) controls.get(name).node.hidden = !chosen;
  };
  node.addEventListener("input", custom);

  const get = () => {
    const input = {};
    for (const [name, control] of controls) {
      const value = control.node.hidden ? undefined : control.get();
      if (value !== undefined && value !== "") input[name] = value;
    }
    return input;
  };
  const set = (input) => {
    for (const [name, control] of controls) control.set(input[name]);
    adapters?.look();
    custom();
  };
  const show_errors = (complaints, text = "") => {
    let first = null;
    for (const [name, control] of controls) {
      control.error(complaints.get(name));
      if (complaints.has(name)) first ??= control.node;
    }
    const elsewhere = [...complaints].filter(([name]) => !controls.has(name)).map(([name, words]) => `${name}: ${words}`);
    general.textContent = first && !elsewhere.length ? "" : elsewhere.join(" ") || text;
    general.hidden = !general.textContent;
    if (first && fold.contains(first)) fold.open = true;
    first?.querySelector("input, textarea, select")?.focus();
  };
  const ready = async () => (await Promise.all([...controls.values()].map((control) => control.ready?.()))).every((arrived) => arrived !== false);
  set({});
  return {node, get, set, ready, show_errors, fields, controls, focus: () => controls.get("prompt")?.focus?.(), open_more: () => { fold.open = true; }};
}
