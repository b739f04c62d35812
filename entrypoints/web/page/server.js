// Requests to the server that this page came from.

import { keyHeaders, refused } from "./key.js";

const MOST_RETRIES = 5;
const LONGEST_WAIT_S = 10;

/** An error that the server told, as RFC 9457 problem details. */
export class Problem extends Error {
  constructor(status, code, detail, retryAfter) {
    super(detail);
    this.status = status;
    this.code = code;
    this.retryAfter = retryAfter;
  }
}

/** The full address of a call, as curl needs it. */
export const address = (path) => new URL(path, document.baseURI).href;

/** GET; returns the answer's body. */
export async function get(path, signal) {
  return read(await reach(path, { signal }));
}

/**
 * POST; returns the answer's body. A server that is starting or too busy is asked again after the
 * time that it names; `waiting` hears of it.
 */
export async function post(path, fields, { signal, waiting = () => {} } = {}) {
  const body = JSON.stringify(fields);
  const headers = { "Content-Type": "application/json" };
  for (let attempt = 0; ; attempt += 1) {
    try {
      return await read(await reach(path, { method: "POST", headers, body, signal }));
    } catch (error) {
      const seconds = error instanceof Problem && error.status === 503 ? error.retryAfter : null;
      if (seconds === null || seconds > LONGEST_WAIT_S || attempt === MOST_RETRIES) throw error;
      waiting(error, seconds);
      await pause(seconds * 1000, signal);
    }
  }
}

async function reach(path, options) {
  try {
    return await fetch(path, { ...options, headers: { ...options.headers, ...keyHeaders() } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, "unreachable", "The server does not answer; is it still running?", null);
  }
}

async function read(response) {
  let body;
  try {
    body = await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(response.status, "not_json", `Answered with ${response.status}.`, null);
  }
  if (response.ok) return body;
  if (response.status === 401) refused();
  const after = Number.parseInt(response.headers.get("Retry-After") ?? "", 10);
  throw new Problem(
    response.status,
    body.code ?? "unknown",
    body.detail ?? `Answered with ${response.status}.`,
    Number.isNaN(after) ? null : after,
  );
}

function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}
