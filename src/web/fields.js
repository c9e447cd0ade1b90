// One control per kind of input. Each is {node, get(), set(value), error(text)}; get() gives undefined for "as the
// model has it", set(undefined) its default. Labels and complaints are tied to their control for screen readers.
import * as api from "./api.js";
import {button, el, fresh_id, icon, svg} from "./dom.js";
import {local_path, seed_value, sentence_case} from "./text.js";
import {size_of_ratio} from "./schema.js";

// Shorter words than the schema's for what everybody changes; the name for programs shows on pointing at it.
const kTitles = {num_outputs: "Pictures", num_inference_steps: "Steps", guidance_scale: "Guidance", aspect_ratio: "Shape",
                 output_format: "Format", lora_rank: "Adapter width (rank)", training_steps: "Steps", image: "Start picture",
                 mask: "Mask: the part to draw anew"};

/// Label, help and a place for a complaint around `control`; `id` is that of the focusable element.
export function framed(field, id, control, {label = true, group = false} = {}) {
  const complaint = el("p", {class: "complaint", id: `${id}-error`, role: "alert", hidden: true});
  const title = title_of(field);
  const caption = group ? el("legend", {title: field.name}, title) : el("label", {htmlFor: id, title: field.name}, title);
  const help = field.description ? el("p", {class: "help", id: `${id}-help`}, field.description) : null;
  const node = el(group ? "fieldset" : "div", {class: `field ${field.kind}`, data: {field: field.name}},
                  label ? caption : null, control, help, complaint);
  const target = group ? node : node.querySelector(`#${CSS.escape(id)}`);
  target?.setAttribute("aria-describedby", [help && `${id}-help`, `${id}-error`].filter(Boolean).join(" "));
  const error = (text) => {
    complaint.textContent = text ?? "";
    complaint.hidden = !text;
    target?.setAttribute("aria-invalid", Boolean(text));
  };
  return {node, error};
}

const title_of = (field) => kTitles[field.name] ?? sentence_case(field.title);

/// A text area that grows with its text; the form's size never jumps by more than a line.
export function prompt_field(field, trigger) {
  const id = fresh_id(field.name);
  const area = el("textarea", {id, rows: 3, required: field.required, spellcheck: true, maxLength: 100000, dir: "auto",
                               placeholder: trigger ? `A picture of ${trigger} …` : "Describe the picture in your own words"});
  const grow = () => {
    area.style.height = "auto";
    area.style.height = `${Math.min(area.scrollHeight + 2, 480)}px`;
  };
  const hint = el("p", {class: "hint"});
  const look = () => {
    grow();
    const missing = trigger && area.value && !area.value.toLowerCase().includes(trigger.toLowerCase());
    hint.hidden = !missing;
  };
  if (trigger)
    hint.append("This model listens to ", el("code", {}, trigger), ". ",
                button("Put it in front", () => {
                  area.value = `${trigger} ${area.value}`;
                  area.dispatchEvent(new Event("input", {bubbles: true}));
                  area.focus();
                }, {class: "link"}));
  hint.hidden = true;
  area.addEventListener("input", look);
  // Height needs the element in the page.
  new ResizeObserver(grow).observe(area);
  const {node, error} = framed(field, id, el("div", {}, area, hint));
  return {node, error, get: () => area.value, set: (value) => { area.value = value ?? ""; look(); }, focus: () => area.focus()};
}

export function text_field(field, {secret = false, list} = {}) {
  const id = fresh_id(field.name);
  const input = el("input", {id, type: secret ? "password" : "text", required: field.required, autocomplete: "off", spellcheck: false, list, dir: "auto",
                             placeholder: typeof field.fallback === "string" ? field.fallback : ""});
  return {...framed(field, id, input), get: () => input.value || undefined, set: (value) => { input.value = value ?? ""; }};
}

export function boolean_field(field) {
  const id = fresh_id(field.name);
  const input = el("input", {id, type: "checkbox", class: "switch"});
  const {node, error} = framed(field, id, el("div", {class: "row"}, input, el("label", {htmlFor: id, title: field.name}, title_of(field))),
                               {label: false});
  return {node, error, get: () => input.checked, set: (value) => { input.checked = value ?? field.fallback ?? false; }};
}

