// What happens, as it happens: one stream of events for the view that is open, and polling where there is none.

import { eventsUrl } from "./api.js";

/** Between two looks when no stream can be had. */
const POLL_MS = 5000;

function show(state) {
  const words = { live: "live", connecting: "connecting…", polling: "every 5 s" };
  const node = document.getElementById("live");
  node.dataset.state = state;
  if (node.textContent !== words[state]) node.textContent = words[state];
}

/** Calls `changed` with each event (or an empty one that says that something was missed); gives what ends it. */
export function follow(sweep, changed) {
  let source = null;
  let timer = null;
  let over = false;
  const poll = () => {
    show("polling");
    timer = setInterval(() => changed({ missed: true, sweeps: [], trials: [], notices: [] }), POLL_MS);
  };
  const open = () => {
    show("connecting");
    source = new EventSource(eventsUrl(sweep));
    source.addEventListener("open", () => show("live"));
    source.addEventListener("changed", (event) => changed(JSON.parse(event.data)));
    source.addEventListener("error", () => {
      if (over) return;
      show("connecting");
      // Refused (too many pages are open) or not ours any more: the browser does not try again by itself.
      if (source.readyState === EventSource.CLOSED && timer === null) poll();
    });
  };
  open();
  return () => {
    over = true;
    source.close();
    clearInterval(timer);
  };
}
