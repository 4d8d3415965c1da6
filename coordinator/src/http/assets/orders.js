// Pause, resume, cancel: buttons for what makes sense in a state.

import * as api from "./api.js";
import { ask, el, say } from "./dom.js";

const SENSE = {
  running: ["pause", "cancel"],
  pending: ["pause", "cancel"],
  paused: ["resume", "cancel"],
};
const WORDS = { pause: "Pause", resume: "Resume", cancel: "Cancel" };
const DONE = { pause: "is paused", resume: "is resumed", cancel: "is cancelled" };

/** The buttons of a sweep (`number` null) or trial in `state`; calls `after` when one has done its work. */
export function orders(sweep, number, state, after) {
  const target = number === null ? sweep : `${sweep}/${number}`;
  const buttons = (SENSE[state] ?? []).map((action) => {
    const button = el(`button${action === "cancel" ? ".danger" : ""}`, {
      type: "button",
      data: { action },
      onclick: async () => {
        if (action === "cancel") {
          const text = number === null
            ? "Every trial that has not ended is stopped for good. What they reported is kept."
            : "The trial is stopped for good. What it reported is kept.";
          if (!(await ask(`Cancel ${target}?`, text, "Cancel it"))) return;
        }
        button.disabled = true;
        try {
          await api.order(sweep, number, action);
          say(`${target} ${DONE[action]}`);
        } catch (error) {
          say(`${error.message}${error.hint ? `: ${error.hint}` : ""}`, "error");
        }
        button.disabled = false;
        after();
      },
    }, WORDS[action]);
    return button;
  });
  return el("div.buttons", {}, buttons);
}
