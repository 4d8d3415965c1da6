// What the attempts of a trial printed: one of them at a time, as text and nothing else.

import * as api from "./api.js";
import { choice, el, fill, visibleLines } from "./dom.js";

/** Between two looks while the attempt runs. */
const LOOK_MS = 2000;
/** Looks behind its end: what was printed last may come a little later. */
const LOOKS_AFTER = 3;
/** So near to the end counts as at the end, in pixels. */
const NEAR = 30;

/** The log of a trial's attempts in `host`; the choice among them goes into `tools`. `set(attempts)` says which there are. */
export function attemptLog(host, tools, sweep, number) {
  const text = el("pre.log", { tabindex: "0", role: "log", "aria-label": "What the attempt printed", "aria-live": "off" });
  const status = el("p.chart-status", {}, "");
  host.append(text, status);
  let attempts = [];
  let chosen = null;
  let tag = null;
  let timer = null;
  let left = 0;
  let asking = null;
  let offered = "";

  const runs = () => attempts.find((attempt) => attempt.attempt === chosen)?.ended_at_us === null;

  const look = async () => {
    timer = null;
    asking?.abort();
    const asked = (asking = new AbortController());
    try {
      const found = await api.log(sweep, number, chosen, tag, asked.signal);
      if (asked.signal.aborted) return;
      if (found !== null) {
        const atEnd = tag === null || text.scrollHeight - text.scrollTop - text.clientHeight < NEAR;
        tag = found.tag;
        text.textContent = visibleLines(found.text);
        if (atEnd) text.scrollTop = text.scrollHeight;
      }
      status.textContent = "";
    } catch (error) {
      if (error.name === "AbortError") return;
      // Of an attempt that is just beginning nothing may be known yet.
      status.textContent = error.message;
    }
    left = runs() ? LOOKS_AFTER : left - 1;
    if (left > 0) timer = setTimeout(look, LOOK_MS);
  };

  const show = (attempt) => {
    chosen = attempt;
    tag = null;
    text.textContent = "";
    text.dataset.attempt = String(attempt);
    clearTimeout(timer);
    left = LOOKS_AFTER;
    look();
  };

  return {
    set(next) {
      const before = attempts;
      attempts = next;
      const newest = Math.max(1, ...attempts.map((attempt) => attempt.attempt));
      const followed = chosen === null || chosen === Math.max(1, ...before.map((attempt) => attempt.attempt));
      const numbers = Array.from({ length: newest }, (_, index) => String(index + 1));
      const go = followed && chosen !== newest;
      if (go) show(newest);
      if (offered !== numbers.join() || go) {
        offered = numbers.join();
        fill(tools, choice("attempt", numbers, String(chosen), (value) => show(Number(value))));
      }
      if (timer === null && runs()) {
        left = LOOKS_AFTER;
        timer = setTimeout(look, LOOK_MS);
      }
    },
    destroy() {
      clearTimeout(timer);
      left = 0;
      asking?.abort();
    },
  };
}
