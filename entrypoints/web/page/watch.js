// "Has it changed?": a baseline of usual frames, and new frames scored against it.

import { cosine } from "./describe.js";
import { remember } from "./memory.js";
import { Photo } from "./photo.js";
import { Query } from "./query.js";
import { mountRequest } from "./request.js";
import { scene } from "./samples.js";
import { csv, json, mountSaving } from "./saving.js";
import { base64Of, post, Problem } from "./server.js";
import { Strip } from "./strip.js";
import { concernsOnlyThePhoto, IN_WORDS, inPlainWords } from "./words.js";

export function mountWatch(panel, memory) {
  const part = (selector) => panel.querySelector(selector);
  const recalled = (name) => (memory[name] ?? []).map(Photo.recalled);
  const baselineRequest = mountRequest(part("[data-request=baseline]"));
  const scoreRequest = mountRequest(part("[data-request=anomaly]"));
  const usual = new Strip(part("[data-strip=usual]"), recalled("usual"), usualChanged);
  const now = new Strip(part("[data-strip=now]"), recalled("now"), nowChanged);
  const threshold = part("#anomaly-threshold");
  if (memory.watch) threshold.value = memory.watch.threshold;
  const embeddings = new WeakMap(); // photo → its embedding and the fingerprint of the model
  const baseline = new Query({
    ask: findBaseline,
    show: showBaseline,
    clear: clearBaseline,
    outcome: part("#usual-outcome"),
    results: [part("#figures"), baselineRequest.card],
    onChange: (found) => {
      showBaselineSaving(found);
      nowChanged();
    },
  });
  const scores = new Query({
    ask: scoreFrames,
    show: showScores,
    clear: clearScores,
    outcome: part("#now-outcome"),
    results: [part("[data-strip=now]"), scoreRequest.card],
    onChange: (found) => {
      showScoresSaving(found);
      keep();
    },
  });
  const showBaselineSaving = mountSaving(part("[data-saving=baseline]"), {
    // A bare list, in the form in which a request holds its baseline.
    "Save the baseline": () => json("baseline", baseline.found.embedding),
  });
  const showScoresSaving = mountSaving(part("[data-saving=scores]"), {
    "Save as CSV": () => {
      const rows = table(scores.found);
      return csv("anomaly-scores", [Object.keys(rows[0]), ...rows.map(Object.values)]);
    },
    "Save as JSON": () => {
      const { fingerprint } = baseline.found;
      const frames = table(scores.found);
      return json("anomaly-scores", { model_fingerprint: fingerprint, frames });
    },
  });

  // Frame by frame, each only once: together they may be too large for one request.
  async function embedded(photo, fingerprint, options) {
    const known = embeddings.get(photo);
    if (known && (fingerprint === null || known.fingerprint === fingerprint)) return known;
    const image = await base64Of(photo);
    const { body, fingerprint: model } = await post("embed", { image }, options);
    const fresh = { embedding: body.embedding, fingerprint: model };
    embeddings.set(photo, fresh);
    return fresh;
  }

  async function findBaseline(options) {
    const frames = [];
    const leftOut = [];
    let model = null;
    for (const [place, photo] of usual.photos.entries()) {
      try {
        const { embedding, fingerprint } = await embedded(photo, model, options);
        // The model changed between the requests: the earlier responses are of no use.
        if (model !== null && fingerprint !== model) return findBaseline(options);
        model = fingerprint;
        frames.push(embedding);
      } catch (error) {
        if (!(error instanceof Problem && concernsOnlyThePhoto(error))) throw error;
        leftOut.push({ place, name: photo.name, reason: inPlainWords(error) });
      }
    }
    if (!frames.length) throw new Problem(0, IN_WORDS, noneUsable(leftOut));
    const { body, fingerprint } = await post("baseline", { embeddings: frames }, options);
    if (body.suggested_threshold !== null) {
      threshold.value = body.suggested_threshold.toFixed(3);
    }
    return {
      embedding: body.baseline_embedding,
      count: body.count,
      spread: body.spread,
      suggested: body.suggested_threshold,
      milliseconds: body.inference_time_ms,
      leftOut,
      fingerprint,
    };
  }

  function showBaseline(found) {
    const { count, spread, suggested, leftOut } = found;
    part("#figure-count").textContent = count;
    part("#figure-mean").textContent = cosine(spread.mean_similarity);
    part("#figure-lowest").textContent = cosine(spread.min_similarity);
    part("#figure-threshold").textContent = suggested === null ? "–" : suggested.toFixed(3);
    part("#figures").hidden = false;
    usual.photos.forEach((photo, place) => {
      usual.leaveOut(photo, leftOut.find((left) => left.place === place)?.reason ?? null);
    });
    const used = usual.photos.filter((_, place) => !leftOut.some((left) => left.place === place));
    baselineRequest.show("baseline", { images: used }, found.milliseconds);
    return [
      ...leftOut.map(({ name, reason }) => `${name} was left out: ${lowerFirst(reason)}`),
      suggested === null
        ? "With five frames or more, a threshold can be suggested."
        : "The threshold is set to the suggested one.",
    ].join(" ");
  }

  function clearBaseline() {
    part("#figures").hidden = true;
    for (const photo of usual.photos) usual.leaveOut(photo, null);
    baselineRequest.hide();
  }

  async function scoreFrames(options) {
    const fields = {
      baseline_embedding: baseline.found.embedding,
      threshold: threshold.valueAsNumber,
    };
    const frames = [];
    for (const photo of [...now.photos]) {
      const { name } = photo;
      try {
        const image = await base64Of(photo);
        const { body } = await post("anomaly-score", { image, ...fields }, options);
        frames.push({
          name,
          score: body.anomaly_score,
          similarity: body.similarity_to_baseline,
          unusual: body.is_anomaly,
          milliseconds: body.inference_time_ms,
        });
      } catch (error) {
        if (!(error instanceof Problem && concernsOnlyThePhoto(error))) throw error;
        frames.push({ name, problem: inPlainWords(error) });
      }
    }
    return { frames, threshold: fields.threshold };
  }

  function showScores({ frames, threshold: limit }) {
    frames.forEach((frame, place) => {
      showScore(now.elementOf(now.photos[place]), frame, limit);
    });
    const scored = frames.filter(({ problem }) => !problem);
    const last = frames.findLastIndex(({ problem }) => !problem);
    if (last >= 0) {
      scoreRequest.show(
        "anomaly-score",
        {
          image: now.photos[last],
          baseline_embedding: baseline.found.embedding,
          threshold: limit,
        },
        frames[last].milliseconds,
      );
    } else {
      scoreRequest.hide();
    }
    const unusual = scored.filter((frame) => frame.unusual).length;
    return [
      ...(scored.length ? [`${unusual} of ${scored.length} unusual.`] : []),
      ...frames
        .filter(({ problem }) => problem)
        .map(({ name, problem }) => `${name} was left out: ${lowerFirst(problem)}`),
    ].join(" ");
  }

  function clearScores() {
    for (const photo of now.photos) now.elementOf(photo).querySelector(".score").hidden = true;
    scoreRequest.hide();
  }

  function keep() {
    remember("watch", {
      threshold: threshold.value,
      baseline: baseline.found,
      scores: scores.found,
    });
  }

  function usualChanged() {
    remember("usual", usual.photos.map((photo) => photo.remembered));
    if (!usual.photos.length) {
      baseline.drop("Add a few frames of the scene. From five on, a threshold is suggested.");
    } else {
      baseline.ask(0);
      scores.hold();
    }
  }

  function nowChanged() {
    remember("now", now.photos.map((photo) => photo.remembered));
    if (!baseline.found) scores.drop(usual.photos.length ? "" : "First add frames of the scene.");
    else if (!now.photos.length) scores.drop("Add a frame to score it.");
    else if (!threshold.validity.valid || threshold.value === "")
      scores.refuse("The threshold must be a number from 0 to 1.");
    else scores.ask();
    keep();
  }

  threshold.addEventListener("input", nowChanged);
  part("#watch-samples").addEventListener("click", async () => {
    const frames = await scene();
    now.replace(frames.now);
    usual.replace(frames.usual);
  });
  if (memory.watch?.baseline && usual.photos.length) {
    baseline.restore(memory.watch.baseline);
    if (memory.watch.scores && now.photos.length) scores.restore(memory.watch.scores);
  } else {
    usualChanged();
  }
  return {
    take: (photos) => (usual.photos.length ? now : usual).add(photos),
    again: usualChanged,
    modelChanged: (fingerprint) => {
      if (!baseline.isOf(fingerprint)) usualChanged();
    },
  };
}

