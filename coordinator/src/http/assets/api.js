// The HTTP API, and nothing else of the coordinator. docs/http-api.md describes it.

const ROOT = "/api/v1";

/** An error of the API: `code`, `message`, `hint`. */
export class ApiError extends Error {
  constructor({ code, message, hint }) {
    super(message);
    this.code = code;
    this.hint = hint;
  }
}

async function answer(response) {
  if (response.ok) return response.json();
  let body = { code: "unreachable", message: `the coordinator answered ${response.status}`, hint: "" };
  try {
    body = await response.json();
  } catch {
    // Not from the API: what is known is said.
  }
  throw new ApiError(body);
}

async function call(path, options) {
  try {
    return await answer(await fetch(ROOT + path, { cache: "no-store", ...options }));
  } catch (error) {
    if (error instanceof ApiError || error.name === "AbortError") throw error;
    throw new ApiError({ code: "unreachable", message: "the coordinator does not answer", hint: "is it running?" });
  }
}

function query(parameters) {
  const pairs = Object.entries(parameters).filter(([, value]) => value !== undefined && value !== null && value !== "");
  return pairs.length ? `?${new URLSearchParams(pairs)}` : "";
}

const part = encodeURIComponent;

export const status = () => call("/status");
export const sweeps = () => call("/sweeps");
export const sweep = (name, signal) => call(`/sweeps/${part(name)}`, { signal });
export const trials = (name, parameters, signal) => call(`/sweeps/${part(name)}/trials${query(parameters)}`, { signal });
export const curves = (name, parameters, signal) => call(`/sweeps/${part(name)}/curves${query(parameters)}`, { signal });
export const importance = (name, metric) => call(`/sweeps/${part(name)}/importance${query({ metric })}`);
export const trial = (name, number, signal) => call(`/sweeps/${part(name)}/trials/${number}`, { signal });
export const trialCurves = (name, number, points) =>
  call(`/sweeps/${part(name)}/trials/${number}/curves${query({ points })}`);
export const workers = () => call("/workers");
export const timeline = (parameters) => call(`/timeline${query(parameters)}`);

/** Where a part of a checkpoint is. */
export const checkpoint = (name, number, step, which) =>
  `${ROOT}/sweeps/${part(name)}/trials/${number}/checkpoints/${step}/${which}`;

/** What an attempt printed, as `{text, tag}`; null if it is as it was under `tag`. */
export async function log(name, number, attempt, tag, signal) {
  const path = `${ROOT}/sweeps/${part(name)}/trials/${number}/attempts/${attempt}/log`;
  let response;
  try {
    response = await fetch(path, { cache: "no-store", signal, headers: tag ? { "If-None-Match": tag } : {} });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError({ code: "unreachable", message: "the coordinator does not answer", hint: "is it running?" });
  }
  if (response.status === 304) return null;
  if (!response.ok) return answer(response);
  return { text: await response.text(), tag: response.headers.get("ETag") };
}

/** Pauses, resumes or cancels a sweep, or one trial of it. */
export const order = (name, number, action) => {
  const target = number === null ? `/sweeps/${part(name)}` : `/sweeps/${part(name)}/trials/${number}`;
  return call(`${target}/${action}`, { method: "POST", headers: { "X-Spotsweep": "1" } });
};

/** Where events come from. */
export const eventsUrl = (name) => `${ROOT}/events${query({ sweep: name })}`;
