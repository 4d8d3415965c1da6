// A table of any length: only the rows in view are elements, and only pages around them are asked for.

import { badge, el, fill, name, short } from "./dom.js";
import { cell, title } from "./format.js";

/** Height of a row, in pixels; the style sheet says the same. */
const ROW = 28;
/** Rows of one page. */
const PAGE = 100;
/** Rows drawn above and below the view. */
const MARGIN = 10;

/**
 * A table in `host`. `load(columns, sort, offset, limit)` gives a promise of a page of the API; `onOpen(number)` opens
 * a trial. `set({columns, sort})`, `reload()`, `destroy()`.
 */
export function trialTable(host, { load, onOpen, onSort, height = 420 }) {
  const head = el("thead", {});
  const body = el("tbody", {});
  const table = el("table.grid", { "aria-label": "Trials" }, head, body);
  const view = el("div.table-view", { tabindex: "0", role: "region", "aria-label": "Trials, scrollable", style: { maxHeight: `${height}px` } }, table);
  const status = el("p.chart-status", { role: "status" }, "");
  host.append(view, status);
  let [columns, sort, total, age] = [["number"], "", 0, 0];
  /** By number of the page: rows, and of which age. */
  let pages = new Map();
  let shown = "";
  let destroyed = false;

  const fetchPage = async (index) => {
    const entry = pages.get(index) ?? { rows: null, age: -1, busy: false };
    if (entry.busy || entry.age === age) return;
    pages.set(index, { ...entry, busy: true });
    const asked = age;
    try {
      const page = await load(["number", ...columns], sort, index * PAGE, PAGE);
      if (destroyed || asked !== age) {
        const now = pages.get(index);
        if (now) now.busy = false;
        if (!destroyed) draw();
        return;
      }
      total = page.total;
      pages.set(index, { rows: page.rows, age: asked, busy: false });
      shown = "";
      learn(page.rows);
      draw();
    } catch (error) {
      const now = pages.get(index);
      if (now) Object.assign(now, { busy: false, age: asked });
      if (error.name !== "AbortError") status.textContent = `${error.message}${error.hint ? `: ${error.hint}` : ""}`;
    }
  };

  const spacer = (rows) => el("tr.spacer", { "aria-hidden": "true", style: { height: `${rows * ROW}px` } });

  const draw = () => {
    const first = Math.max(0, Math.floor(view.scrollTop / ROW) - MARGIN);
    const last = Math.min(total, Math.ceil((view.scrollTop + height) / ROW) + MARGIN);
    for (let page = Math.floor(first / PAGE); page <= Math.floor(Math.max(last - 1, 0) / PAGE); page += 1) fetchPage(page);
    const now = `${first} ${last} ${total} ${columns.join()} ${age}`;
    if (now === shown) return;
    shown = now;
    const focused = document.activeElement?.closest?.("tr[data-number]")?.dataset.number;
    const rows = [];
    for (let index = first; index < last; index += 1) {
      const row = pages.get(Math.floor(index / PAGE))?.rows?.[index % PAGE];
      rows.push(row ? line(index, row) : el("tr", { "aria-rowindex": index + 2 }, el("td.muted", { colspan: columns.length }, "…")));
    }
    fill(body, first > 0 && spacer(first), rows, last < total && spacer(total - last));
    table.setAttribute("aria-rowcount", String(total + 1));
    if (focused !== undefined) body.querySelector(`tr[data-number="${focused}"]`)?.focus({ preventScroll: true });
    status.textContent = total === 1 ? "1 trial" : `${total.toLocaleString("en")} trials`;
  };

  const line = (index, [number, ...cells]) => {
    const row = el("tr", {
      tabindex: "0",
      "aria-rowindex": index + 2,
      data: { number },
      onclick: () => onOpen(number),
      onkeydown: (event) => {
        if (event.key === "Enter") onOpen(number);
        const next = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" }[event.key];
        if (next && row[next]?.dataset.number !== undefined) {
          event.preventDefault();
          row[next].focus();
        }
      },
    });
    cells.forEach((value, i) => {
      const column = columns[i];
      if (column === "state") row.append(el("td", {}, badge(value)));
      else row.append(el(numbers.has(column) || typeof value === "number" ? "td.num" : "td", {}, name(cell(column, value), 40)));
    });
    return row;
  };

  /** Columns whose first known cell is a number: their heads stand over the numbers. */
  let numbers = new Set();
  const learn = (rows) => {
    const known = columns.filter((_, i) => typeof rows.find((row) => row[i + 1] !== null)?.[i + 1] === "number");
    if (known.join() === [...numbers].join()) return;
    numbers = new Set(known);
    drawHead();
  };

  const drawHead = () => {
    const by = sort.replace(/^-/, "");
    const heads = columns.map((column) => {
      const state = by === column ? (sort.startsWith("-") ? "descending" : "ascending") : "none";
      const sign = { ascending: " ▲", descending: " ▼", none: "" }[state];
      const flip = () => onSort(by === column && !sort.startsWith("-") ? `-${column}` : column);
      return el(numbers.has(column) ? "th.num" : "th", { scope: "col", "aria-sort": state },
        el("button", { type: "button", onclick: flip, data: { column }, title: `Sort by ${short(column, 80)}` }, name(title(column), 28), sign));
    });
    fill(head, el("tr", { "aria-rowindex": 1 }, heads));
  };

  const scrolled = () => requestAnimationFrame(() => !destroyed && draw());
  view.addEventListener("scroll", scrolled, { passive: true });
  return {
    set(next) {
      columns = next.columns;
      sort = next.sort;
      age += 1;
      pages = new Map();
      shown = "";
      drawHead();
      draw();
      if (total === 0) fetchPage(0);
    },
    /** The same rows anew: what is shown stays until they come. */
    reload() {
      age += 1;
      draw();
      if (total === 0) fetchPage(0);
    },
    top: () => (view.scrollTop = 0),
    destroy() {
      destroyed = true;
      view.removeEventListener("scroll", scrolled);
    },
  };
}
