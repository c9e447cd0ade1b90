// Elements from values. Text arrives as text nodes only: nothing here, or in any other module, parses markup, so
// prompts, captions and file names cannot become part of the page.

import {as_sentence} from "./text.js";

const kSvg = "http://www.w3.org/2000/svg";

function apply(node, name, value) {
  if (value === undefined || value === null || value === false) return;
  if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
  else if (name === "class") node.setAttribute("class", value);
  else if (name === "style") Object.assign(node.style, value);
  else if (name === "data") Object.assign(node.dataset, value);
  else if (name in node && !(node instanceof SVGElement) && name !== "list" && name !== "form") node[name] = value;
  else node.setAttribute(name, value === true ? "" : value);
}

/// el("a", {href: "/train", class: "button"}, "Train"): null children are left out.
export function el(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) apply(node, name, value);
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

export function svg(tag, properties = {}, ...children) {
  const node = document.createElementNS(kSvg, tag);
  for (const [name, value] of Object.entries(properties)) apply(node, name, value);
  node.append(...children);
  return node;
}

const kIcons = {
  dice: "M5 3h14a2 2 0 0 1 2 2v14a2 2 0 0 1-2 2H5a2 2 0 0 1-2-2V5a2 2 0 0 1 2-2zM8 8h.01M16 8h.01M12 12h.01M8 16h.01M16 16h.01",
  download: "M12 4v11m-5-5 5 5 5-5M5 20h14",
  copy: "M9 9h10v11H9zM5 15V4h10",
  plus: "M12 5v14M5 12h14",
  close: "M6 6l12 12M18 6 6 18",
  picture: "M4 5h16v14H4zM8 10.5a1.5 1.5 0 1 0 0-3 1.5 1.5 0 0 0 0 3zM4 17l5-5 4 4 3-3 4 4",
  search: "M11 4a7 7 0 1 0 0 14 7 7 0 0 0 0-14zM16 16l4.5 4.5",
  vary: "M4 7h4l8 10h4M4 17h4l2-2.5M14 9.500 16 7h4M18 5l2 2-2 2M18 15l2 2-2 2",
  play: "M8 5l11 7-11 7z",
  stop: "M7 7h10v10H7z",
};

export function icon(name) {
  return svg("svg", {class: "icon", viewBox: "0 0 24 24", "aria-hidden": "true", focusable: "false"},
             svg("path", {d: kIcons[name]}));
}

export function button(text, onclick, properties = {}) {
  const {icon: name, ...rest} = properties;
  return el("button", {type: "button", onclick, ...rest}, name ? icon(name) : null, text);
}

/// Shows only `children` in `node`.
export function fill(node, ...children) {
  node.replaceChildren(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

let next_id = 0;
export const fresh_id = (stem) => `${stem}-${++next_id}`;

/// A sentence at the edge of the page that goes away by itself and is read aloud.
export function notice(text, kind = "") {
  const box = el("p", {class: `notice ${kind}`}, text);
  document.getElementById("notices").append(box);
  setTimeout(() => box.remove(), 6000);
}

/// Whether the small model in the box stands in, which knows icons and nothing else.
export const is_box = (note) => /calotype-icons/.test(note ?? "");

/// Which weights draw in place of those that a name promises, and how to have the promised ones; nothing for no note.
/// `more`: what else that means here.
export function stand_in(note, {more = "", open = false} = {}) {
  if (!note) return null;
  return el("div", {class: "stand-in"},
    el("p", {}, as_sentence(note), is_box(note) ? " It is the small model in the box: it draws simple icons of common things, on any machine, and nothing else." : "", more),
    el("details", {open}, el("summary", {}, "How to have FLUX.1 itself"),
       el("p", {}, "Start the server with its weights: ", el("code", {}, "calotype serve --model dev=FOLDER --model schnell=FOLDER"), ", where FOLDER is what you have downloaded or what ", el("code", {}, "calotype pull"), " fetched.")));
}

/// Without a secure context (plain http on a LAN) there is no clipboard API.
export async function copy_text(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const field = el("textarea", {value: text, class: "offscreen", "aria-hidden": "true"});
    document.body.append(field);
    field.select();
    document.execCommand("copy");
    field.remove();
  }
  notice("Copied.");
}

/// Tabs as the ARIA practices describe them: arrows move, the address keeps the choice. tabs: [{name, title, make}].
export function tab_bar(tabs, chosen, on_choose) {
  const panel = el("div", {role: "tabpanel", class: "panel", tabIndex: -1});
  const bar = el("div", {role: "tablist", class: "tabs"});
  const made = new Map();
  const choose = (name, by_user) => {
    const tab = tabs.find((each) => each.name === name) ?? tabs[0];
    for (const each of bar.children) {
      const selected = each.dataset.name === tab.name;
      each.setAttribute("aria-selected", selected);
      each.tabIndex = selected ? 0 : -1;
    }
    panel.setAttribute("aria-label", tab.title);
    if (!made.has(tab.name)) made.set(tab.name, tab.make());
    fill(panel, made.get(tab.name));
    tab.shown?.();
    if (by_user) on_choose?.(tab.name);
  };
  for (const tab of tabs)
    bar.append(el("button", {type: "button", role: "tab", data: {name: tab.name}, onclick: () => choose(tab.name, true)},
                  tab.title));
  bar.addEventListener("keydown", (event) => {
    const step = {ArrowRight: 1, ArrowLeft: -1, Home: -1000, End: 1000}[event.key];
    if (!step) return;
    event.preventDefault();
    const all = [...bar.children], here = all.indexOf(document.activeElement);
    const to = Math.abs(step) === 1 ? (here + step + all.length) % all.length : step < 0 ? 0 : all.length - 1;
    all[to].focus();
    choose(all[to].dataset.name, true);
  });
  choose(chosen, false);
  return {bar, panel, choose};
}
