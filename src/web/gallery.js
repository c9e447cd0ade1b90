// /gallery: everything that was asked for, newest first. Only the rows in view are in the page, so that ten thousand
// pictures scroll like ten; further entries are fetched as the end comes near.
import * as api from "./api.js";
import {button, el, fill, icon} from "./dom.js";
import {ago, is_ended, local_path, picture_urls} from "./text.js";

const kPage = 100;
const kRefresh = 5000;
const kCaption = 56;  // height of the text below a picture
const kGap = 12;

export async function gallery_page({set_title, query}) {
  set_title("Gallery");
  const search = el("input", {type: "search", id: "search", placeholder: "Search in prompts", value: query.get("search") ?? "", autocomplete: "off", "aria-label": "Search in prompts"});
  const kind = el("select", {"aria-label": "Kind"}, [["", "Everything"], ["prediction", "Pictures"], ["training", "Trainings"]].map(([value, text]) => el("option", {value}, text)));
  const status = el("select", {"aria-label": "Status"}, [["", "Any status"], ["succeeded", "Done"], ["processing", "Running"], ["starting", "Waiting"], ["failed", "Failed"], ["canceled", "Canceled"]].map(([value, text]) => el("option", {value}, text)));
  kind.value = query.get("kind") ?? "";
  status.value = query.get("status") ?? "";
  const grid = make_grid();
  const said = el("p", {class: "offscreen", role: "status"});
  let visit = 0, timer = 0, next = "", loading = false, closed = false;
  const wanted = () => ({kind: kind.value, status: status.value, search: search.value.trim(), limit: kPage});

  const start = async () => {
    const mine = ++visit;
    const filters = wanted();
    const url = new URL(location.href);
    for (const name of ["kind", "status", "search"]) filters[name] ? url.searchParams.set(name, filters[name]) : url.searchParams.delete(name);
    history.replaceState(null, "", url);
    try {
      const page = await api.jobs(filters);
      if (mine !== visit || closed) return;
      next = page.next ?? "";
      grid.reset(page.jobs, empty(filters));
      said.textContent = page.jobs.length ? `${page.jobs.length}${next ? " or more" : ""} entries` : "Nothing found";
    } catch (error) {
      grid.reset([], el("div", {class: "empty-page"}, el("p", {}, error.message), button("Try again", start)));
    }
  };
  grid.on_end = async () => {
    if (loading || !next) return;
    const mine = visit;
    loading = true;
    try {
      const page = await api.jobs({...wanted(), cursor: next});
      if (mine === visit) {
        next = page.next ?? "";
        grid.append(page.jobs);
      }
    } catch {
      // asked again with the next movement
    }
    loading = false;
  };
  // What runs changes, and others may have added something.
  const refresh = async () => {
    if (!document.hidden && !closed) {
      const mine = visit;
      const page = await api.jobs(wanted()).catch(() => null);
      if (page && mine === visit) grid.merge(page.jobs);
    }
    if (!closed) timer = setTimeout(refresh, kRefresh);
  };
  let typing = 0;
  search.addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(start, 250); });
  kind.onchange = start;
  status.onchange = start;
  await start();
  timer = setTimeout(refresh, kRefresh);
  const node = el("div", {class: "gallery"}, el("div", {class: "heading row between"}, el("h1", {tabIndex: -1}, "Gallery"),
    el("div", {class: "filters", role: "search"}, el("span", {class: "with-icon"}, icon("search"), search), kind, status)), said, grid.node);
  return {node, shown: grid.layout, close: () => { closed = true; clearTimeout(timer); grid.close(); }};
}

function empty({search, kind, status}) {
  if (search || kind || status) return el("div", {class: "empty-page"}, el("p", {}, "Nothing fits. Try fewer words or another filter."));
  return el("div", {class: "empty-page"}, el("h2", {}, "Nothing here yet"), el("p", {}, "Every picture you draw and every model you train appears here, and stays."),
            el("a", {class: "button primary", href: "/black-forest-labs/flux-schnell"}, "Draw the first one"));
}

