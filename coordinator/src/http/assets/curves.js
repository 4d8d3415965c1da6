// Learning curves of many trials, on uPlot: smoothing, log axes, zoom, and the curve under the pointer in words.

import { el, short } from "./dom.js";
import { number } from "./format.js";
import { colour, onChange, series } from "./theme.js";

const HEIGHT = 300;

/** Exponential moving average with the start's bias taken out, as in Kingma & Ba, "Adam", 2015, section 3. */
export function smooth(values, weight) {
  if (weight <= 0) return values;
  let mean = 0;
  return values.map((value, index) => {
    mean = mean * weight + value * (1 - weight);
    return mean / (1 - weight ** (index + 1));
  });
}

/** One table of all curves: uPlot wants common x values. */
function joined(curves, { smoothing, logX, logY }) {
  const tables = curves.map((curve) => {
    const ys = smooth(curve.values, smoothing);
    const keep = curve.steps.map((step, i) => (!logX || step > 0) && (!logY || ys[i] > 0));
    return [curve.steps.filter((_, i) => keep[i]), ys.filter((_, i) => keep[i])];
  });
  if (tables.length === 0) return [[]];
  // Modes: gaps are where another curve has a point, so that lines run on.
  return tables.length === 1 ? tables[0] : uPlot.join(tables, tables.map(() => [1]));
}

/**
 * A chart in `host`. `onPick` gets the curve that is clicked. Gives `set(curves, options)` and `destroy()`.
 * A curve is `{label, steps, values}`; options are `{smoothing, logX, logY, yLabel}`.
 */
export function curveChart(host, { label, height = HEIGHT, onPick = null, xLabel = "step" }) {
  const status = el("p.chart-status", { "aria-live": "off" }, "");
  const box = el("div.chart", { role: "img", "aria-label": label });
  host.append(box, status);
  let plot = null;
  let shape = "";
  let shown = [];
  let zoomed = false;
  let last = null;
  let focused = null;

  const hint = () => {
    if (shown.length === 0) return "nothing reported yet";
    return `${shown.length} ${shown.length === 1 ? "curve" : "curves"} · drag to zoom, double-click for all`;
  };

  const describe = () => {
    const at = plot?.cursor.idx;
    if (focused === null || at === null || at === undefined || !shown[focused]) {
      status.textContent = hint();
      return;
    }
    const curve = shown[focused];
    const [xs, ys] = [plot.data[0], plot.data[focused + 1]];
    let index = plot.cursor.idxs?.[focused + 1] ?? at;
    while (index > 0 && (ys[index] === null || ys[index] === undefined)) index -= 1;
    status.textContent = `${short(curve.label, 200)} · ${xLabel} ${number(xs[index])} · ${number(ys[index])}`;
  };

  const axis = (side, extra) => ({
    stroke: colour("muted"),
    grid: { stroke: colour("grid"), width: 1 },
    ticks: { stroke: colour("grid"), width: 1, size: 4 },
    font: "11px system-ui, sans-serif",
    ...extra,
  });

  const options = ({ logX, logY, stepped }) => ({
    width: Math.max(box.clientWidth, 200),
    height,
    scales: {
      x: { time: false, distr: logX ? 3 : 1 },
      y: { distr: logY ? 3 : 1 },
    },
    axes: [
      axis(2, { size: 28, values: (_, marks) => marks.map((m) => (m === null ? "" : number(m))) }),
      axis(3, { size: 56, values: (_, marks) => marks.map((m) => (m === null ? "" : number(m))) }),
    ],
    series: [
      {},
      ...shown.map((curve, index) => ({
        label: short(curve.label, 60),
        stroke: curve.colour ?? series(curve.index ?? index),
        width: shown.length > 20 ? 1 : 1.6,
        spanGaps: true,
        paths: stepped ? uPlot.paths.stepped({ align: 1 }) : undefined,
        points: { show: curve.steps.length === 1 || (shown.length === 1 && curve.steps.length < 12), size: 5 },
      })),
    ],
    legend: { show: false },
    focus: { alpha: shown.length > 1 ? 0.2 : 1 },
    cursor: { focus: { prox: 24 }, drag: { x: true, y: true, uni: 30, setScale: true }, points: { size: 6 } },
    hooks: {
      setSeries: [
        (_, index) => {
          focused = index === null || index < 1 ? null : index - 1;
          describe();
        },
      ],
      setCursor: [describe],
      setSelect: [(u) => (zoomed = u.select.width > 0 || zoomed)],
    },
  });

  const build = () => {
    plot?.destroy();
    plot = null;
    focused = null;
    if (shown.length && last) plot = new uPlot(options(last), joined(shown, last), box);
    describe();
  };

  box.addEventListener("dblclick", () => (zoomed = false));
  box.addEventListener("click", () => {
    if (onPick && focused !== null && shown[focused] && !plot.select.width) onPick(shown[focused]);
  });
  const observer = new ResizeObserver(() => {
    if (plot && box.clientWidth && box.clientWidth !== plot.width) plot.setSize({ width: box.clientWidth, height });
  });
  observer.observe(box);
  const ended = onChange(build);

  return {
    set(curves, settings) {
      shown = curves.filter((curve) => curve.steps.length > 0);
      last = settings;
      const now = JSON.stringify([shown.map((curve) => [curve.label, curve.colour]), settings]);
      if (now !== shape || !plot) {
        shape = now;
        zoomed = false;
        build();
      } else {
        // The same curves, grown: a zoom stays.
        plot.setData(joined(shown, settings), !zoomed);
        if (zoomed) plot.redraw();
        describe();
      }
    },
    /** How many points are drawn: what tests watch grow. */
    points: () => shown.reduce((sum, curve) => sum + curve.steps.length, 0),
    destroy() {
      ended();
      observer.disconnect();
      plot?.destroy();
    },
  };
}
