// Elements and text. All text goes in by textContent; nothing is ever parsed as markup.

/** Longest text that is shown whole, in characters. */
const SHOWN = 120;

/**
 * Characters that are not seen or that change how others are seen: control characters, line and paragraph separators,
 * zero-width characters, direction marks, embeddings, overrides and isolates, tags.
 */
const UNSEEN = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]|[\u{e0000}-\u{e007f}]/gu;

/** The text with what is unseen spelled out, as \u{202e}. */
export function visible(text) {
  return String(text).replace(UNSEEN, (c) => `\\u{${c.codePointAt(0).toString(16)}}`);
}

/** The same of several lines, which stay lines; tabs stay too. */
export function visibleLines(text) {
  return String(text).replace(UNSEEN, (c) => (c === "\n" || c === "\t" ? c : visible(c)));
}

/** Text for an attribute or a canvas: visible and cut. */
export function short(text, most = SHOWN) {
  const shown = [...visible(text)];
  return shown.length > most ? `${shown.slice(0, most - 1).join("")}…` : shown.join("");
}

/** Text of others in the page: isolated, so that its direction ends with it; cut, with the whole on hovering. */
export function name(text, most = SHOWN) {
  const node = document.createElement("bdi");
  const shown = short(text, most);
  node.textContent = shown;
  if (shown.endsWith("…")) node.title = short(text, 2000);
  return node;
}

/**
 * An element: `el("a.quiet", {href, onclick, "aria-label": …}, "text", node, [nodes])`. Strings become text nodes.
 * `data` and `style` take objects; null and false are left out.
 */
export function el(what, attributes = {}, ...children) {
  const [tag, ...classes] = what.split(".");
  const node = document.createElement(tag || "div");
  if (classes.length) node.className = classes.join(" ");
  set(node, attributes);
  node.append(...flat(children));
  return node;
}

const SVG = "http://www.w3.org/2000/svg";

/** The same in SVG. */
export function svg(what, attributes = {}, ...children) {
  const [tag, ...classes] = what.split(".");
  const node = document.createElementNS(SVG, tag);
  if (classes.length) node.setAttribute("class", classes.join(" "));
  set(node, attributes);
  node.append(...flat(children));
  return node;
}

function set(node, attributes) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key === "data") Object.assign(node.dataset, value);
    else if (key === "style") Object.assign(node.style, value);
    else if (key === "value" || key === "checked") node[key] = value;
    else node.setAttribute(key, value === true ? "" : value);
  }
}

function flat(children) {
  return children.flat(3).filter((child) => child !== null && child !== undefined && child !== false);
}

/** Replaces what is in a node. */
export function fill(node, ...children) {
  node.replaceChildren(...flat(children));
  return node;
}

/** The word of a state, with its colour. */
export function badge(state) {
  return el("span.badge", { data: { state } }, state);
}

/** A part of a page with a heading. */
export function panel(title, attributes = {}, ...children) {
  const { tools, ...rest } = attributes;
  const head = el("div.panel-head", {}, el("h2", {}, title), el("div.tools", {}, tools ?? []));
  return el("section.panel", rest, head, ...children);
}

/** A choice with a label. */
export function choice(label, options, value, onchange) {
  const select = el("select", { onchange: () => onchange(select.value) });
  for (const option of options) {
    const [key, text] = Array.isArray(option) ? option : [option, option];
    select.append(el("option", { value: key }, short(text, 40)));
  }
  select.value = value;
  return el("label.field", {}, el("span", {}, label), select);
}

/** A switch with a label. */
export function toggle(label, checked, onchange) {
  const box = el("input", { type: "checkbox", checked, onchange: () => onchange(box.checked) });
  return el("label.check", {}, box, label);
}

/** Says that something happened, for a few seconds. */
export function say(text, kind = "note") {
  const box = document.getElementById("toasts");
  const line = el("div.toast", { data: { kind } }, name(text, 300));
  box.append(line);
  while (box.children.length > 4) box.firstChild.remove();
  setTimeout(() => line.remove(), kind === "error" ? 9000 : 5000);
}

/** Asks before what cannot be undone; true for yes. */
export function ask(title, text, yes) {
  const dialog = document.getElementById("ask");
  document.getElementById("ask-title").textContent = short(title);
  document.getElementById("ask-text").textContent = short(text, 400);
  document.getElementById("ask-yes").textContent = yes;
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

/** Calls `act` at most once in `ms`, the last time included. */
export function throttled(act, ms) {
  let timer = null;
  let last = 0;
  const run = () => {
    timer = null;
    last = Date.now();
    act();
  };
  const call = () => {
    if (timer === null) timer = setTimeout(run, Math.max(0, last + ms - Date.now()));
  };
  call.cancel = () => {
    clearTimeout(timer);
    timer = null;
  };
  return call;
}

/** Sizes a canvas, in pixels of the page, for the pixels of the screen; gives what draws on it, empty. */
export function sheet(canvas, width, height) {
  const ratio = devicePixelRatio || 1;
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  return pen;
}
