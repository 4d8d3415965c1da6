// Workers: who is there and what each does, its notices, how busy it was, and who trained what when.

import * as api from "./api.js";
import { badge, choice, el, fill, name, panel, short, throttled } from "./dom.js";
import { ago, bytes, duration } from "./format.js";
import { busy, gantt } from "./gantt.js";
import { follow } from "./live.js";

const WINDOWS = [["600", "10 minutes"], ["3600", "1 hour"], ["21600", "6 hours"], ["86400", "1 day"], ["0", "everything"]];
/** Workers come and go without an event: they are asked for again after this. */
const POLL_MS = 2500;

export async function workersView(host) {
  document.title = "Workers · Spotsweep";
  let seconds = 3600;
  const cards = el("div.cards", {});
  const summary = el("span.muted", {}, "");
  const windowChoice = choice("Window", WINDOWS, "3600", (value) => {
    seconds = Number(value);
    refresh();
  });
  const chartHost = el("div", {});
  fill(host,
    el("h1.visually-hidden", {}, "Workers"),
    panel("Workers", { tools: [summary] }, cards),
    panel("Who trained what", { tools: [windowChoice] }, chartHost));
  const chart = gantt(chartHost, {
    label: "Attempts by worker over time",
    onPick: (a) => (location.hash = `#/sweep/${encodeURIComponent(a.sweep)}/${a.number}`),
  });

  const deviceLine = (worker, device, timeline, from) => {
    const mine = timeline.attempts.filter((a) => a.worker === worker.name && a.device === device.name);
    const since = Math.max(from, worker.since_us);
    const share = busy(mine, since, timeline.now_us, timeline.now_us);
    const trials = device.trials.map((trial) => {
      const cut = trial.lastIndexOf("/");
      return el("a", { href: `#/sweep/${encodeURIComponent(trial.slice(0, cut))}${trial.slice(cut)}` }, name(trial, 40));
    });
    const percent = `${Math.round(share * 100)} %`;
    return el("div.device", {},
      el("span.strong", {}, name(device.name, 20)),
      el("span.track", { role: "img", "aria-label": `busy ${percent}`, title: `busy ${percent} of the window` },
        el("span.bar", { style: { width: percent.replace(" ", "") } })),
      el("span.num.muted", {}, percent),
      el("span.trains", {}, trials.length ? trials.map((trial, i) => (i ? [", ", trial] : trial)) : el("span.muted", {}, worker.state === "gone" ? "–" : "idle")));
  };

  const card = (worker, timeline, from) => {
    const m = worker.machine;
    const facts = [
      m.host && short(m.host, 40),
      m.instance_type && short(m.instance_type, 30),
      m.zone && short(m.zone, 30),
      m.cores && `${m.cores} cores`,
      m.memory_bytes && bytes(m.memory_bytes),
      m.libtorch && `libtorch ${short(m.libtorch, 16)}`,
    ].filter(Boolean);
    const heard = worker.last_heard_us ? `last heard ${ago(worker.last_heard_us)}` : `here for ${duration((timeline.now_us - worker.since_us) / 1e6)}`;
    return el("article.card", { data: { worker: worker.name } },
      el("header", {}, el("h3", {}, name(worker.name, 40)), badge(worker.state)),
      worker.notice ? el("p.notice", {}, "⚠ ", name(worker.notice, 160), worker.noticed_us ? ` (${ago(worker.noticed_us)})` : "") : null,
      worker.devices.map((device) => deviceLine(worker, device, timeline, from)),
      el("p.muted.small", {}, name(facts.join(" · "), 160)),
      el("p.muted.small", {}, heard));
  };

  const load = async () => {
    const since = seconds === 0 ? 0 : (Date.now() - seconds * 1000) * 1000;
    const [{ workers }, timeline] = await Promise.all([api.workers(), api.timeline({ since_us: Math.round(since), limit: 2000 })]);
    const first = Math.min(...timeline.attempts.map((a) => a.started_at_us), timeline.now_us);
    const from = Math.max(since, first);
    const order = { draining: 0, connected: 1, silent: 2, gone: 3 };
    workers.sort((a, b) => order[a.state] - order[b.state] || (a.name < b.name ? -1 : 1));
    fill(cards, workers.length ? workers.map((w) => card(w, timeline, from)) : el("p.muted.pad", {}, "No worker has joined: start one with spotsweep-worker."));
    const connected = workers.filter((w) => w.state === "connected" || w.state === "draining").length;
    summary.textContent = `${connected} of ${workers.length} connected`;
    const rows = workers.filter((w) => w.state !== "gone").flatMap((w) => w.devices.map((d) => `${w.name} · ${d.name}`));
    chart.set({ attempts: timeline.attempts, now: timeline.now_us, from, until: timeline.now_us, rows, cut: timeline.cut });
  };
  // What cannot be had now is shown as it was; the sign in the corner says that it is not live.
  const refresh = throttled(() => load().catch(() => {}), 1000);

  await load();
  const timer = setInterval(refresh, POLL_MS);
  const stop = follow(undefined, refresh);
  return () => {
    clearInterval(timer);
    stop();
    refresh.cancel();
    chart.destroy();
  };
}
