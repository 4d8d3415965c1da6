// The page: which view is open, and what all of them share.

import { el, fill } from "./dom.js";
import * as theme from "./theme.js";
import { sweepView } from "./view-sweep.js";
import { sweepsView } from "./view-sweeps.js";
import { trialView } from "./view-trial.js";
import { workersView } from "./view-workers.js";

const main = document.getElementById("main");
let close = () => {};
let turn = 0;

/** What the address says: `#/`, `#/sweep/NAME`, `#/sweep/NAME/NUMBER`, `#/workers`. */
function route() {
  const [view, sweep, number] = location.hash.replace(/^#\/?/, "").split("/");
  let wanted = "";
  try {
    wanted = decodeURIComponent(sweep ?? "");
  } catch {
    // No name, then.
  }
  if (view === "workers") return { view: "workers", open: (host) => workersView(host) };
  if (view === "sweep" && wanted && /^\d+$/.test(number ?? "")) {
    return { view: "sweeps", open: (host) => trialView(host, wanted, Number(number)) };
  }
  if (view === "sweep" && wanted) return { view: "sweeps", open: (host) => sweepView(host, wanted) };
  return { view: "sweeps", open: (host) => sweepsView(host) };
}

/** What went wrong, and what to do. */
function failure(error) {
  console.warn(`${error.code ?? error.name}: ${error.message}`);
  return el("div.error", { role: "alert" },
    el("h1", {}, "This cannot be shown"),
    el("p", {}, error.message),
    error.hint ? el("p.muted", {}, error.hint) : null,
    el("p", {}, el("a", { href: "#/" }, "All sweeps")));
}

async function show() {
  turn += 1;
  const mine = turn;
  close();
  close = () => {};
  const { view, open } = route();
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.view === view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const host = el("div.view", { "aria-busy": "true" }, el("p.muted.pad", {}, "Loading…"));
  fill(main, host);
  window.scrollTo(0, 0);
  try {
    const opened = await open(host);
    // Somebody has gone on meanwhile.
    if (mine !== turn) opened();
    else close = opened;
  } catch (error) {
    if (mine === turn) fill(host, failure(error));
  }
  host.removeAttribute("aria-busy");
}

theme.start();
addEventListener("hashchange", () => show().then(() => main.focus({ preventScroll: true })));
show();
