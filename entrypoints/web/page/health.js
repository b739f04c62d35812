// Which model is loaded, and a warning when it is not one to rely on.

import { announce } from "./announcer.js";
import { get } from "./server.js";
import { asSentence, inPlainWords } from "./words.js";

const CALM_MS = 20_000;
const ANXIOUS_MS = 2_000;

const NAMES = { "builtin:demo": "Demo model", fake: "Fake encoder" };
const BACKENDS = { openvino: "OpenVINO", torch: "PyTorch", tensorrt: "TensorRT" };

const NOT_FOR_REAL = {
  "builtin:demo": [
    "The demo model knows drawings, not photos.",
    "It was trained on emoji: what it says about a photo is a guess. The README tells how to load a real model.",
  ],
  fake: ["No real model is loaded here.", "The fake encoder returns meaningless numbers, for testing clients."],
};

/**
 * Follows the server's health.
 *
 * @param modelChanged called with the fingerprint when another model is loaded.
 * @returns a function that looks at once.
 */
export function followHealth(modelChanged) {
  const part = (id) => document.getElementById(id);
  let known = null;
  let next;

  async function look() {
    clearTimeout(next);
    let health;
    try {
      health = await get("health");
    } catch (problem) {
      const status = problem.status === 401 ? "locked" : "unreachable";
      health = { status, reason: inPlainWords(problem) };
    }
    show(health);
    const fingerprint = health.model_fingerprint ?? null;
    if (fingerprint && fingerprint !== known) {
      known = fingerprint;
      modelChanged(fingerprint);
    }
    clearTimeout(next);
    if (health.status === "locked") return; // until there is another key
    next = setTimeout(look, health.status === "healthy" ? CALM_MS : ANXIOUS_MS);
  }

  function show(health) {
    const works = health.status === "healthy" || health.status === "locked";
    part("model").dataset.state = health.status;
    part("model-name").textContent = nameOf(health);
    part("model-detail").textContent = details(health);
    part("model").title = health.model_fingerprint
      ? `Fingerprint ${health.model_fingerprint}`
      : "";
    const warning = works
      ? NOT_FOR_REAL[health.model]
      : ["The server cannot serve requests now.", asSentence(health.reason ?? "")];
    part("banner").hidden = !warning;
    part("banner").dataset.state = health.status;
    if (!warning || part("banner-text").textContent === warning[1]) return;
    [part("banner-title").textContent, part("banner-text").textContent] = warning;
    announce(warning.join(" "));
  }

  look();
  return look;
}

function nameOf({ status, model, model_loaded: loaded, unloaded_while_idle: idle }) {
  if (status === "locked") return "Locked";
  if (status === "unreachable" || !(loaded || idle)) return "No model";
  return NAMES[model] ?? model;
}

function details(health) {
  if (health.unloaded_while_idle) return "unloaded; the next request loads it";
  if (!health.model_loaded) return "";
  const device = health.device === "cpu" ? "CPU" : health.device;
  return [BACKENDS[health.backend], health.precision, device].filter(Boolean).join(" · ");
}
