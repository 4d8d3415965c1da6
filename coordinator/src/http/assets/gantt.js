// Attempts over time: a row a worker's device (or a trial), a bar an attempt. Interruptions end in a red edge, and what
// went on elsewhere afterwards is joined by a line where only one trial is shown.

import { el, fill, name, short, svg } from "./dom.js";
import { ago, count, duration, grouped, moment, span, timeMarks } from "./format.js";

const ROW = 24;
const BAR = 16;
const LABEL = 128;
const TOP = 22;
/** Narrowest bar, in pixels: short attempts must be seen. */
const LEAST = 2;
/** Most bars that take the keyboard's focus one by one. */
const FOCUSABLE = 60;

const key = (attempt) => `${attempt.worker} · ${attempt.device}`;

/** How an attempt went, in a line. */
export function words(attempt, now) {
  const end = attempt.ended_at_us ?? now;
  const took = duration((end - attempt.started_at_us) / 1e6);
  const steps = attempt.last_step === null
    ? `from step ${grouped(attempt.first_step)}`
    : `steps ${grouped(attempt.first_step)} to ${grouped(attempt.last_step)}`;
  const how = attempt.text || (attempt.end ?? "running").replace(/_/g, " ");
  return `${attempt.sweep}/${attempt.number}, attempt ${attempt.attempt} on ${attempt.worker} (${attempt.device}): ${steps}, ${took}; ${how}`;
}

/** The share of the time from `from` to `until` in which any of the attempts ran. */
export function busy(attempts, from, until, now) {
  const spans = attempts
    .map((a) => [Math.max(a.started_at_us, from), Math.min(a.ended_at_us ?? now, until)])
    .filter(([a, b]) => b > a)
    .sort((a, b) => a[0] - b[0]);
  let [sum, reached] = [0, from];
  for (const [a, b] of spans) {
    sum += Math.max(0, b - Math.max(a, reached));
    reached = Math.max(reached, b);
  }
  return until > from ? sum / (until - from) : 0;
}

/**
 * A chart in `host`. `set({attempts, now, from, rows, join})`: times in microseconds, `rows` names rows that are shown
 * even if empty, `join` draws lines from each attempt to the next. `onPick` gets the attempt that is chosen.
 */