function showScore(frame, { name, score, unusual, problem }, limit) {
  const place = frame.querySelector(".score");
  place.hidden = false;
  place.toggleAttribute("data-unusual", Boolean(unusual));
  place.toggleAttribute("data-left-out", Boolean(problem));
  place.style.setProperty("--share", score ?? 0);
  place.style.setProperty("--mark", limit);
  place.querySelector(".score-name").textContent = name;
  place.querySelector(".value").textContent = problem ? "" : score.toFixed(3);
  const verdict = unusual ? "unusual" : "as usual";
  place.querySelector(".score-verdict .words").textContent = problem ? "left out" : verdict;
}

const table = ({ frames, threshold }) =>
  frames.map(({ name, score, similarity, unusual, problem }) => ({
    frame: name,
    anomaly_score: score ?? null,
    similarity_to_baseline: similarity ?? null,
    threshold,
    unusual: unusual ?? null,
    problem: problem ?? null,
  }));

function noneUsable(leftOut) {
  const [{ name, reason }] = leftOut;
  return leftOut.length === 1
    ? `${name} cannot be used: ${lowerFirst(reason)}`
    : `None of the ${leftOut.length} frames can be used. The first: ${lowerFirst(reason)}`;
}

const lowerFirst = (sentence) => sentence.charAt(0).toLowerCase() + sentence.slice(1);
