// "Has it changed?": a baseline of usual frames, and new frames scored against it.

import { cosine } from "./describe.js";
import { Question } from "./question.js";
import { mountRequest } from "./request.js";
import { scene } from "./samples.js";
import { post } from "./server.js";
import { Strip } from "./strip.js";

export function mountWatch(panel, model) {
  const part = (selector) => panel.querySelector(selector);
  const showBaselineRequest = mountRequest(part("[data-request=baseline]"));
  const showScoreRequest = mountRequest(part("[data-request=anomaly]"));
  const usual = new Strip(part("[data-strip=usual]"), usualChanged);
  const now = new Strip(part("[data-strip=now]"), nowChanged);
  const asUsual = new Question(findBaseline, part("#usual-outcome"));
  const today = new Question(scoreFrames, part("#now-outcome"));
  const threshold = part("#anomaly-threshold");
  const embeddings = new WeakMap(); // photo → its embedding and the checkpoint it came from
  let baseline = null;

  // Frame by frame, and each only once: together they may be larger than a request may be.
  async function embedded(photo, options) {
    const known = embeddings.get(photo);
    if (known && known.fingerprint === model.fingerprint) return known.embedding;
    const { fingerprint } = model;
    const { embedding } = await post("embed", { image: await photo.base64() }, options);
    embeddings.set(photo, { embedding, fingerprint });
    return embedding;
  }

  async function findBaseline(options) {
    const photos = [...usual.photos];
    const frames = [];
    for (const photo of photos) frames.push(await embedded(photo, options));
    const answer = await post("baseline", { embeddings: frames }, options);
    baseline = answer.baseline_embedding;
    showFigures(answer);
    showBaselineRequest("baseline", { images: photos }, answer.inference_time_ms);
    nowChanged();
    return answer.suggested_threshold === null
      ? "With more frames a threshold can be suggested."
      : "The threshold was set to the suggested one.";
  }

  async function scoreFrames(options) {
    const fields = { baseline_embedding: baseline, threshold: threshold.valueAsNumber };
    let unusual = 0;
    for (const photo of now.photos) {
      const image = await photo.base64();
      const answer = await post("anomaly-score", { image, ...fields }, options);
      showScore(now.elementOf(photo), photo, answer, fields.threshold);
      showScoreRequest("anomaly-score", { image: photo, ...fields }, answer.inference_time_ms);
      if (answer.is_anomaly) unusual += 1;
    }
    return `${unusual} of ${now.photos.length} unusual.`;
  }

  function usualChanged() {
    baseline = null;
    part("#figures").hidden = true;
    if (usual.photos.length) asUsual.ask(0);
    else asUsual.drop("A few frames of the scene are needed; from five on a threshold is suggested.");
    nowChanged();
  }

  function nowChanged() {
    for (const photo of now.photos) now.elementOf(photo).querySelector(".score").hidden = true;
    if (!baseline) today.drop(usual.photos.length ? "" : "First show it the scene as usual.");
    else if (!now.photos.length) today.drop("Add a frame to score it.");
    else if (!threshold.validity.valid || threshold.value === "")
      today.drop("The threshold must be a number from 0 to 1.");
    else today.ask();
  }

  function showFigures({ count, spread, suggested_threshold: suggested }) {
    part("#figure-count").textContent = count;
    part("#figure-mean").textContent = cosine(spread.mean_similarity);
    part("#figure-lowest").textContent = cosine(spread.min_similarity);
    part("#figure-threshold").textContent = suggested === null ? "–" : suggested.toFixed(3);
    part("#figures").hidden = false;
    if (suggested !== null) threshold.value = suggested.toFixed(3);
  }

  threshold.addEventListener("input", nowChanged);
  part("#watch-samples").addEventListener("click", async () => {
    const frames = await scene();
    usual.replace(frames.usual);
    now.replace(frames.now);
  });
  usualChanged();
  return {
    take: (photos) => (usual.photos.length ? now : usual).add(photos),
    again: usualChanged,
  };
}

function showScore(frame, photo, answer, limit) {
  const score = frame.querySelector(".score");
  score.hidden = false;
  score.toggleAttribute("data-unusual", answer.is_anomaly);
  score.style.setProperty("--share", answer.anomaly_score);
  score.style.setProperty("--mark", limit);
  score.querySelector(".score-name").textContent = photo.name;
  score.querySelector("output").textContent = answer.anomaly_score.toFixed(3);
  score.querySelector(".score-verdict span").textContent = answer.is_anomaly
    ? "unusual"
    : "as usual";
}
