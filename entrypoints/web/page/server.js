// Requests to the server that this page came from.

import { keyHeaders, refused } from "./key.js";
import { IN_WORDS } from "./words.js";

const MOST_RETRIES = 5;
const LONGEST_WAIT_S = 10;

/** A failed request: the server's error (RFC 9457 problem details), or why there is none. */
export class Problem extends Error {
  /**
   * @param status the HTTP status; 0 where there is none.
   * @param code the stable name of what went wrong.
   * @param detail the server's own sentence.
   * @param retryAfter seconds after which another try makes sense; null if it makes none.
   */
  constructor(status, code, detail, retryAfter = null) {
    super(detail);
    this.status = status;
    this.code = code;
    this.retryAfter = retryAfter;
  }
}

/** The full address of a call, as curl needs it. */
export const address = (path) => new URL(path, document.baseURI).href;

/** GET; resolves to the body of the response. */
export async function get(path, signal) {
  return (await read(await reach(path, { signal }))).body;
}

/**
 * POST; resolves to {body, fingerprint}: of the response, and of the model that made it. A server
 * that is starting or too busy is retried after the time that it names; `waiting` is told so.
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

/** The photo in base64; throws a `Problem` if it cannot be sent. */
export function base64Of(photo) {
  if (photo.refusal) throw new Problem(0, IN_WORDS, photo.refusal);
  return photo.base64();
}

async function reach(path, options) {
  try {
    return await fetch(path, { ...options, headers: { ...options.headers, ...keyHeaders() } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, "unreachable", "no response");
  }
}

async function read(response) {
  let body;
  try {
    body = await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(response.status, "not_json", `status ${response.status}`);
  }
  const fingerprint = response.headers.get("X-Model-Fingerprint");
  if (response.ok) return { body, fingerprint };
  if (response.status === 401) refused();
  const after = Number.parseInt(response.headers.get("Retry-After") ?? "", 10);
  throw new Problem(
    response.status,
    body.code ?? "unknown",
    body.detail ?? `The server refused the request with status ${response.status}.`,
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
