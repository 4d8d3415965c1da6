// Numbers, times and sizes as people read them.

/** A number with about four significant digits. */
export function number(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (typeof value !== "number") return String(value);
  if (Number.isInteger(value) && Math.abs(value) < 1e15) return grouped(value);
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-4 || size >= 1e6)) return value.toExponential(3).replace(/\.?0+e/, "e").replace("e+", "e");
  return String(Number(value.toPrecision(5)));
}

/** An integer in groups of three. */
export function grouped(value) {
  const digits = String(Math.abs(value));
  return (value < 0 ? "−" : "") + (digits.length > 4 ? digits.replace(/\B(?=(\d{3})+$)/g, ",") : digits);
}

/** So many of something. */
export function count(many, what) {
  return `${grouped(many)} ${what}${many === 1 ? "" : "s"}`;
}

/** Bytes. */
export function bytes(value) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? value : value.toFixed(1)} ${units[unit]}`;
}

/** Seconds. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 60) return `${Math.round(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${Math.floor(seconds % 60)} s`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return `${hours} h ${minutes % 60} min`;
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

/** A moment, in the reader's time zone. */
export function moment(us) {
  const date = new Date(us / 1000);
  const two = (value) => String(value).padStart(2, "0");
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  return `${day} ${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}

/** How long ago. */
export function ago(us) {
  return `${duration(Math.max(0, Date.now() / 1000 - us / 1e6))} ago`;
}

/** A cell of a table, by its column. */
export function cell(column, value) {
  if (value === null || value === undefined) return "–";
  if (column.endsWith("_at_us")) return moment(value);
  if (column === "seconds") return duration(value);
  if (column === "weights_digest") return String(value).slice(0, 12);
  return typeof value === "number" ? number(value) : String(value);
}

/** A column's name for people. */
export function title(column) {
  return column.replace(/_us$/, "").replace(/^weights_digest$/, "weights");
}

/** Nice places for marks on an axis of time from `from` to `to`, in seconds. */
export function timeMarks(from, to, most) {
  const steps = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400, 604800];
  const span = Math.max(to - from, 1e-3);
  const step = steps.find((s) => span / s <= most) ?? span / most;
  const marks = [];
  for (let at = 0; at <= span && marks.length <= most + 1; at += step) marks.push(at);
  return marks;
}

/** A span for an axis of time: `90 s`, `5 min`, `2 h`. */
export function span(seconds) {
  if (seconds < 120) return `${Number(seconds.toPrecision(3))} s`;
  if (seconds < 7200) return `${Number((seconds / 60).toPrecision(3))} min`;
  if (seconds < 172800) return `${Number((seconds / 3600).toPrecision(3))} h`;
  return `${Number((seconds / 86400).toPrecision(3))} d`;
}
