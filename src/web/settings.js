// /settings: who is signed in, what stands behind the models, what the machine holds and does.
import * as api from "./api.js";
import {button, el, notice, stand_in} from "./dom.js";
import {ago, bytes} from "./text.js";
import {sign_in} from "./app.js";

const fact = (name, value) => value === null || value === undefined || value === "" ? [] : [el("dt", {}, name), el("dd", {}, value)];

export async function settings_page({set_title, reload}) {
  set_title("Settings");
  const [site, account] = await Promise.all([api.site(), api.account()]);
  const node = el("div", {class: "settings-page"}, el("div", {class: "heading"}, el("h1", {tabIndex: -1}, "Settings")),
    el("div", {class: "cards wide"}, account_card(site, account, reload), machine_card(site), workers_card(site), weights_card(site)));
  return {node};
}

function account_card(site, account, reload) {
  const signed_in = Boolean(api.token());
  return el("section", {class: "card"}, el("h2", {}, "Account"),
    el("p", {}, "You are ", el("strong", {}, account.username), "."),
    el("p", {class: "muted"}, site.token_required ? "This server asks for a token; yours is kept in this browser."
                                                  : "This server asks for no token: everybody who reaches it may use it. It listens on this machine only."),
    el("div", {class: "row"}, signed_in ? button("Sign out", () => { api.set_token(""); notice("Signed out."); reload(); }) : null,
       button(signed_in ? "Use another token" : "Use a token", sign_in, signed_in ? {class: "quiet"} : {})));
}

function machine_card(site) {
  const {files} = site;
  const all = files.bytes + (files.free ?? 0);
  return el("section", {class: "card"}, el("h2", {}, "Storage"),
    el("meter", {min: 0, max: all || 1, high: all * 0.9, value: files.bytes, "aria-label": "Share of the room that files take"}),
    el("dl", {class: "settings"}, fact("stored files", `${files.count}, ${bytes(files.bytes)}`), fact("free", files.free === null ? "not known" : bytes(files.free)),
       fact("largest upload", bytes(site.upload_bytes)), fact("program", site.version)));
}

function workers_card(site) {
  const waiting = site.jobs.filter((each) => each.status === "starting").reduce((sum, each) => sum + each.count, 0);
  const running = site.jobs.filter((each) => each.status === "processing").reduce((sum, each) => sum + each.count, 0);
  return el("section", {class: "card"}, el("h2", {}, "Workers"),
    el("p", {class: "muted"}, `${running} running, ${waiting} waiting`),
    site.workers.length
      ? el("ul", {class: "rows"}, site.workers.map((worker) => el("li", {}, el("div", {}, el("strong", {}, worker.device || "worker"), ` on ${worker.host}`),
          el("span", {class: "muted"}, [worker.job ? "at work" : "idle", worker.model && `${worker.model} is loaded`, `process ${worker.pid}`, `seen ${ago(worker.heartbeat)}`].filter(Boolean).join(" · ")))))
      : el("p", {class: "warning"}, "No worker is running, so jobs wait. `calotype serve` starts one by itself; look at its messages."));
}

function weights_card(site) {
  return el("section", {class: "card"}, el("h2", {}, "Weights"),
    stand_in(site.note, {open: true}) ?? el("p", {}, "Each name is served by the weights that are configured for it."),
    el("p", {class: "muted"}, "Which folder stands behind which name is set when the server starts; the models are listed on the ", el("a", {href: "/"}, "first page"), "."));
}