export function gantt(host, { onPick = null, label = "Attempts over time" }) {
  const status = el("p.chart-status", {}, "");
  const box = el("div.scroll-x.gantt", { role: "group", "aria-label": label });
  host.append(box, status);
  let data = null;

  const draw = () => {
    if (!data) return;
    const { attempts, now, join } = data;
    const names = [...new Set([...(data.rows ?? []), ...attempts.map(key)])];
    if (names.length === 0) {
      fill(box);
      status.textContent = "nothing has run yet";
      return;
    }
    const from = data.from ?? Math.min(...attempts.map((a) => a.started_at_us), now);
    const running = attempts.some((a) => a.ended_at_us === null);
    const until = data.until ?? (running || attempts.length === 0 ? now : Math.max(...attempts.map((a) => a.ended_at_us)));
    const length = Math.max(until - from, 1000);
    const w = Math.max(box.clientWidth, 320);
    const plot = w - LABEL - 12;
    const x = (us) => LABEL + ((Math.min(Math.max(us, from), until) - from) / length) * plot;
    const y = (row) => TOP + names.indexOf(row) * ROW + (ROW - BAR) / 2;
    const height = TOP + names.length * ROW + 4;
    const picture = svg("svg", { width: w, height, viewBox: `0 0 ${w} ${height}` });
    for (const mark of timeMarks(0, length / 1e6, Math.max(Math.floor(plot / 80), 2))) {
      const at = Math.round(x(from + mark * 1e6)) + 0.5;
      picture.append(svg("line.grid", { x1: at, x2: at, y1: TOP - 4, y2: height - 4 }));
      picture.append(svg("text.tick", { x: at, y: 12, "text-anchor": "middle" }, span(mark)));
    }
    for (const row of names) {
      const middle = y(row) + BAR / 2;
      picture.append(svg("line.lane", { x1: LABEL, x2: w - 12, y1: middle, y2: middle }));
      picture.append(svg("text.label", { x: 0, y: middle + 4 }, svg("title", {}, short(row, 200)), short(row, 19)));
    }
    if (join) {
      attempts.slice(1).forEach((attempt, index) => {
        const before = attempts[index];
        if (before.ended_at_us === null) return;
        const [ax, ay] = [x(before.ended_at_us), y(key(before)) + BAR / 2];
        const [bx, by] = [x(attempt.started_at_us), y(key(attempt)) + BAR / 2];
        picture.append(svg("path.join", { d: `M${ax} ${ay}C${ax + 14} ${ay} ${bx - 14} ${by} ${bx} ${by}` }));
      });
    }
    for (const attempt of attempts) {
      const [a, b] = [x(attempt.started_at_us), x(attempt.ended_at_us ?? now)];
      const said = short(words(attempt, now), 400);
      const bar = svg("g.attempt", {
        data: { end: attempt.interrupted ? "interrupted" : (attempt.end ?? "running") },
        tabindex: attempts.length <= FOCUSABLE ? "0" : null,
        role: onPick ? "link" : "img",
        "aria-label": said,
        onfocus: () => (status.textContent = said),
        onpointerenter: () => (status.textContent = said),
        onclick: () => onPick?.(attempt),
        onkeydown: (event) => event.key === "Enter" && onPick?.(attempt),
      });
      const width = Math.max(b - a, LEAST);
      bar.append(svg("rect", { x: a, y: y(key(attempt)), width, height: BAR, rx: 2 }));
      if (attempt.interrupted) bar.append(svg("rect.edge", { x: a + width - 3, y: y(key(attempt)), width: 3, height: BAR }));
      const text = join ? `${attempt.attempt}` : `${attempt.number}`;
      if (width > text.length * 7 + 8) {
        bar.append(svg("text", { x: a + 5, y: y(key(attempt)) + BAR - 4 }, text));
      }
      picture.append(bar);
    }
    fill(box, picture);
    const interrupted = attempts.filter((a) => a.interrupted).length;
    status.textContent = `${count(attempts.length, "attempt")}, ${interrupted} interrupted, from ${moment(from)} (${ago(from)})${data.cut ? " · older ones are left out" : ""}`;
  };

  const observer = new ResizeObserver(draw);
  observer.observe(box);
  return {
    set(next) {
      // A bar that has the keyboard's focus keeps it.
      const index = [...box.querySelectorAll(".attempt")].indexOf(document.activeElement);
      data = next;
      draw();
      if (index >= 0) box.querySelectorAll(".attempt")[index]?.focus();
    },
    destroy: () => observer.disconnect(),
  };
}

/** The same in words, for those who do not see it: a table of attempts. */
export function attemptTable(attempts, now) {
  const rows = attempts.map((a) =>
    el("tr", {},
      el("td.num", {}, String(a.attempt)),
      el("td", {}, name(a.worker, 40)),
      el("td", {}, name(a.device, 20)),
      el("td.num", {}, `${grouped(a.first_step)} – ${a.last_step === null ? "…" : grouped(a.last_step)}`),
      el("td", {}, moment(a.started_at_us)),
      el("td.num", {}, duration(((a.ended_at_us ?? now) - a.started_at_us) / 1e6)),
      el("td.wrap", { data: { end: a.interrupted ? "interrupted" : (a.end ?? "running") } }, name(a.text || (a.end ?? "running").replace(/_/g, " "), 300)),
    ),
  );
  const head = ["#", "worker", "device", "steps", "began", "took", "ended"];
  return el("div.scroll-x", {}, el("table.plain", {},
    el("thead", {}, el("tr", {}, head.map((h) => el(["#", "steps", "took"].includes(h) ? "th.num" : "th", { scope: "col" }, h)))),
    el("tbody", {}, rows)));
}
