// The page: which address shows what, without loading anything anew, and signing in where the server asks for it.
import * as api from "./api.js";
import {button, el, fill, notice} from "./dom.js";

const kPages = [
  [/^\/$/, async () => (await import("./home.js")).home_page],
  [/^\/gallery$/, async () => (await import("./gallery.js")).gallery_page],
  [/^\/train$/, async () => (await import("./train_page.js")).train_page],
  [/^\/settings$/, async () => (await import("./settings.js")).settings_page],
  [/^\/p\/(?<id>[^/]+)$/, async () => (await import("./job_page.js")).job_page],
  [/^\/(?<owner>[^/]+)\/(?<name>[^/]+)$/, async () => (await import("./model_page.js")).model_page],
];

const main = document.getElementById("main");
let present = null, visit = 0;

async function show(moved) {
  const mine = ++visit;
  const path = location.pathname.replace(/(.)\/$/, "$1");
  for (const link of document.querySelectorAll("header nav a"))
    if (link.getAttribute("href") === path) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  const set_title = (title) => { document.title = title ? `${title} · Calotype` : "Calotype"; };
  let page;
  try {
    page = await make(path, set_title);
  } catch (error) {
    page = {node: failed(error)};
  }
  if (mine !== visit) return void page.close?.();  // the person went on meanwhile
  present?.close?.();
  present = page;
  fill(main, page.node);
  page.shown?.();
  if (!moved) return;
  scrollTo(0, 0);
  main.querySelector("h1")?.focus({preventScroll: true});
}

async function make(path, set_title) {
  for (const [pattern, load] of kPages) {
    const match = pattern.exec(path);
    if (!match) continue;
    const parameters = Object.fromEntries(Object.entries(match.groups ?? {}).map(([key, value]) => [key, decodeURIComponent(value)]));
    return (await load())({...parameters, query: new URLSearchParams(location.search), set_title, go, reload: () => show(false)});
  }
  throw new api.ApiError("There is no such page.", 404);
}

function failed(error) {
  const words = error.status === 404 ? "There is nothing at this address." : error.message;
  if (!(error instanceof api.ApiError)) console.error(error);
  return el("div", {class: "empty-page"}, el("h1", {tabIndex: -1}, error.status === 401 ? "Please sign in" : "This did not work"), el("p", {}, words),
            error.status === 401 ? button("Sign in", sign_in, {class: "button primary"})
                                 : el("div", {class: "row"}, button("Try again", () => show(false), {class: "button primary"}), el("a", {class: "button", href: "/"}, "All models")));
}

export function go(path) {
  history.pushState(null, "", path);
  show(true);
}

document.addEventListener("click", (event) => {
  const link = event.target.closest?.("a");
  if (!link || event.defaultPrevented || event.button || event.ctrlKey || event.metaKey || event.shiftKey) return;
  if (link.target || link.download || link.origin !== location.origin || link.getAttribute("href").startsWith("#")) return;
  event.preventDefault();
  go(link.pathname + link.search);
});
addEventListener("popstate", () => show(true));

// ---- signing in

let asking = null;

export function sign_in() {
  if (asking) return;
  const field = el("input", {id: "token", type: "password", autocomplete: "current-password", required: true});
  const complaint = el("p", {class: "complaint", role: "alert", hidden: true});
  const form = el("form", {method: "dialog"}, el("h2", {}, "Sign in"),
    el("p", {}, "This server asks for a token. Whoever runs it makes one with ", el("code", {}, "calotype token create"), "; it is kept in this browser only."),
    el("label", {htmlFor: "token"}, "Token"), field, complaint,
    el("div", {class: "row"}, el("button", {type: "submit", class: "button primary"}, "Sign in"), button("Not now", () => asking.close())));
  asking = el("dialog", {"aria-label": "Sign in"}, form);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const before = api.token();
    api.set_token(field.value.trim());
    try {
      await api.account();
      asking.close();
      notice("Signed in.");
      show(false);
    } catch (error) {
      api.set_token(before);
      complaint.textContent = error.status === 401 ? "This token is not known here." : error.message;
      complaint.hidden = false;
      field.focus();
    }
  });
  asking.addEventListener("close", () => { asking.remove(); asking = null; });
  document.body.append(asking);
  asking.showModal();
}

document.addEventListener("sign-in-needed", sign_in);
show(false);
