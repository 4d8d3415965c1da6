// One parameter against one metric: a point a trial. A canvas, because there may be thousands.

import { axisOf } from "./axis.js";
import { el, sheet, short } from "./dom.js";
import { number } from "./format.js";
import { colour, onChange } from "./theme.js";

const HEIGHT = 240;
const PAD = { left: 58, right: 14, top: 10, bottom: 34 };
/** How near the pointer must be, in pixels. */
const NEAR = 12;

/**
 * A scatter plot in `host`. `set({points: [{x, y, label, state, number}], x: {name, log, category}, y: {name, log}})`.
 * `onPick` gets the point that is clicked.
 */
export function scatter(host, { onPick }) {
  const canvas = el("canvas", { role: "img", "aria-label": "Scatter plot" });
  const status = el("p.chart-status", {}, "");
  host.append(el("div.chart", {}, canvas), status);
  let data = null;
  let placed = [];

  const draw = () => {
    if (!data) return;
    const w = Math.max(canvas.parentElement.clientWidth, 160);
    const pen = sheet(canvas, w, HEIGHT);
    pen.font = "11px system-ui, sans-serif";
    const points = data.points.filter((point) => point.x !== null && point.y !== null);
    const xAxis = axisOf(points.map((point) => point.x), data.x);
    const yAxis = axisOf(points.map((point) => point.y), data.y);
    const px = (share) => PAD.left + 6 + share * (w - PAD.left - PAD.right - 12);
    const py = (share) => HEIGHT - PAD.bottom - 6 - share * (HEIGHT - PAD.top - PAD.bottom - 12);
    pen.strokeStyle = colour("grid");
    pen.fillStyle = colour("muted");
    pen.lineWidth = 1;
    pen.textAlign = "right";
    pen.textBaseline = "middle";
    for (const mark of yAxis.marks) {
      const at = Math.round(py(mark.at)) + 0.5;
      pen.beginPath();
      pen.moveTo(PAD.left, at);
      pen.lineTo(w - PAD.right, at);
      pen.stroke();
      pen.fillText(short(mark.text, 9), PAD.left - 6, at);
    }
    pen.textAlign = "center";
    pen.textBaseline = "top";
    const every = Math.ceil(xAxis.marks.length / Math.max(Math.floor((w - PAD.left) / 70), 1));
    xAxis.marks.forEach((mark, index) => {
      if (index % every === 0) pen.fillText(short(mark.text, 12), px(mark.at), HEIGHT - PAD.bottom + 4);
    });
    pen.fillText(short(data.x.name, 40), PAD.left + (w - PAD.left - PAD.right) / 2, HEIGHT - 14);
    pen.globalAlpha = Math.max(0.25, Math.min(0.9, 300 / Math.max(points.length, 1)));
    placed = points.map((point) => ({ point, x: px(xAxis.at(point.x)), y: py(yAxis.at(point.y)) }));
    const running = colour("running");
    const other = colour("accent");
    for (const { point, x, y } of placed) {
      pen.beginPath();
      pen.arc(x, y, 3, 0, 2 * Math.PI);
      if (point.state === "running") {
        pen.strokeStyle = running;
        pen.stroke();
      } else {
        pen.fillStyle = other;
        pen.fill();
      }
    }
    canvas.setAttribute("aria-label", `${short(data.y.name, 60)} over ${short(data.x.name, 60)}: ${points.length} trials`);
    status.textContent = points.length ? `${points.length} trials · hollow points still run` : "nothing reported yet";
  };

  const nearest = (event) => {
    const box = canvas.getBoundingClientRect();
    let best = null;
    let least = NEAR ** 2;
    for (const candidate of placed) {
      const far = (candidate.x - event.clientX + box.left) ** 2 + (candidate.y - event.clientY + box.top) ** 2;
      if (far < least) [least, best] = [far, candidate.point];
    }
    return best;
  };
  canvas.addEventListener("pointermove", (event) => {
    const point = nearest(event);
    canvas.style.cursor = point ? "pointer" : "default";
    if (point) status.textContent = `${short(point.label, 80)} · ${short(data.x.name, 40)} ${short(typeof point.x === "number" ? number(point.x) : point.x, 40)} · ${short(data.y.name, 40)} ${number(point.y)}`;
  });
  canvas.addEventListener("click", (event) => {
    const point = nearest(event);
    if (point) onPick(point);
  });
  const observer = new ResizeObserver(draw);
  observer.observe(canvas.parentElement);
  const ended = onChange(draw);
  return {
    set(next) {
      data = next;
      draw();
    },
    destroy() {
      ended();
      observer.disconnect();
    },
  };
}
