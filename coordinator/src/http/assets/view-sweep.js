// One sweep: how it stands, its curves, what its parameters do, and the table of its trials. One filter holds for all.

import * as api from "./api.js";
import { badge, choice, el, fill, name, panel, say, short, throttled, toggle } from "./dom.js";
import { ago, duration, grouped, number } from "./format.js";
import { curveChart } from "./curves.js";
import { follow } from "./live.js";
import { orders } from "./orders.js";
import { parallel } from "./parallel.js";
import { scatter } from "./scatter.js";
import { bars, progress } from "./small.js";
import { trialTable } from "./table.js";

/** Lines of parallel coordinates and points of the scatter plot, at most: the best. */
const LINES = 2000;
/** Columns of the table to begin with, besides what varies and the objective. */
const FIRST_COLUMNS = ["number", "state", "steps", "attempts", "seconds"];

export async function sweepView(host, sweep) {
  document.title = `${short(sweep, 60)} · Spotsweep`;
  let page = await api.sweep(sweep);
  const varying = page.parameters.filter((parameter) => parameter.varies);
  const objective = page.summary.objective;
  const column = (what) => (page.columns.includes(`metrics.${what}`) ? `metrics.${what}` : what);
  const state = {
    metric: objective?.metric ?? page.metrics[0] ?? "",
    smoothing: 0,
    logX: false,
    logY: false,
    limit: "50",
    written: "",
    brushed: [],
    sort: "",
    columns: [...FIRST_COLUMNS, ...varying.map((p) => p.name), ...(objective ? [column(objective.metric)] : [])].filter((c) => page.columns.includes(c)),
    x: varying[0]?.name ?? "",
  };
  const filter = () => [state.written, ...state.brushed].filter(Boolean).join(";");
  const open = (trial) => (location.hash = `#/sweep/${encodeURIComponent(sweep)}/${trial}`);

  const head = el("div.title", {});
  const metricHost = el("span", {});
  const filterBox = el("input.filter", {
    type: "search",
    placeholder: "Filter: state=running; learning_rate>=0.01",
    "aria-label": "Filter trials, for instance state=running;learning_rate>=0.01",
    title: "column=a|b, !=, <, <=, >, >=, ~ (contains); joined by ;",
    onchange: () => {
      state.written = filterBox.value.trim();
      filtered();
    },
  });
  const brushNote = el("button.quiet", { type: "button", hidden: true, onclick: () => lines.clear() }, "");
  const bar = el("div.bar-sticky", {}, metricHost, filterBox, brushNote);
  const curvesHost = el("div", { id: "curves" });
  const linesHost = el("div", { id: "parallel" });
  const scatterHost = el("div", {});
  const scatterTools = el("span", {});
  const importanceHost = el("div", {});
  const bestHost = el("div", {});
  const tableHost = el("div", { id: "table" });
  const chooser = el("div.chooser", {});
  const smoothing = el("input", { type: "range", min: "0", max: "0.98", step: "0.02", value: "0", oninput: () => {
    state.smoothing = Number(smoothing.value);
    drawCurves();
  } });
  const curveTools = [
    el("label.field", {}, el("span", {}, "Smoothing"), smoothing),
    toggle("log x", false, (on) => { state.logX = on; drawCurves(); }),
    toggle("log y", false, (on) => { state.logY = on; drawCurves(); }),
    choice("Curves", ["10", "25", "50", "100", "200"], "50", (value) => { state.limit = value; loadCurves(); }),
  ];
  fill(host, head, bar,
    el("div.columns.wide-left", {}, panel("Curves", { tools: curveTools }, curvesHost), panel("Best so far", {}, bestHost)),
    panel("Parallel coordinates", {}, linesHost),
    el("div.columns", {}, panel("Parameter and metric", { tools: [scatterTools] }, scatterHost), panel("Importance", {}, importanceHost)),
    panel("Trials", { tools: [el("details.columns-menu", {}, el("summary", {}, "Columns"), chooser)] }, tableHost));

  const curves = curveChart(curvesHost, { label: `Learning curves of ${short(sweep, 60)}`, onPick: (curve) => open(curve.number) });
  const best = curveChart(bestHost, { label: "Best objective so far over time", height: 240, xLabel: "seconds since submission", onPick: () => {} });
  const lines = parallel(linesHost, { onBrush: (conditions) => { state.brushed = conditions; filtered(); } });
  const points = scatter(scatterHost, { onPick: (point) => open(point.number) });
  const table = trialTable(tableHost, {
    load: (columns, sort, offset, limit) => api.trials(sweep, { columns: columns.join(), sort, offset, limit, filter: filter() }),
    onOpen: open,
    onSort: (sort) => { state.sort = sort; table.set(state); },
  });

  const drawHead = () => {
    const s = page.summary;
    const end = s.ended_at_us ?? Date.now() * 1000;
    const goal = objective ? `${objective.goal} ${objective.metric}` : "no objective";
    const found = s.best_value === null ? "" : ` · best ${number(s.best_value)} by trial ${s.best_trial}`;
    fill(head,
      el("h1", {}, name(s.sweep, 80), " ", badge(s.state)),
      s.description ? el("p", {}, name(s.description, 300)) : null,
      el("p.muted", {}, `${grouped(s.ended)} of ${grouped(s.trials)} trials ended · `, name(goal, 80), found, ` · submitted ${ago(s.submitted_at_us)}, ${duration((end - s.submitted_at_us) / 1e6)} long`),
      s.imported ? el("p.muted", {}, `imported ${ago(s.imported.at_us)} from an export of Spotsweep `, name(s.imported.program, 40), `; read-only, without checkpoints`) : null,
      progress(s.counts, s.trials),
      orders(sweep, null, s.state, refresh));
  };

  const drawMetricChoice = () => {
    const select = choice("Metric", page.metrics.length ? page.metrics : [state.metric], state.metric, (value) => {
      state.metric = value;
      reloadAll();
    });
    fill(metricHost, select);
  };

  let shown = [];
  const drawCurves = () => {
    const { smoothing: weight, logX, logY } = state;
    curves.set(shown.map((c, index) => ({ ...c, label: `${sweep}/${c.number}`, index })), { smoothing: weight, logX, logY });
    curvesHost.dataset.points = String(curves.points());
    curvesHost.dataset.curves = String(shown.length);
  };

  const complain = (error) => {
    if (error.name !== "AbortError") say(`${error.message}${error.hint ? `: ${error.hint}` : ""}`, "error");
  };
  /** Only the newest answer to one question counts. */
  const newest = {};
  const ask = async (what, question, answer) => {
    newest[what]?.abort();
    const mine = (newest[what] = new AbortController());
    try {
      const got = await question(mine.signal);
      if (!mine.signal.aborted) answer(got);
    } catch (error) {
      if (!mine.signal.aborted) complain(error);
    }
  };

  const loadCurves = () => {
    if (!state.metric) return undefined;
    const asked = { metric: state.metric, limit: state.limit, points: 200, filter: filter() };
    return ask("curves", (signal) => api.curves(sweep, asked, signal), (got) => {
      shown = got.curves;
      drawCurves();
    });
  };

  // All trials, whatever the filter: brushes must not take away the lines that they could let in again.
  const loadLines = () => {
    const columns = [...varying.slice(0, 12).map((p) => (page.columns.includes(`params.${p.name}`) ? `params.${p.name}` : p.name)), ...(state.metric ? [column(state.metric)] : [])];
    if (columns.length === 0) return undefined;
    return ask("lines", (signal) => api.trials(sweep, { columns: ["number", "state", ...columns].join(), limit: LINES, filter: state.written }, signal), (got) => {
      const axes = columns.map((c, i) => ({ name: c, log: varying[i]?.scale === "log", category: isCategory(varying[i]), order: varying[i]?.values }));
      lines.set({ columns: axes, rows: got.rows.map((row) => row.slice(2)), goal: state.metric === objective?.metric ? objective.goal : "minimize" });
      linesHost.dataset.lines = String(got.rows.length);
    });
  };
  /** Whether its values stand side by side; many numbers stand where their size says. */
  const isCategory = (p) => p?.scale === "category" && !(p.values.length > 12 && p.values.every((v) => typeof v === "number"));

  const loadPoints = () => {
    if (!state.x || !state.metric) return undefined;
    const x = varying.find((p) => p.name === state.x);
    const columns = ["number", "state", page.columns.includes(`params.${x.name}`) ? `params.${x.name}` : x.name, column(state.metric)].join();
    return ask("points", (signal) => api.trials(sweep, { columns, limit: LINES, filter: filter() }, signal), (got) => {
      const category = isCategory(x);
      points.set({
        points: got.rows.map(([trial, s, px, py]) => ({ number: trial, state: s, x: px, y: py, label: `${sweep}/${trial}` })),
        x: { name: x.name, log: x.scale === "log" || spread(got.rows.map((row) => row[2])), category, order: x.values },
        y: { name: state.metric, log: false },
      });
    });
  };
  /** Whether positive numbers span more than two powers of ten: a grid of learning rates, say. */
  const spread = (values) => {
    const known = values.filter((v) => typeof v === "number" && v > 0);
    return known.length > 0 && Math.max(...known) / Math.min(...known) > 100;
  };

  const loadImportance = () => ask("importance", () => api.importance(sweep, state.metric || undefined), (got) => {
    fill(importanceHost, got.parameters.length ? bars(got.parameters) : el("p.muted", {}, "No parameter varies."),
      el("p.chart-status", {}, `Share of the variance of ${short(got.metric, 40)} over ${got.trials} trials: ${got.method}. Interactions count for none.`));
  });

  const drawBest = () => {
    const start = page.summary.submitted_at_us;
    const end = page.summary.ended_at_us ?? Date.now() * 1000;
    const seconds = page.best_so_far.map((p) => ((p.at_us ?? end) - start) / 1e6);
    const values = page.best_so_far.map((p) => p.value);
    if (values.length) {
      seconds.push(Math.max((end - start) / 1e6, seconds[seconds.length - 1]));
      values.push(values[values.length - 1]);
    }
    best.set([{ label: "best so far", steps: seconds, values, colour: "#2e9e6b" }], { smoothing: 0, logX: false, logY: false, stepped: true });
  };

  const drawChooser = () => {
    fill(chooser, page.columns.map((c) => toggle(name(c, 40), state.columns.includes(c), (on) => {
      state.columns = page.columns.filter((known) => (known === c ? on : state.columns.includes(known)));
      if (state.columns.length === 0) state.columns = ["number"];
      table.set(state);
    })));
  };

  fill(scatterTools, varying.length > 1 ? choice("Parameter", varying.map((p) => p.name), state.x, (value) => { state.x = value; loadPoints(); }) : null);

  const filtered = () => {
    brushNote.hidden = state.brushed.length === 0;
    brushNote.textContent = `✕ ${short(state.brushed.join("; "), 80)}`;
    table.set(state);
    table.top();
    loadCurves();
    loadPoints();
    if (state.brushed.length === 0) loadLines();
  };
  const reloadAll = () => {
    loadCurves();
    loadLines();
    loadPoints();
    loadImportance();
  };
  let columnsKnown = "";
  const refresh = throttled(() => ask("page", (signal) => api.sweep(sweep, signal), (got) => {
    page = got;
    if (!state.metric && page.metrics.length) state.metric = page.metrics[0];
    drawHead();
    drawBest();
    if (columnsKnown !== page.columns.join()) {
      columnsKnown = page.columns.join();
      drawMetricChoice();
      drawChooser();
    }
    table.reload();
    slow();
  }), 1500);
  const slow = throttled(reloadAll, 2500);

  columnsKnown = page.columns.join();
  drawHead();
  drawMetricChoice();
  drawChooser();
  drawBest();
  table.set(state);
  await Promise.all([loadCurves(), loadLines(), loadPoints(), loadImportance()]);
  const stop = follow(sweep, (changed) => {
    for (const notice of changed.notices.slice(-2)) say(`${notice.trial}: ${notice.text}`);
    refresh();
  });
  return () => {
    stop();
    refresh.cancel();
    slow.cancel();
    for (const control of Object.values(newest)) control.abort();
    for (const part of [curves, best, lines, points, table]) part.destroy();
  };
}
