// All sweeps: how each stands, its best so far as a line, filtered and sorted here: there are few.

import * as api from "./api.js";
import { badge, choice, el, fill, name, panel, throttled } from "./dom.js";
import { ago, grouped, number } from "./format.js";
import { follow } from "./live.js";
import { progress, sparkline } from "./small.js";

/** Lines of best-so-far that are asked for at most; the newest sweeps. */
const SPARKLINES = 30;

const COLUMNS = [
  ["sweep", "sweep", (s) => s.sweep],
  ["state", "state", (s) => s.state],
  ["progress", "done", (s) => s.ended / Math.max(s.trials, 1)],
  ["trials", "trials", (s) => s.trials],
  ["best", "best", (s) => s.best_value ?? null],
  ["line", "best so far", null],
  ["submitted", "submitted", (s) => s.submitted_at_us],
];

export async function sweepsView(host) {
  document.title = "Sweeps · Spotsweep";
  let sweeps = (await api.sweeps()).sweeps;
  const lines = new Map();
  const state = { text: "", only: "all", by: "submitted", down: true };

  const search = el("input", {
    type: "search",
    placeholder: "Filter by name",
    "aria-label": "Filter sweeps by name or description",
    oninput: () => {
      state.text = search.value.toLowerCase();
      draw();
    },
  });
  const only = choice("State", [["all", "all"], "running", "paused", "completed", "cancelled"], "all", (value) => {
    state.only = value;
    draw();
  });
  const head = el("thead", {});
  const body = el("tbody", {});
  const status = el("p.chart-status", { role: "status" }, "");
  const list = panel("Sweeps", { tools: [search, only] },
    el("div.scroll-x", {}, el("table.grid.roomy", { "aria-label": "Sweeps" }, head, body)), status);
  fill(host, el("h1.visually-hidden", {}, "Sweeps"), list);

  const drawHead = () => {
    const heads = COLUMNS.map(([key, title, value]) => {
      if (!value) return el("th", { scope: "col" }, title);
      const sorted = state.by === key ? (state.down ? "descending" : "ascending") : "none";
      const flip = () => {
        state.down = state.by === key ? !state.down : false;
        state.by = key;
        drawHead();
        draw();
      };
      return el("th", { scope: "col", "aria-sort": sorted },
        el("button", { type: "button", onclick: flip }, title, { ascending: " ▲", descending: " ▼", none: "" }[sorted]));
    });
    fill(head, el("tr", {}, heads));
  };

  const best = (s) => {
    if (s.best_value === null) return el("span.muted", {}, s.objective ? "–" : "no objective");
    return [number(s.best_value), " ", el("span.muted", {}, name(s.objective.metric, 24), ` · #${s.best_trial}`)];
  };

  const draw = () => {
    const value = COLUMNS.find(([key]) => key === state.by)[2];
    const shown = sweeps
      .filter((s) => state.only === "all" || s.state === state.only)
      .filter((s) => `${s.sweep} ${s.description}`.toLowerCase().includes(state.text));
    const order = (a, b) => {
      const [x, y] = [value(a), value(b)];
      if (x === null || y === null) return (x === null) - (y === null);
      return (x < y ? -1 : x > y ? 1 : 0) * (state.down ? -1 : 1);
    };
    shown.sort(order);
    const rows = shown.map((s) => {
      const href = `#/sweep/${encodeURIComponent(s.sweep)}`;
      return el("tr", { data: { sweep: s.sweep } },
        el("td", {}, el("a.strong", { href }, name(s.sweep, 48)), s.description ? el("div.muted.small", {}, name(s.description, 90)) : null),
        el("td", {}, badge(s.state)),
        el("td.wide", {}, progress(s.counts, s.trials)),
        el("td.num", {}, `${grouped(s.ended)} / ${grouped(s.trials)}`),
        el("td", {}, best(s)),
        el("td", {}, sparkline(lines.get(s.sweep), `Best so far of ${s.sweep}`)),
        el("td.muted", {}, ago(s.submitted_at_us)));
    });
    fill(body, rows.length ? rows : el("tr", {}, el("td.muted.pad", { colspan: COLUMNS.length },
      sweeps.length ? "No sweep is like that." : "No sweeps yet: spotsweep submit sweep.yaml")));
    status.textContent = `${shown.length} of ${sweeps.length} sweeps`;
  };

  const loadLines = async (names) => {
    for (const s of names) {
      try {
        const page = await api.sweep(s);
        lines.set(s, page.best_so_far.map((point) => point.value));
      } catch {
        // Too large for a line, or gone: the box stays empty.
        lines.set(s, []);
      }
    }
    draw();
  };

  const stale = new Set();
  const refresh = throttled(async () => {
    try {
      sweeps = (await api.sweeps()).sweeps;
    } catch {
      // The stream says that it is not live.
      return;
    }
    draw();
    const names = [...stale];
    stale.clear();
    loadLines(names.slice(0, 4));
  }, 1500);

  drawHead();
  draw();
  loadLines(sweeps.slice(-SPARKLINES).filter((s) => s.objective).map((s) => s.sweep));
  const stop = follow(undefined, (changed) => {
    for (const s of changed.sweeps) if (!changed.missed && s.objective) stale.add(s.sweep);
    refresh();
  });
  return () => {
    stop();
    refresh.cancel();
  };
}
