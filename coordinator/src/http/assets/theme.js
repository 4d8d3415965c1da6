// Light, dark, or as the system says; and the colours that charts take from the style sheet.

const KEY = "spotsweep-theme";
const MODES = ["auto", "light", "dark"];
const SIGNS = { auto: "◐ auto", light: "☀ light", dark: "☾ dark" };
const listeners = new Set();

function stored() {
  try {
    return MODES.includes(localStorage.getItem(KEY)) ? localStorage.getItem(KEY) : "auto";
  } catch {
    return "auto";
  }
}

let mode = stored();

function apply() {
  if (mode === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = mode;
  const button = document.getElementById("theme");
  button.textContent = SIGNS[mode];
  button.setAttribute("aria-label", `Colours: ${mode}. Change`);
  for (const listener of listeners) listener();
}

/** Makes the button work. */
export function start() {
  document.getElementById("theme").addEventListener("click", () => {
    mode = MODES[(MODES.indexOf(mode) + 1) % MODES.length];
    try {
      localStorage.setItem(KEY, mode);
    } catch {
      // Not remembered, then.
    }
    apply();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", apply);
  apply();
}

/** Calls `redraw` when colours change; gives what ends it. */
export function onChange(redraw) {
  listeners.add(redraw);
  return () => listeners.delete(redraw);
}

/** A colour of the style sheet. */
export function colour(variable) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${variable}`).trim();
}

/** Distinct colours, readable on light and dark. */
const SERIES = ["#3b76e0", "#e0792b", "#2e9e6b", "#c84b7c", "#8a63d2", "#b8952a", "#2aa2b8", "#d1594b", "#6f8f2f", "#7d8794"];

/** The colour of the n-th of many. */
export function series(index) {
  return SERIES[index % SERIES.length];
}

/** From good (0) to bad (1): the scale of the objective in plots of many trials. */
export function scale(share) {
  const stops = [[37, 99, 201], [61, 160, 176], [196, 176, 76], [206, 92, 62]];
  const at = Math.min(Math.max(share, 0), 1) * (stops.length - 1);
  const low = Math.min(Math.floor(at), stops.length - 2);
  const mix = stops[low].map((value, i) => Math.round(value + (stops[low + 1][i] - value) * (at - low)));
  return `rgb(${mix.join(" ")})`;
}
