// "Same one?": two sightings, their cosine, and the threshold from which they count as the same.

import { cosine } from "./describe.js";
import { mountFinder } from "./finder.js";
import { PhotoSlot } from "./photo.js";
import { Question } from "./question.js";
import { mountRequest } from "./request.js";
import { post } from "./server.js";

export function mountCompare(panel) {
  const part = (selector) => panel.querySelector(selector);
  const showRequest = mountRequest(part("[data-request=compare]"));
  const outcome = part("#compare-outcome");
  const question = new Question(ask, outcome);
  const threshold = part("#same-threshold");
  const [one, other] = [new PhotoSlot(), new PhotoSlot()];
  mountFinder(part("[data-finder=one]"), one, ["taxi", "person_walking"]);
  mountFinder(part("[data-finder=other]"), other, ["taxi", "police_car"]);

  async function ask(options) {
    const photos = { image_a: one.photo, image_b: other.photo };
    const limit = { threshold: threshold.valueAsNumber };
    const [image_a, image_b] = await Promise.all([one.photo.base64(), other.photo.base64()]);
    const answer = await post("compare", { image_a, image_b, ...limit }, options);
    showDial(answer.similarity);
    outcome.dataset.same = answer.same_entity;
    showRequest("compare", { ...photos, ...limit }, answer.inference_time_ms);
    return answer.same_entity ? "The same" : "Not the same";
  }

  function changed(delay) {
    part("#same-from").textContent = threshold.valueAsNumber.toFixed(2);
    part("#dial-mark").setAttribute(
      "transform",
      `rotate(${(threshold.valueAsNumber - 0.5) * 180} 100 104)`,
    );
    if (one.photo && other.photo) return question.ask(delay);
    showDial(null);
    return question.drop(one.photo || other.photo ? "One more photo." : "Two photos are needed.");
  }

  function showDial(similarity) {
    delete outcome.dataset.same;
    part("#dial-number").textContent = similarity === null ? "–" : cosine(similarity);
    const share = Math.max(0, similarity ?? 0) * 100;
    // A round cap would show a dot where there is nothing.
    part("#dial-value").toggleAttribute("hidden", share === 0);
    part("#dial-value").setAttribute("stroke-dasharray", `${share} 100`);
  }

  threshold.addEventListener("input", () => changed());
  one.onChange(() => changed(0));
  other.onChange(() => changed(0));
  changed();
  return {
    take: (photos) => {
      const slots = one.photo && !other.photo ? [other, one] : [one, other];
      photos.slice(0, 2).forEach((photo, place) => {
        slots[place].photo = photo;
      });
    },
    again: () => changed(0),
  };
}
