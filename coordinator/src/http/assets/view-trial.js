// One trial: its curves, parameters, attempts across machines, what they printed, checkpoints to take away, and why it is as it is.

import * as api from "./api.js";
import { badge, el, fill, name, panel, short, throttled, toggle } from "./dom.js";
import { bytes, cell, count, duration, grouped, number } from "./format.js";
import { attemptTable, gantt } from "./gantt.js";
import { curveChart } from "./curves.js";
import { follow } from "./live.js";
import { attemptLog } from "./log.js";
import { orders } from "./orders.js";
import { facts } from "./small.js";

/** Metrics that share a chart: a name and those that differ only in what they were measured on. */
function family(metric) {
  return metric.replace(/^(train|val|test)_/, "");
}

export async function trialView(host, sweep, number_) {
  const id = `${sweep}/${number_}`;
  document.title = `${short(id, 60)} · Spotsweep`;
  let trial = await api.trial(sweep, number_);
  const head = el("div.title", {});
  const explain = el("div", {});
  const parameters = el("div", {});
  const metrics = el("div", {});
  const timelineHost = el("div", {});
  const attempts = el("div", {});
  const checkpoints = el("div", {});
  const chartsHost = el("div.charts", {});
  const logHost = el("div", {});
  const logTools = el("div.tools", {});
  let logY = false;
  const logBox = toggle("log y", false, (on) => {
    logY = on;
    drawCurves();
  });
  fill(host, head,
    el("div.columns", {},
      panel("Why", {}, explain),
      panel("Parameters", {}, parameters),
      panel("Metrics", {}, metrics)),
    panel("Attempts", { id: "attempts" }, timelineHost, attempts),
    panel("Curves", { tools: [logBox] }, chartsHost),
    panel("Log", { id: "log", tools: [logTools] }, logHost),
    panel("Checkpoints", { id: "checkpoints" }, checkpoints));
  const timeline = gantt(timelineHost, { label: "Attempts of this trial over time" });
  const log = attemptLog(logHost, logTools, sweep, number_);

  const drawFacts = () => {
    const left = trial.total_steps ? ` of ${grouped(trial.total_steps)}` : "";
    const up = el("a", { href: `#/sweep/${encodeURIComponent(sweep)}` }, name(sweep, 60));
    fill(head,
      el("h1", {}, up, ` / ${number_} `, badge(trial.state)),
      el("p.muted", {}, `${grouped(trial.steps)}${left} steps · ${duration(trial.seconds)} of training · ${count(trial.attempts.length, "attempt")}, ${trial.interruptions} interrupted, ${trial.failures} failed`),
      orders(sweep, number_, trial.state, refresh));
    fill(explain, el("ul.explain", {}, trial.explanation.map((line) => el("li", {}, name(line.trimEnd(), 500)))));
    fill(parameters, facts(Object.entries(trial.params).map(([key, value]) => [key, cell(key, value)])));
    const known = Object.entries(trial.metrics).map(([key, value]) => [key, number(value)]);
    fill(metrics, known.length ? facts(known) : el("p.muted", {}, "nothing reported yet"));
    if (trial.weights_digest) metrics.append(facts([["weights (BLAKE3)", trial.weights_digest]]));
    const now = Date.now() * 1000;
    timeline.set({ attempts: trial.attempts, now, join: true });
    fill(attempts, trial.attempts.length ? attemptTable(trial.attempts, now) : null);
    log.set(trial.attempts);
    drawCheckpoints();
  };

  const drawCheckpoints = () => {
    const rows = trial.checkpoints.map((kept) => {
      const link = (part) => el("a", {
        href: api.checkpoint(sweep, number_, kept.step, part),
        download: "",
        data: { checkpoint: kept.step, part },
        "aria-label": `Download the ${part} of step ${kept.step}`,
      }, part);
      const which = [kept.best && "best", kept.last && "final"].filter(Boolean).join(", ");
      return el("tr", {}, el("td.num", {}, grouped(kept.step)), el("td", {}, which || "–"), el("td.num", {}, kept.value === null ? "–" : number(kept.value)),
        el("td.num", {}, bytes(kept.bytes)), el("td", {}, el("code", {}, kept.manifest.slice(0, 16))), el("td", {}, link("weights"), " · ", link("state")));
    });
    const heads = ["step", "which", "objective", "size", "manifest", "download"];
    fill(checkpoints, rows.length
      ? el("div.scroll-x", {}, el("table.plain", {}, el("thead", {}, el("tr", {}, heads.map((h) => el(["step", "objective", "size"].includes(h) ? "th.num" : "th", { scope: "col" }, h)))), el("tbody", {}, rows)))
      : el("p.muted.pad", {}, "None is kept."));
  };

  const charts = new Map();
  let curves = [];
  const drawCurves = () => {
    const families = new Map();
    for (const curve of curves) families.set(family(curve.metric), [...(families.get(family(curve.metric)) ?? []), curve]);
    for (const [key, members] of families) {
      if (!charts.has(key)) {
        const box = el("figure", {}, el("figcaption", {}, name(key, 60)));
        chartsHost.append(box);
        charts.set(key, curveChart(box, { label: `${short(key, 60)} of ${short(id, 60)}`, height: 180 }));
      }
      charts.get(key).set(members.map((c) => ({ ...c, label: c.metric })), { smoothing: 0, logX: false, logY });
    }
    chartsHost.dataset.points = String(curves.reduce((sum, curve) => sum + curve.steps.length, 0));
  };
  const loadCurves = async () => {
    curves = (await api.trialCurves(sweep, number_, 400)).curves;
    drawCurves();
  };

  const refresh = throttled(async () => {
    try {
      trial = await api.trial(sweep, number_);
      drawFacts();
      await loadCurves();
    } catch {
      // Shown as it was; the sign in the corner says that it is not live.
    }
  }, 1200);
  drawFacts();
  await loadCurves();
  const stop = follow(sweep, (changed) => {
    if (changed.missed || changed.trials.includes(id) || changed.trials_changed > changed.trials.length) refresh();
  });
  return () => {
    stop();
    refresh.cancel();
    timeline.destroy();
    log.destroy();
    for (const chart of charts.values()) chart.destroy();
  };
}
