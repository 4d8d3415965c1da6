// Where a value stands on an axis, from 0 to 1: linear, logarithmic, or one of several.

import { number } from "./format.js";

/** An axis of these cells (null for missing). `log` is only kept where all numbers are above
 * 0; `order` is that of the choices. */
export function axisOf(cells, { log = false, category = false, order = null } = {}) {
  const known = cells.filter((cell) => cell !== null);
  const numeric = !category && known.length > 0 && known.every((cell) => typeof cell === "number");
  if (!numeric) {
    const there = new Set(known.map(String));
    const kinds = (order ?? []).map(String).filter((kind) => there.has(kind));
    const others = [...there].filter((kind) => !kinds.includes(kind));
    others.sort((a, b) => (Number.isNaN(+a) || Number.isNaN(+b) ? (a < b ? -1 : 1) : a - b));
    kinds.push(...others);
    const place = new Map(kinds.map((kind, index) => [kind, kinds.length === 1 ? 0.5 : index / (kinds.length - 1)]));
    return {
      category: true,
      at: (cell) => (cell === null ? null : (place.get(String(cell)) ?? null)),
      marks: kinds.slice(0, 12).map((kind) => ({ at: place.get(kind), text: kind })),
      kinds,
      place,
    };
  }
  let [low, high] = [Infinity, -Infinity];
  for (const cell of known) {
    if (cell < low) low = cell;
    if (cell > high) high = cell;
  }
  const isLog = log && low > 0;
  const to = isLog ? Math.log : (value) => value;
  const from = isLog ? Math.exp : (value) => value;
  const [a, b] = [to(low), to(high)];
  const at = (cell) => (cell === null ? null : a === b ? 0.5 : (to(cell) - a) / (b - a));
  const value = (share) => from(a + (b - a) * share);
  const marks = a === b ? [0.5] : [0, 0.25, 0.5, 0.75, 1];
  return {
    category: false,
    at,
    value,
    low,
    high,
    log: isLog,
    marks: marks.map((share) => ({ at: share, text: short(value(share)) })),
  };
}

function short(value) {
  return number(Number(value.toPrecision(3)));
}
