// "Watch live": a camera or a video, frame by frame against what was usual at first, as a curve.

import { announce } from "./announcer.js";
import { whyNoCamera, whyNot } from "./camera.js";
import { cosine } from "./describe.js";
import { Photo } from "./photo.js";
import { csv, mountSaving } from "./saving.js";
import { base64Of, post, Problem } from "./server.js";
import { concernsOnlyThePhoto, inPlainWords } from "./words.js";

const USUAL_FRAMES = 10;
const FRAME_SIDE = 640;
const MOST_KEPT = 20_000; // half a working day of a frame a second
const SHOWN = 240;
const IN_A_ROW = 2;
const PAUSE_AFTER_FAILURE_MS = 2000;

/**
 * A state machine of three states, in `data-state` of the panel's stage:
 *
 * - `empty`: nothing runs.
 * - `learning`: the first frames are embedded; they become the baseline.
 * - `watching`: each frame is scored against it.
 *
 * One frame is sent at a time. Frames that come faster than the server can take are skipped and counted.
 */
export function mountLive(panel) {
  const part = (selector) => panel.querySelector(selector);
  const stage = part(".live-stage");
  const picture = part("video");
  const outcome = part(".outcome");
  const every = part("#live-every");
  const threshold = part("#live-threshold");
  const camera = part("#live-camera");
  const file = part("input[type=file]");
  let run = null; // what belongs to one camera or video, from its start to its end
  const showSaving = mountSaving(part("[data-saving]"), {
    "Save as CSV": () => csv("live-scores", [
      ["seconds", "anomaly_score", "threshold", "unusual"],
      ...run.scores.map(({ at, score, limit, unusual }) => [at.toFixed(2), score, limit, unusual]),
    ]),
  });

  async function useCamera() {
    begin();
    const { signal } = run.controller;
    try {
      const stream = await navigator.mediaDevices.getUserMedia({
        video: { facingMode: "environment" },
      });
      if (signal.aborted) return stopTracks(stream);
      picture.srcObject = stream;
      await follow(run);
    } catch (error) {
      if (signal.aborted) return;
      end();
      say("problem", whyNot(error));
    }
  }

  async function useVideo(blob) {
    begin();
    const { signal } = run.controller;
    picture.src = URL.createObjectURL(blob);
    try {
      await follow(run);
    } catch {
      if (signal.aborted) return;
      end();
      say("problem", `${blob.name ?? "This file"} is not a video that this browser can play.`);
    }
  }

  function begin() {
    end();
    run = { controller: new AbortController(), scores: [], skipped: 0, above: 0, ...forgotten() };
    stage.dataset.state = "learning";
    stage.removeAttribute("data-unusual");
    part("#live-stop").hidden = false;
    part("#live-again").hidden = false;
    show();
    say("waiting", "Starting…");
  }

  function end() {
    run?.controller.abort();
    if (picture.srcObject) stopTracks(picture.srcObject);
    picture.srcObject = null;
    if (picture.src) {
      URL.revokeObjectURL(picture.src);
      picture.removeAttribute("src");
      picture.load();
    }
    stage.dataset.state = "empty";
    part("#live-stop").hidden = true;
    part("#live-again").hidden = true;
  }

  function stop() {
    const { scores } = run;
    end();
    say("shown", `Stopped after ${scores.length} scored frames.`);
  }

  function learnAgain() {
    Object.assign(run, forgotten());
    stage.dataset.state = "learning";
    say("waiting", learning(run));
  }

  async function follow(mine) {
    const { signal } = mine.controller;
    await picture.play();
    const startedMs = performance.now();
    let dueMs = startedMs;
    while (!signal.aborted && !picture.ended) {
      const nowMs = performance.now();
      if (nowMs < dueMs) {
        await pause(Math.min(dueMs - nowMs, 100));
        continue;
      }
      const stepMs = stepOf(every);
      const missed = Math.floor((nowMs - dueMs) / stepMs);
      mine.skipped += missed;
      dueMs += (missed + 1) * stepMs;
      const at = picture.srcObject ? (nowMs - startedMs) / 1000 : picture.currentTime;
      const frame = await still(picture);
      if (frame && !signal.aborted) await look(mine, frame, at);
    }
    if (signal.aborted) return;
    end();
    say("shown", `The video has ended. ${unusualOf(mine)}`);
  }

  async function look(mine, frame, at) {
    const { signal } = mine.controller;
    const waiting = (problem) => say("waiting", inPlainWords(problem));
    const baseline = mine.baseline;
    try {
      const image = await base64Of(frame);
      if (baseline) await score(mine, baseline, image, at, { signal, waiting });
      else await learn(mine, image, { signal, waiting });
    } catch (error) {
      if (signal.aborted) return;
      say("problem", inPlainWords(error));
      if (!(error instanceof Problem && concernsOnlyThePhoto(error))) {
        await pause(PAUSE_AFTER_FAILURE_MS);
      }
    }
  }

  async function learn(mine, image, options) {
    const { learned } = mine;
    const { body, fingerprint } = await post("embed", { image }, options);
    if (learned !== mine.learned) return; // "Learn again" was pressed meanwhile
    if (mine.fingerprint !== fingerprint) Object.assign(mine, forgotten(), { fingerprint });
    mine.learned.push(body.embedding);
    if (mine.learned.length < USUAL_FRAMES) return say("waiting", learning(mine));
    const made = await post("baseline", { embeddings: mine.learned }, options);
    if (mine.fingerprint !== made.fingerprint) return learnAgain();
    mine.baseline = made.body.baseline_embedding;
    threshold.value = made.body.suggested_threshold.toFixed(3);
    stage.dataset.state = "watching";
    say("shown", "This is usual. From now on each frame is scored.");
    announce(outcome.textContent);
  }

  async function score(mine, baseline, image, at, options) {
    const limit = threshold.validity.valid ? threshold.valueAsNumber : NaN;
    if (Number.isNaN(limit)) return say("problem", "The threshold must be a number from 0 to 1.");
    const fields = { image, baseline_embedding: baseline, threshold: limit };
    const { body, fingerprint } = await post("anomaly-score", fields, options);
    if (baseline !== mine.baseline) return;
    if (fingerprint !== mine.fingerprint) return learnAgain();
    mine.scores.push({ at, score: body.anomaly_score, limit, unusual: body.is_anomaly });
    if (mine.scores.length > MOST_KEPT) mine.scores.shift();
    mine.above = body.is_anomaly ? mine.above + 1 : 0;
    show();
    tell(mine);
  }

  function tell({ above, scores }) {
    const unusual = above >= IN_A_ROW;
    const before = stage.toggleAttribute("data-unusual", unusual) && above > IN_A_ROW;
    const last = cosine(scores.at(-1).score);
    say("shown", unusual ? `Unusual for ${above} frames: score ${last}.` : `As usual: score ${last}.`);
    // A screen reader should only announce the start.
    if (unusual && !before) announce(outcome.textContent);
  }

  function show() {
    const { scores, skipped } = run;
    const shown = scores.slice(-SHOWN);
    const highest = Math.max(0, ...scores.slice(-MOST_KEPT).map(({ score }) => score));
    const limit = shown.at(-1)?.limit ?? 0;
    const top = Math.min(1, Math.max(0.05, 1.2 * Math.max(limit, ...shown.map(({ score }) => score))));
    const height = (value) => (100 * (1 - value / top)).toFixed(2);
    const points = shown.map(({ score }, place) => `${(300 * place) / (SHOWN - 1)},${height(score)}`);
    part(".curve-line").setAttribute("points", points.join(" "));
    for (const end of ["y1", "y2"]) part(".curve-limit").setAttribute(end, height(limit));
    part(".curve-limit").toggleAttribute("hidden", !shown.length);
    part(".curve-top").textContent = top.toFixed(2);
    part("#live-now").textContent = shown.length ? cosine(shown.at(-1).score) : "–";
    part("#live-highest").textContent = scores.length ? cosine(highest) : "–";
    part("#live-frames").textContent = scores.length;
    part("#live-skipped").textContent = skipped;
    showSaving(scores.length ? run : null);
  }

  function say(state, sentence) {
    outcome.dataset.state = state;
    outcome.textContent = sentence;
    if (state === "problem") announce(sentence);
  }

  const why = whyNoCamera();
  camera.disabled = why !== null;
  part(".finder-hint").textContent = why ?? "";
  camera.addEventListener("click", useCamera);
  part("#live-choose").addEventListener("click", () => file.click());
  part("#live-stop").addEventListener("click", stop);
  part("#live-again").addEventListener("click", learnAgain);
  file.addEventListener("change", () => {
    const [chosen] = file.files;
    if (chosen) useVideo(chosen);
    file.value = "";
  });
  for (const [name, act] of Object.entries({
    dragover: () => {},
    drop: ({ dataTransfer }) => dataTransfer.files[0] && useVideo(dataTransfer.files[0]),
  })) {
    stage.addEventListener(name, (event) => {
      event.preventDefault();
      event.stopPropagation();
      act(event);
    });
  }
  return {
    take: ([{ blob }]) => useVideo(blob),
    again: () => {},
    modelChanged: (fingerprint) => {
      if (stage.dataset.state !== "empty" && run.fingerprint && run.fingerprint !== fingerprint) {
        learnAgain();
      }
    },
  };
}

