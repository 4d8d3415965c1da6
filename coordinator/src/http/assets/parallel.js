// Parallel coordinates: one line a trial, one axis a parameter, the objective last. Brushing an axis filters everything
// else on the page. Drawn on a canvas, because there may be thousands of lines; axes are elements, for keyboards.

import { axisOf } from "./axis.js";
import { el, fill, name, sheet, short } from "./dom.js";
import { number } from "./format.js";
import { colour, onChange, scale } from "./theme.js";

const HEIGHT = 260;
const PAD = { top: 30, bottom: 22, side: 56 };
/** Below this a brush is a click, which takes it away. */
const LEAST_BRUSH = 0.015;
/** Narrowest room between two axes, in pixels: beyond that the chart scrolls. */
const LEAST_GAP = 92;

/**
 * Parallel coordinates in `host`. `onBrush(filters)` gets conditions for the API, by column. Gives `set(data)`, with
 * data `{columns: [{name, log, category}], rows: [[cells…]], goal}` where the last column is coloured by, `clear()` and
 * `destroy()`.
 */
export function parallel(host, { onBrush }) {
  const canvas = el("canvas", { "aria-hidden": "true" });
  const axesBox = el("div.axes", {});
  const frame = el("div.parallel", { role: "group", "aria-label": "Parallel coordinates: brush an axis to filter" }, canvas, axesBox);
  const scroller = el("div.scroll-x", {}, frame);
  const status = el("p.chart-status", {}, "");
  host.append(scroller, status);
  let data = null;
  let axes = [];
  /** By column: `[low, high]` as shares of the axis. */
  const brushes = new Map();

  const inner = HEIGHT - PAD.top - PAD.bottom;
  const y = (share) => PAD.top + (1 - share) * inner;
  const width = () => Math.max(scroller.clientWidth, (axes.length - 1) * LEAST_GAP + 2 * PAD.side);
  const x = (index) =>
    axes.length < 2 ? width() / 2 : PAD.side + (index / (axes.length - 1)) * (width() - 2 * PAD.side);

  const inside = (places) =>
    axes.every((axis, i) => {
      const brush = brushes.get(axis.name);
      return !brush || (places[i] !== null && places[i] >= brush[0] - 1e-9 && places[i] <= brush[1] + 1e-9);
    });

  const draw = () => {
    if (!data) return;
    const w = width();
    frame.style.width = `${w}px`;
    const pen = sheet(canvas, w, HEIGHT);
    const xs = axes.map((_, i) => x(i));
    const lines = data.rows.map((row) => axes.map((axis, i) => axis.at(row[i])));
    const brushed = brushes.size > 0;
    const line = (places) => {
      pen.beginPath();
      let pen_down = false;
      places.forEach((place, i) => {
        if (place === null) {
          pen_down = false;
        } else if (pen_down) {
          pen.lineTo(xs[i], y(place));
        } else {
          pen.moveTo(xs[i], y(place));
          pen_down = true;
        }
      });
      pen.stroke();
    };
    const shown = lines.filter(inside);
    if (brushed) {
      pen.strokeStyle = colour("grid");
      pen.globalAlpha = 0.5;
      for (const places of lines) if (!inside(places)) line(places);
    }
    pen.globalAlpha = Math.max(0.12, Math.min(0.85, 60 / Math.max(shown.length, 1)));
    pen.lineWidth = 1.2;
    // The best last, so that they lie on top.
    const worth = (places) => {
      const last = places[places.length - 1];
      return last === null ? 2 : data.goal === "maximize" ? 1 - last : last;
    };
    shown.sort((a, b) => worth(b) - worth(a));
    for (const places of shown) {
      const share = worth(places);
      pen.strokeStyle = share > 1 ? colour("muted") : scale(share);
      line(places);
    }
    status.textContent = brushed
      ? `${shown.length} of ${lines.length} trials within the brushes · Escape on an axis takes its brush away`
      : `${lines.length} trials · drag along an axis, or use the arrow keys on it, to filter`;
  };

  const conditions = () =>
    axes
      .filter((axis) => brushes.has(axis.name))
      .map((axis) => {
        const [low, high] = brushes.get(axis.name);
        if (axis.category) {
          const kinds = axis.kinds.filter((kind) => axis.place.get(kind) >= low - 1e-9 && axis.place.get(kind) <= high + 1e-9);
          return `${axis.name}=${kinds.join("|")}`;
        }
        // The ends of the axis stay open: rounding must not cut off the extremes.
        const parts = [];
        if (low > 0) parts.push(`${axis.name}>=${Number(axis.value(low).toPrecision(6))}`);
        if (high < 1) parts.push(`${axis.name}<=${Number(axis.value(high).toPrecision(6))}`);
        return parts.join(";");
      })
      .filter((condition) => condition !== "");

  const brush = (axis, range, done) => {
    if (range === null) brushes.delete(axis.name);
    else brushes.set(axis.name, range);
    place();
    draw();
    if (done) onBrush(conditions());
  };

  const words = (axis) => {
    const range = brushes.get(axis.name);
    if (!range) return "no brush";
    if (axis.category) return axis.kinds.filter((k) => axis.place.get(k) >= range[0] - 1e-9 && axis.place.get(k) <= range[1] + 1e-9).join(", ");
    return `${number(axis.value(range[0]))} to ${number(axis.value(range[1]))}`;
  };

  const drag = (axis, node) => (down) => {
    if (down.button !== 0) return;
    down.preventDefault();
    node.focus();
    const share = (event) => {
      const box = node.getBoundingClientRect();
      return Math.min(Math.max(1 - (event.clientY - box.top) / box.height, 0), 1);
    };
    const from = share(down);
    let range = null;
    const move = (event) => {
      const to = share(event);
      range = Math.abs(to - from) < LEAST_BRUSH ? null : [Math.min(from, to), Math.max(from, to)];
      brush(axis, range, false);
    };
    const up = () => {
      node.removeEventListener("pointermove", move);
      node.removeEventListener("pointerup", up);
      node.removeEventListener("pointercancel", up);
      brush(axis, range, true);
    };
    node.setPointerCapture(down.pointerId);
    node.addEventListener("pointermove", move);
    node.addEventListener("pointerup", up);
    node.addEventListener("pointercancel", up);
  };

  const keys = (axis) => (event) => {
    const [low, high] = brushes.get(axis.name) ?? [0, 1];
    const step = event.shiftKey ? 0.02 : 0.1;
    let range = null;
    if (event.key === "ArrowUp") range = [Math.min(low + step, high - LEAST_BRUSH), high];
    else if (event.key === "ArrowDown") range = [low, Math.max(high - step, low + LEAST_BRUSH)];
    else if (event.key !== "Escape") return;
    event.preventDefault();
    brush(axis, range, true);
  };

  const place = () => {
    for (const [index, axis] of axes.entries()) {
      axis.node.style.left = `${x(index)}px`;
      axis.rail.style.top = `${PAD.top}px`;
      axis.rail.style.height = `${inner}px`;
      const range = brushes.get(axis.name);
      axis.mark.hidden = !range;
      if (range) {
        axis.mark.style.bottom = `${range[0] * 100}%`;
        axis.mark.style.height = `${(range[1] - range[0]) * 100}%`;
      }
      axis.rail.setAttribute("aria-valuetext", words(axis));
      axis.rail.setAttribute("aria-valuenow", String(Math.round((range?.[0] ?? 0) * 100)));
    }
  };

  const build = () => {
    fill(axesBox);
    axes = data.columns.map((column, index) => {
      const axis = { ...axisOf(data.rows.map((row) => row[index]), column), name: column.name };
      axis.mark = el("span.brush", { hidden: true });
      axis.rail = el("div.rail", {
        tabindex: "0",
        role: "slider",
        "aria-orientation": "vertical",
        "aria-valuemin": "0",
        "aria-valuemax": "100",
        "aria-label": `Filter by ${short(column.name, 60)}`,
        data: { axis: column.name },
      }, axis.mark);
      axis.rail.addEventListener("pointerdown", drag(axis, axis.rail));
      axis.rail.addEventListener("keydown", keys(axis));
      const marks = axis.marks.map((mark) => el("span.mark", { style: { top: `${y(mark.at)}px` } }, short(mark.text, 12)));
      axis.node = el("div.axis", {}, el("span.axis-name", {}, name(column.name, 22)), axis.rail, marks);
      axesBox.append(axis.node);
      return axis;
    });
    for (const known of [...brushes.keys()]) if (!axes.some((axis) => axis.name === known)) brushes.delete(known);
    frame.style.height = `${HEIGHT}px`;
    place();
    draw();
  };

  const observer = new ResizeObserver(() => {
    if (data) {
      place();
      draw();
    }
  });
  observer.observe(scroller);
  const ended = onChange(draw);
  return {
    set(next) {
      // Not under a hand that is dragging.
      if (axesBox.querySelector(".rail:active")) return;
      const focused = document.activeElement?.dataset?.axis;
      data = next;
      build();
      if (focused) axes.find((axis) => axis.name === focused)?.rail.focus();
    },
    clear() {
      brushes.clear();
      if (data) build();
      onBrush([]);
    },
    destroy() {
      ended();
      observer.disconnect();
    },
  };
}