/// Rows of squares over a spacer that is as high as all of them. The scroll bar is the page's own.
function make_grid() {
  const rows = el("div", {class: "grid-rows"}), spacer = el("div", {class: "grid"}, rows);
  let items = [], nothing = null, first = -1, last = -1, columns = 1, size = 200, frame = 0;
  const made = new Map();  // id → {key, node}
  const grid = {node: spacer, on_end: () => {}};

  const cell = (index) => {
    const item = items[index];
    const key = `${item.status} ${item.preview ?? ""} ${item.progress?.done ?? ""}`;
    let entry = made.get(item.id);
    if (entry?.key !== key) made.set(item.id, entry = {key, node: make_cell(item)});
    entry.node.setAttribute("aria-posinset", index + 1);
    entry.node.setAttribute("aria-setsize", items.length);
    return entry.node;
  };
  const draw = (force) => {
    frame = 0;
    if (!items.length) return;
    const top = -spacer.getBoundingClientRect().top, height = size + kCaption + kGap;
    const from = Math.max(0, Math.floor(top / height) - 2) * columns;
    const to = Math.min(items.length, (Math.ceil((top + innerHeight) / height) + 2) * columns);
    if (!force && from === first && to === last) return;
    const focused = document.activeElement?.dataset?.id;
    first = from, last = to;
    const nodes = [];
    for (let i = from; i < to; ++i) nodes.push(cell(i));
    const keep = new Set(items.slice(from, to).map((item) => item.id));
    for (const id of made.keys()) if (!keep.has(id)) made.delete(id);
    rows.style.transform = `translateY(${from / columns * height}px)`;
    fill(rows, nodes);
    if (focused) made.get(focused)?.node.querySelector("a")?.focus({preventScroll: true});
    if (to > items.length - 6 * columns) grid.on_end();
  };
  grid.layout = () => {
    if (!items.length) {
      spacer.style.height = "";
      rows.removeAttribute("role");
      fill(rows, nothing);
      rows.style.transform = "";
      rows.style.display = "block";
      return;
    }
    const width = spacer.clientWidth || 1000;
    columns = Math.max(2, Math.floor((width + kGap) / (width < 500 ? 160 : 216)));
    size = (width - (columns - 1) * kGap) / columns;
    rows.style.display = "grid";
    rows.setAttribute("role", "list");
    rows.setAttribute("aria-label", "Pictures and trainings");
    rows.style.gridTemplateColumns = `repeat(${columns}, 1fr)`;
    rows.style.setProperty("--cell", `${size}px`);
    spacer.style.height = `${Math.ceil(items.length / columns) * (size + kCaption + kGap)}px`;
    draw(true);
  };
  grid.reset = (list, message) => { items = list; nothing = message; made.clear(); grid.layout(); };
  grid.append = (list) => {
    const known = new Set(items.map((item) => item.id));
    items = items.concat(list.filter((item) => !known.has(item.id)));
    grid.layout();
  };
  /// The newest page again: changed entries change, new ones come in front.
  grid.merge = (list) => {
    const fresh = new Map(list.map((item) => [item.id, item])), known = new Set(items.map((item) => item.id));
    const before = items.length;
    items = [...list.filter((item) => !known.has(item.id)), ...items.map((item) => fresh.get(item.id) ?? item)];
    if (!before || items.length !== before) grid.layout();
    else draw(true);
  };
  const moved = () => { if (!frame) frame = requestAnimationFrame(() => draw(false)); };
  addEventListener("scroll", moved, {passive: true});
  const resized = new ResizeObserver(() => grid.layout());
  resized.observe(spacer);
  grid.close = () => { removeEventListener("scroll", moved); resized.disconnect(); };
  return grid;
}

function make_cell(item) {
  const url = picture_urls(item.output)[0] ?? local_path(item.preview);
  const training = item.kind === "training";
  const title = training ? `Training of ${item.destination || item.model}` : item.prompt || item.model;
  const words = {starting: "waiting", processing: "running", failed: "failed", canceled: "canceled"}[item.status] ?? (training && url ? "training" : "");
  const share = item.progress?.total && !is_ended(item.status) ? ` ${Math.round(100 * item.progress.done / item.progress.total)} %` : "";
  return el("div", {class: `cell ${item.status}`, role: "listitem"}, el("a", {href: `/p/${item.id}`, data: {id: item.id}, title},
    el("div", {class: "picture"}, url ? el("img", {src: url, alt: "", loading: "lazy", decoding: "async"}) : el("span", {class: "blank"}, training ? "Training" : words || "no picture"),
       words ? el("span", {class: `pill ${item.status}`}, words + share) : null),
    el("p", {class: "title", dir: "auto"}, title.slice(0, 200)), el("p", {class: "muted"}, ago(item.created_at))));
}