const forgotten = () => ({ learned: [], baseline: null, fingerprint: null });

const learning = ({ learned }) =>
  `Learning what is usual: ${learned.length} of ${USUAL_FRAMES} frames.`;

function unusualOf({ scores }) {
  const unusual = scores.filter((frame) => frame.unusual).length;
  return scores.length
    ? `${unusual} of ${scores.length} frames unusual.`
    : `It was too short: ${USUAL_FRAMES} frames are needed to learn what is usual.`;
}

function stepOf(field) {
  const seconds = field.validity.valid ? field.valueAsNumber : NaN;
  return 1000 * (Number.isNaN(seconds) ? 1 : seconds);
}

async function still(video) {
  const { videoWidth, videoHeight } = video;
  if (!videoWidth) return null;
  const scale = Math.min(1, FRAME_SIDE / Math.max(videoWidth, videoHeight));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(videoWidth * scale));
  canvas.height = Math.max(1, Math.round(videoHeight * scale));
  canvas.getContext("2d").drawImage(video, 0, 0, canvas.width, canvas.height);
  const blob = await new Promise((resolve) => {
    canvas.toBlob(resolve, "image/jpeg", 0.95);
  });
  return blob && new Photo(blob, "frame.jpg");
}

const stopTracks = (stream) => stream.getTracks().forEach((track) => track.stop());

const pause = (milliseconds) =>
  new Promise((resolve) => {
    setTimeout(resolve, milliseconds);
  });
