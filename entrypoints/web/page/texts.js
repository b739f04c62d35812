// Shared by "What is it?" and "Does it fit?": a photo against a list of texts.

import { remember } from "./memory.js";
import { Query } from "./query.js";
import { mountRequest } from "./request.js";
import { Rows } from "./rows.js";
import { csv, json, mountSaving } from "./saving.js";
import { base64Of, post } from "./server.js";

/**
 * Sends a request for the slot's photo and the panel's texts whenever one of them changes.
 *
 * @param kept what the panel remembered before a reload, if anything.
 * @param noun what a row is called.
 * @param first the rows to begin with.
 * @param path the call.
 * @param fields the request's fields beside the photo, made of the texts.
 * @param choices what else of the panel is to be remembered.
 * @param scoresOf the number of each text in a response.
 * @param number what such a number is called.
 * @param show shows the numbers in the rows; returns the result as a sentence.
 */
export function mountTexts(
  panel,
  slot,
  { kept = {}, noun, first, path, fields, choices = () => ({}), scoresOf, number, show },
) {
  const request = mountRequest(panel.querySelector("[data-request]"));
  const list = panel.querySelector(".rows");
  const outcome = panel.querySelector(".outcome");
  const rows = new Rows(list, noun, () => changed());
  const query = new Query({
    ask,
    outcome,
    results: [list, request.card],
    show: (found) => {
      request.show(path, { image: slot.photo, ...found.asked }, found.milliseconds);
      return show(rows, found.scores, slot.photo);
    },
    clear: () => {
      rows.clear();
      request.hide();
    },
    onChange: (found) => {
      showSaving(found);
      keep();
    },
  });
  const showSaving = mountSaving(panel.querySelector("[data-saving]"), {
    "Save as CSV": () => {
      const { scores, photo, fingerprint } = query.found;
      const lines = Object.entries(scores).map(([text, score]) => [photo, text, score, fingerprint]);
      return csv(panel.id, [["photo", noun, number, "model_fingerprint"], ...lines]);
    },
    "Save as JSON": () => {
      const { scores, photo, fingerprint, asked } = query.found;
      return json(panel.id, { photo, model_fingerprint: fingerprint, ...asked, [`${number}s`]: scores });
    },
  });

  async function ask(options) {
    const { photo } = slot;
    const asked = fields(rows.texts);
    const image = await base64Of(photo);
    const { body, fingerprint } = await post(path, { image, ...asked }, options);
    return {
      photo: photo.name,
      asked,
      scores: scoresOf(body),
      milliseconds: body.inference_time_ms,
      fingerprint,
    };
  }

  function keep() {
    remember(panel.id, { texts: rows.all, found: query.found, ...choices() });
  }

  function changed(delay) {
    if (slot.photo?.refusal) query.refuse(slot.photo.refusal);
    else if (!slot.photo) query.drop("A photo is needed.");
    else if (!rows.texts.length) query.drop(`At least one ${noun} is needed.`);
    else query.ask(delay);
    keep();
  }

  (kept.texts ?? first).forEach((text) => rows.add(text));
  panel.querySelector(".add").addEventListener("click", () => rows.add().focus());
  slot.onChange(() => changed(0));
  if (slot.photo && kept.found) query.restore(kept.found);
  else changed(0);
  return {
    take: ([photo]) => {
      slot.photo = photo;
    },
    again: () => changed(0),
    modelChanged: (fingerprint) => {
      if (!query.isOf(fingerprint)) changed(0);
    },
  };
}
