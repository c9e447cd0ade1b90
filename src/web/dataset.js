// The pictures of a training: dropped, looked at, captioned, packed.
import {button, el, fill, icon, notice} from "./dom.js";
import {drop_target} from "./fields.js";
import {bytes} from "./text.js";
import {kZipLimit, make_zip, read_zip} from "./zip.js";

const kPicture = /\.(jpe?g|png|webp|bmp|gif|tiff?|avif|heic)$/i;
const kJunk = /(^|\/)(__MACOSX\/|\.[^/]|Thumbs\.db|desktop\.ini)/i;  // hidden files among them
const kSmall = 256;        // pixels of the shorter side
const kUnpack = 1.5e9;     // larger zips are sent as they are
const kCaption = 100_000;  // bytes of a caption file

const stem_of = (name) => name.replace(/\.[^./]*$/, "").toLowerCase();

/// {node, zip(on_progress) → Blob, show_trigger(word), error(text), count(), whole()}; on_change after every change.
export function dataset_editor({limit, on_change}) {
  const samples = [];
  let whole_zip = null, trigger = "";
  const captions = new Map();  // by stem, of files that came before their picture
  const chooser = el("input", {type: "file", multiple: true, accept: "image/*,.txt,.zip", hidden: true});
  const choose = button("Choose files …", () => chooser.click(), {"aria-describedby": "pictures-error"}), says = el("p", {class: "complaint", id: "pictures-error", role: "alert", hidden: true});
  const zone = el("div", {class: "drop-zone"}, icon("picture"), el("p", {}, el("strong", {}, "Drop pictures, a folder or a zip here"), el("br"), "Captions as .txt files of the same name come along."),
                  el("div", {class: "row"}, choose, chooser), says);
  const tally = el("div", {class: "tally", hidden: true}), list = el("div", {class: "samples", role: "list", "aria-label": "Pictures"});
  const report = el("div", {class: "messages"});
  const node = el("div", {class: "dataset"}, zone, tally, report, list);

  const error = (text) => {
    says.textContent = text;
    says.hidden = !text;
    if (text) choose.focus();
  };
  const complain = (text) => report.append(el("p", {class: "warning"}, text));
  const changed = () => {
    const good = samples.filter((sample) => !sample.broken);
    error("");
    zone.classList.toggle("filled", samples.length > 0);
    tally.hidden = !samples.length && !whole_zip;
    const size = whole_zip?.size ?? good.reduce((sum, sample) => sum + sample.blob.size, 0);
    fill(tally, el("strong", {}, whole_zip ? whole_zip.name : `${good.length} picture${good.length === 1 ? "" : "s"}`), el("span", {class: "muted"}, bytes(size)),
         whole_zip ? null : el("span", {class: "muted"}, `${good.filter((sample) => sample.caption.trim()).length} with a caption`),
         samples.length > good.length ? el("span", {class: "complaint"}, `${samples.length - good.length} will be left out`) : null,
         button("Remove all", clear, {class: "quiet"}));
    on_change?.();
  };
  const clear = () => {
    for (const sample of samples) URL.revokeObjectURL(sample.url);
    samples.length = 0;
    whole_zip = null;
    captions.clear();
    fill(list);
    fill(report);
    changed();
  };
  const add_caption = (stem, text) => {
    const sample = samples.find((each) => stem_of(each.name) === stem);
    if (sample) sample.set_caption(text);
    else captions.set(stem, text);
  };
  const add_picture = (name, blob) => {
    if (samples.some((each) => each.name === name && each.blob.size === blob.size)) return;  // dropped twice
    const sample = make_sample(name, blob, () => { samples.splice(samples.indexOf(sample), 1); changed(); }, changed);
    sample.show_trigger(trigger);
    samples.push(sample);
    list.append(sample.node);
    const stem = stem_of(name);
    if (captions.has(stem)) sample.set_caption(captions.get(stem)), captions.delete(stem);
  };
  const add_file = async (name, blob) => {
    if (kJunk.test(name)) return;
    if (kPicture.test(name) || blob.type.startsWith("image/")) add_picture(name, blob);
    else if (/\.txt$/i.test(name) && blob.size < kCaption) add_caption(stem_of(name), (await blob.text()).replace(/^\uFEFF/, ""));
    else complain(`${name}: left out, neither a picture nor a caption.`);
  };
  const add_zip = async (file) => {
    if (file.size > kUnpack) {
      clear();
      whole_zip = file;
      complain(`${file.name} is too large to be shown here; it is sent as it is, and the server checks it.`);
      return;
    }
    for (const entry of await read_zip(file)) {
      if (kJunk.test(entry.name)) continue;
      try {
        const blob = await entry.blob();
        await add_file(entry.name, new Blob([blob], {type: /\.png$/i.test(entry.name) ? "image/png" : ""}));
      } catch (error) {
        complain(`${entry.name}: left out, it cannot be unpacked.`);
      }
    }
  };
  const add = async (files) => {
    whole_zip = null;
    for (const {name, file} of files) {
      try {
        if (/\.zip$/i.test(name)) await add_zip(file);
        else await add_file(name, file);
      } catch (error) {
        complain(error.message);
      }
    }
    changed();
  };
  chooser.onchange = () => { add([...chooser.files].map((file) => ({name: file.webkitRelativePath || file.name, file}))); chooser.value = ""; };
  drop_target(zone, (files) => add(files.map((file) => ({name: file.name, file}))));
  zone.addEventListener("drop", (event) => {
    // Folders come as entries; their files have no place in dataTransfer.files.
    const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry?.()).filter((entry) => entry?.isDirectory);
    if (!entries.length) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    Promise.all(entries.map(walk)).then((found) => add(found.flat()));
  }, true);

  const zip = async (on_progress) => {
    if (whole_zip) return whole_zip;
    const good = samples.filter((sample) => !sample.broken);
    const size = good.reduce((sum, sample) => sum + sample.blob.size + 1000, 0);
    if (size > Math.min(limit, kZipLimit)) throw new Error(`These pictures take ${bytes(size)}; at most ${bytes(Math.min(limit, kZipLimit))} can be sent.`);
    const taken = new Set(), entries = [];
    for (const sample of good) {
      let name = sample.name.replace(/^\/+/, "");
      for (let i = 2; taken.has(stem_of(name)); ++i) name = sample.name.replace(/(\.[^./]*)?$/, `-${i}$1`);
      taken.add(stem_of(name));
      entries.push({name, blob: sample.blob});
      if (sample.caption.trim()) entries.push({name: name.replace(/\.[^./]*$/, "") + ".txt", blob: new Blob([sample.caption.trim()])});
    }
    return make_zip(entries, on_progress);
  };
  const show_trigger = (word) => {
    trigger = word;
    for (const sample of samples) sample.show_trigger(word);
  };
  return {node, zip, show_trigger, error, count: () => samples.filter((sample) => !sample.broken).length + (whole_zip ? 1 : 0), whole: () => Boolean(whole_zip)};
}

