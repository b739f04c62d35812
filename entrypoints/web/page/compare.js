// "Same one?": two sightings, their cosine, and the threshold from which they count as the same.

import { cosine } from "./describe.js";
import { mountFinder } from "./finder.js";
import { remember } from "./memory.js";
import { Photo, PhotoSlot } from "./photo.js";
import { Query } from "./query.js";
import { mountRequest } from "./request.js";
import { csv, json, mountSaving } from "./saving.js";
import { base64Of, post } from "./server.js";

export function mountCompare(panel, memory) {
  const part = (selector) => panel.querySelector(selector);
  const kept = memory.compare ?? {};
  const request = mountRequest(part("[data-request=compare]"));
  const outcome = part("#compare-outcome");
  const threshold = part("#same-threshold");
  if (kept.threshold !== undefined) threshold.valueAsNumber = kept.threshold;
  const [one, other] = ["one", "other"].map((name) => {
    const slot = new PhotoSlot();
    if (memory[`sighting-${name}`]) slot.photo = Photo.recalled(memory[`sighting-${name}`]);
    slot.onChange((photo) => remember(`sighting-${name}`, photo?.remembered ?? null));
    return slot;
  });
  mountFinder(part("[data-finder=one]"), one, ["taxi", "person_walking"]);
  mountFinder(part("[data-finder=other]"), other, ["taxi", "police_car"]);
  const query = new Query({
    ask,
    show,
    outcome,
    clear: () => {
      showDial(null);
      delete outcome.dataset.same;
      request.hide();
    },
    results: [part(".dial svg"), part("#dial-number"), outcome, request.card],
    onChange: (found) => {
      showSaving(found);
      keep();
    },
  });
  const showSaving = mountSaving(part("[data-saving]"), {
    "Save as CSV": () => {
      const columns = Object.entries(result(query.found));
      return csv("compare", [columns.map(([name]) => name), columns.map(([, value]) => value)]);
    },
    "Save as JSON": () => json("compare", result(query.found)),
  });

  async function ask(options) {
    const asked = { threshold: threshold.valueAsNumber };
    const photos = [one.photo.name, other.photo.name];
    const [image_a, image_b] = await Promise.all([base64Of(one.photo), base64Of(other.photo)]);
    const { body, fingerprint } = await post("compare", { image_a, image_b, ...asked }, options);
    return {
      photos,
      ...asked,
      similarity: body.similarity,
      same: body.same_entity,
      milliseconds: body.inference_time_ms,
      fingerprint,
    };
  }

  function show(found) {
    showDial(found.similarity);
    outcome.dataset.same = found.same;
    const sent = { image_a: one.photo, image_b: other.photo, threshold: found.threshold };
    request.show("compare", sent, found.milliseconds);
    return found.same ? "The same" : "Not the same";
  }

  function keep() {
    remember("compare", { threshold: threshold.valueAsNumber, found: query.found });
  }

  function showThreshold() {
    part("#same-from").textContent = threshold.valueAsNumber.toFixed(2);
    part("#dial-mark").setAttribute(
      "transform",
      `rotate(${(threshold.valueAsNumber - 0.5) * 180} 100 104)`,
    );
  }

  function changed(delay) {
    showThreshold();
    const refusal = one.photo?.refusal ?? other.photo?.refusal;
    if (refusal) query.refuse(refusal);
    else if (one.photo && other.photo) query.ask(delay);
    else query.drop(one.photo || other.photo ? "One more photo is needed." : "Two photos are needed.");
    keep();
  }

  function showDial(similarity) {
    part("#dial-number").textContent = similarity === null ? "–" : cosine(similarity);
    const share = Math.max(0, similarity ?? 0) * 100;
    // A round cap would show a dot where there is nothing.
    part("#dial-value").toggleAttribute("hidden", share === 0);
    part("#dial-value").setAttribute("stroke-dasharray", `${share} 100`);
  }

  threshold.addEventListener("input", () => changed());
  one.onChange(() => changed(0));
  other.onChange(() => changed(0));
  showThreshold();
  if (kept.found && one.photo && other.photo) query.restore(kept.found);
  else changed(0);
  return {
    take: (photos) => {
      const slots = one.photo && !other.photo ? [other, one] : [one, other];
      photos.slice(0, 2).forEach((photo, place) => {
        slots[place].photo = photo;
      });
    },
    again: () => changed(0),
    modelChanged: (fingerprint) => {
      if (!query.isOf(fingerprint)) changed(0);
    },
  };
}

const result = ({ photos: [photo_a, photo_b], similarity, threshold, same, fingerprint }) => ({
  photo_a,
  photo_b,
  similarity,
  threshold,
  same,
  model_fingerprint: fingerprint,
});
