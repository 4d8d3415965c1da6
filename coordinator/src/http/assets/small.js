// Small pictures: progress, sparklines, bars.

import { el, name, svg } from "./dom.js";
import { number } from "./format.js";

/** States in the order in which a bar shows them. */
const ORDER = ["completed", "stopped", "running", "paused", "failed", "diverged", "cancelled", "pending"];

/** How many trials are in which state, as a bar, with the words for who does not see it. */
export function progress(counts, trials) {
  const parts = ORDER.filter((state) => counts[state] > 0);
  const words = parts.map((state) => `${counts[state]} ${state}`).join(", ");
  const bar = el("div.progress", { role: "img", "aria-label": words, title: words });
  for (const state of parts) {
    bar.append(el("span", { data: { state }, style: { flexGrow: String(counts[state] / trials) } }));
  }
  return bar;
}

/** A line without axes. `points` are numbers; null gives an empty box of the same size. */
export function sparkline(points, label) {
  const [width, height] = [96, 22];
  const picture = svg("svg.spark", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
  const known = (points ?? []).filter((value) => value !== null);
  if (known.length === 0) return picture;
  const [low, high] = [Math.min(...known), Math.max(...known)];
  const y = (value) => (high === low ? height / 2 : height - 2 - ((value - low) / (high - low)) * (height - 4));
  const x = (index) => (known.length === 1 ? width : 1 + (index / (known.length - 1)) * (width - 4));
  if (known.length > 1) {
    picture.append(svg("polyline", { points: known.map((v, i) => `${x(i).toFixed(1)},${y(v).toFixed(1)}`).join(" ") }));
  }
  const last = known.length - 1;
  picture.append(svg("circle", { cx: Math.min(x(last), width - 3), cy: y(known[last]), r: 2 }));
  return picture;
}

/** Bars of shares in [0, 1], a line each. */
export function bars(shares) {
  const list = el("ul.bars", {});
  for (const { name: what, share } of shares) {
    const width = `${Math.round((share ?? 0) * 100)}%`;
    const track = el("span.track", { "aria-hidden": "true" }, el("span.bar", { style: { width } }));
    list.append(el("li", {}, el("span.what", {}, name(what, 40)), track, el("span.num", {}, share === null ? "–" : number(Math.round(share * 1000) / 1000))));
  }
  return list;
}

/** A list of facts: `[[what, value], …]`, where a value is text or nodes. */
export function facts(rows) {
  const list = el("dl.facts", {});
  for (const [what, value] of rows) {
    if (value === null || value === undefined || value === "") continue;
    list.append(el("div", {}, el("dt", {}, name(what, 60)), el("dd", {}, typeof value === "string" ? name(value, 200) : value)));
  }
  return list;
}