/// A slider with its number beside it where both ends are known and near, a number otherwise.
export function number_field(field) {
  const id = fresh_id(field.name);
  const {minimum: low, maximum: high} = field;
  const step = field.kind === "integer" ? 1 : high - low <= 4 ? 0.05 : high - low <= 20 ? 0.1 : "any";
  const number = el("input", {id, type: "number", min: low ?? "", max: high ?? "", step, inputMode: "decimal",
                              placeholder: field.fallback ?? ""});
  // A slider whose usual values are all at one end helps nobody (learning rates).
  const fine = field.kind === "number" && field.fallback > 0 && field.fallback < (high - low) / 100;
  const ranged = low !== undefined && high !== undefined && high - low <= 200 && !fine;
  const slider = ranged ? el("input", {type: "range", min: low, max: high, step, "aria-label": title_of(field)}) : null;
  const set = (value) => {
    number.value = value ?? field.fallback ?? "";
    if (slider) slider.value = number.value === "" ? low : number.value;
  };
  slider?.addEventListener("input", () => { number.value = slider.value; });
  number.addEventListener("input", () => { if (slider && number.value !== "") slider.value = number.value; });
  const get = () => number.value === "" ? undefined : Number(number.value);
  return {...framed(field, id, el("div", {class: slider ? "row" : "row alone"}, slider, number)), get, set};
}

/// Ratios as the shapes they stand for; other choices as a row of words, long lists as a menu.
export function choice_field(field) {
  const ratios = field.options.filter((each) => size_of_ratio(each)).length > 3;
  if (!ratios && field.options.length > 4) return menu_field(field);
  const name = fresh_id(field.name);
  const options = field.options.map((value) => {
    const input = el("input", {type: "radio", name, value});
    return el("label", {class: ratios ? "shape" : "chip"}, input, ratios ? shape(value) : null, el("span", {}, value));
  });
  const inputs = options.map((option) => option.querySelector("input"));
  const {node, error} = framed(field, name, el("div", {class: ratios ? "shapes" : "chips"}, options), {group: true});
  return {
    node, error,
    get: () => inputs.find((each) => each.checked)?.value,
    set: (value) => { for (const each of inputs) each.checked = each.value === (value ?? field.fallback); },
  };
}

function menu_field(field) {
  const id = fresh_id(field.name);
  const select = el("select", {id}, field.options.map((value) => el("option", {value}, value)));
  return {...framed(field, id, select), get: () => select.value, set: (value) => { select.value = value ?? field.fallback; }};
}

function shape(ratio) {
  const [w, h] = size_of_ratio(ratio) ?? [0, 0];
  const box = svg("svg", {viewBox: "0 0 28 28", "aria-hidden": "true"});
  if (!w) box.append(svg("path", {d: "M6 10V6h4M18 6h4v4M22 18v4h-4M10 22H6v-4", class: "outline"}));
  const scale = 22 / Math.max(w, h, 1);
  if (w) box.append(svg("rect", {x: 14 - w * scale / 2, y: 14 - h * scale / 2, width: w * scale, height: h * scale, rx: 2}));
  return box;
}

/// Digits, not a number: seeds reach 2^64 − 1. Empty means another one each time.
export function seed_field(field) {
  const id = fresh_id(field.name);
  const input = el("input", {id, type: "text", inputMode: "numeric", autocomplete: "off", placeholder: "a new one each time"});
  const roll = button("", () => {
    // Below 2^53, so that every client shows it as it is.
    const [high, low] = crypto.getRandomValues(new Uint32Array(2));
    input.value = String((high % 2 ** 16) * 2 ** 32 + low);
    input.dispatchEvent(new Event("input", {bubbles: true}));
  }, {icon: "dice", class: "square", title: "Roll a seed", "aria-label": "Roll a seed"});
  const clear = button("", () => {
    input.value = "";
    input.dispatchEvent(new Event("input", {bubbles: true}));
  }, {icon: "close", class: "square", title: "A new seed each time", "aria-label": "A new seed each time"});
  const {node, error} = framed(field, id, el("div", {class: "row"}, input, roll, clear));
  const get = () => {
    const text = input.value.trim();
    if (!text) return undefined;
    return /^\d+$/.test(text) ? seed_value(text) : text;
  };
  return {node, error, get, set: (value) => { input.value = value ?? ""; }};
}

