// Which model is loaded, and a warning when it is not one to rely on.

import { get } from "./server.js";

const CALM_MS = 20_000;
const ANXIOUS_MS = 2_000;

const NOT_FOR_REAL = {
  "builtin:demo": [
    "This is the demo model.",
    "It has learnt what emoji look like, not photos: of photos its answers are guesses. Set CLIP_MODEL_PATH to a real checkpoint.",
  ],
  fake: [
    "No model is at work here.",
    "The fake encoder's answers mean nothing; it is for testing clients.",
  ],
};

/**
 * Follows the server's health; `changed` is called when another checkpoint is loaded. Returns its
 * `fingerprint`, and `look`, which looks at once.
 */
export function followHealth(changed) {
  const model = { fingerprint: null, look };
  let next;
  const part = (id) => document.getElementById(id);

  async function look() {
    clearTimeout(next);
    let health;
    try {
      health = await get("health");
    } catch (problem) {
      const status = problem.status === 401 ? "locked" : "unreachable";
      health = { status, reason: problem.message };
    }
    show(health);
    const fingerprint = health.model_fingerprint ?? null;
    if (fingerprint && fingerprint !== model.fingerprint) {
      model.fingerprint = fingerprint;
      changed();
    }
    clearTimeout(next);
    if (health.status === "locked") return; // until there is another key
    next = setTimeout(look, health.status === "healthy" ? CALM_MS : ANXIOUS_MS);
  }

  function show(health) {
    part("model").dataset.state = health.status;
    const locked = health.status === "locked";
    part("model-name").textContent = health.model ?? (locked ? "Locked" : "No model");
    part("model-detail").textContent = details(health);
    part("model").title = health.model_fingerprint
      ? `Fingerprint ${health.model_fingerprint}`
      : "";
    const warning =
      health.status === "healthy" || locked
        ? NOT_FOR_REAL[health.model]
        : ["It cannot answer now:", health.reason];
    part("banner").hidden = !warning;
    part("banner").dataset.state = health.status;
    if (!warning) return;
    [part("banner-title").textContent, part("banner-text").textContent] = warning;
  }

  look();
  return model;
}

function details(health) {
  if (health.unloaded_while_idle) return "asleep; the next question wakes it";
  if (!health.model) return "";
  return `${health.backend} ${health.precision} · ${health.device} · ${health.embedding_dimension}-d`;
}