async function walk(entry, path = "") {
  if (entry.isFile) return new Promise((resolve) => entry.file((file) => resolve([{name: path + file.name, file}]), () => resolve([])));
  const reader = entry.createReader(), all = [];
  for (;;) {  // in portions of a hundred
    const part = await new Promise((resolve) => reader.readEntries(resolve, () => resolve([])));
    if (!part.length) break;
    for (const each of part) all.push(...await walk(each, `${path}${entry.name}/`));
  }
  return all;
}

/// One picture with its caption; says what is wrong with it.
function make_sample(name, blob, on_remove, on_change) {
  const url = URL.createObjectURL(blob);
  const shown = name.split("/").pop();
  const picture = el("img", {src: url, alt: "", loading: "lazy", decoding: "async"});
  const area = el("textarea", {rows: 2, placeholder: "No caption", "aria-label": `Caption of ${shown}`, dir: "auto"});
  const says = el("p", {class: "complaint", hidden: true});
  const sample = {name, blob, url, caption: "", broken: false};
  const note = (text) => { says.textContent = text; says.hidden = false; };
  sample.node = el("div", {class: "sample", role: "listitem"}, picture,
    el("div", {class: "about"}, el("span", {class: "name", title: name, dir: "auto"}, shown), area, says),
    button("", () => { URL.revokeObjectURL(url); sample.node.remove(); on_remove(); }, {icon: "close", class: "square", title: "Leave out", "aria-label": `Leave out ${shown}`}));
  picture.onload = () => {
    const side = Math.min(picture.naturalWidth, picture.naturalHeight);
    if (side < kSmall) note(`Small: ${picture.naturalWidth} × ${picture.naturalHeight}`);
  };
  picture.onerror = () => {
    // Browsers do not show every format that can be trained on.
    if (/\.(tiff?|heic|avif)$/i.test(name)) return void picture.replaceWith(el("span", {class: "noimg"}));
    picture.replaceWith(el("span", {class: "noimg"}));
    sample.broken = true;
    sample.node.classList.add("bad");
    note("Left out: not a picture that can be read");
    on_change();
  };
  area.addEventListener("input", () => { sample.caption = area.value; on_change(); });
  sample.set_caption = (text) => { sample.caption = area.value = text; };
  sample.show_trigger = (word) => { area.placeholder = word ? `${word} …` : "No caption"; };
  return sample;
}