/// A picture or file: dropped, chosen or by URL; uploaded at once, with progress. Also has send(file), and on_change(), which
/// may be set, after every change of its value.
export function file_field(field) {
  const id = fresh_id(field.name);
  let sending = null;
  const choose = `Choose a file for ${title_of(field)}`, remove = `Remove ${title_of(field)}`;
  const chooser = el("input", {type: "file", hidden: true, accept: /image|mask/.test(field.name) ? "image/*" : ""});
  const url = el("input", {id, type: "text", placeholder: "Drop one or paste a URL", autocomplete: "off"});
  const thumb = el("img", {class: "thumb", alt: "", hidden: true});
  const bar = el("progress", {max: 1, value: 0, hidden: true, "aria-label": "Upload"});
  const clear = button("", () => {
    set("");
    url.dispatchEvent(new Event("input", {bubbles: true}));
    url.focus();
  }, {icon: "close", class: "square", title: remove, "aria-label": remove, hidden: true});
  const box = el("div", {class: "drop"}, thumb, el("div", {class: "row"}, url, button("Choose …", () => chooser.click(), {"aria-label": choose}), clear), bar, chooser);
  const {node, error} = framed(field, id, box);
  const show = (source) => {
    thumb.hidden = !source;
    if (source) thumb.src = source;
  };
  const look = () => {
    clear.hidden = !url.value;
    control.on_change?.();
  };
  thumb.onerror = () => { thumb.hidden = true; };
  const set = (value) => {
    url.value = value ?? "";
    const path = local_path(url.value);  // what this server holds can be shown
    show(/^\/out\//.test(path) ? path : /^\/v1\/files\/[^/]+$/.test(path) ? `${path}/download` : "");
    look();
  };
  url.addEventListener("input", () => set(url.value));
  const take = async (file) => {
    error("");
    bar.hidden = false;
    show(URL.createObjectURL(file));
    try {
      url.value = await api.upload(file, file.name, {on_progress: (share) => { bar.value = share; }});
      look();
      node.dispatchEvent(new Event("input", {bubbles: true}));
      return true;
    } catch (failure) {
      error(failure.message);
      show("");
      return false;
    } finally {
      bar.hidden = true;
      sending = null;
    }
  };
  const send = (file) => sending = take(file);
  chooser.onchange = () => { if (chooser.files[0]) send(chooser.files[0]); };
  drop_target(box, (files) => send(files[0]));
  const control = {node, box, thumb, error, get: () => url.value.trim() || undefined, set, send, ready: () => sending, on_change: null};
  return control;
}

/// Calls `take` with dropped files.
export function drop_target(box, take) {
  const over = (event) => {
    if (![...event.dataTransfer.types].includes("Files")) return;
    event.preventDefault();
    box.classList.add("over");
  };
  box.addEventListener("dragenter", over);
  box.addEventListener("dragover", over);
  box.addEventListener("dragleave", () => box.classList.remove("over"));
  box.addEventListener("drop", (event) => {
    box.classList.remove("over");
    if (!event.dataTransfer.files.length) return;
    event.preventDefault();
    take([...event.dataTransfer.files]);
  });
}

/// Adapters with their scales, over the pairs of inputs that the model has for them. `own`: the first pair is the model's
/// own adapter; only its strength stands here then, and controls[0] belongs among the further settings.
export function adapters_field(pairs, own) {
  const list = el("datalist", {id: fresh_id("adapters")});
  const rows = pairs.map(([weights, scale], i) => adapter_row(weights, scale, own && i === 0, list.id));
  const spare = () => rows.find((row) => row.node.hidden);
  const add = button(own ? "Add another adapter" : "Add an adapter", () => { spare().show(); look(); }, {icon: "plus", class: "quiet add"});
  const look = () => { add.hidden = !spare(); };
  for (const row of rows) row.on_hide = look;
  const node = el("fieldset", {class: "field adapters"}, el("legend", {}, "Adapters (LoRA)"), rows.map((row) => row.node), add, list);
  api.models().then((models) => {
    for (const model of models)
      if (!model.is_official && model.latest_version) list.append(el("option", {value: `${model.owner}/${model.name}`}));
  }, () => {});
  return {node, look, controls: rows.flatMap((row) => row.controls)};
}

function adapter_row(weights, scale, own, list) {
  const title = own ? "Other version of this model's adapter" : weights.name === "extra_lora" ? "Second adapter" : "Adapter";
  const text = text_field({...weights, title}, {list});
  const factor = number_field({...scale, title: own ? "Strength of this model's own adapter" : "Strength"});
  const node = el("div", {class: "adapter"}, own ? null : text.node, factor.node);
  const row = {node, on_hide: null, show: () => { node.hidden = false; text.node.querySelector("input").focus(); }};
  if (!own)
    text.node.querySelector("input").after(button("", () => {
      text.set("");
      factor.set(undefined);
      node.hidden = true;
      row.on_hide?.();
      node.dispatchEvent(new Event("input", {bubbles: true}));
    }, {icon: "close", class: "square", title: "Remove this adapter", "aria-label": "Remove this adapter"}));
  node.hidden = !own;
  const set = (value) => {
    text.set(value);
    if (!own) node.hidden = !value;
    row.on_hide?.();
  };
  const get_scale = () => own || text.get() ? factor.get() : undefined;
  row.controls = [{name: weights.name, ...text, set, apart: own}, {name: scale.name, ...factor, get: get_scale}];
  return row;
}

export function control_for(field, {trigger} = {}) {
  switch (field.kind) {
    case "prompt": return prompt_field(field, trigger);
    case "choice": return choice_field(field);
    case "integer":
    case "number": return number_field(field);
    case "boolean": return boolean_field(field);
    case "seed": return seed_field(field);
    case "file": return file_field(field);
    case "secret": return text_field(field, {secret: true});
    default: return text_field(field);
  }
}
