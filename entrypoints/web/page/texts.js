// What the questions "what is it?" and "does it fit?" share: a photo against a list of texts.

import { Question } from "./question.js";
import { mountRequest } from "./request.js";
import { Rows } from "./rows.js";
import { post } from "./server.js";

/**
 * Asks about the slot's photo and the texts in the panel's rows whenever one of them changes.
 *
 * @param noun what a row is called.
 * @param first the rows to begin with.
 * @param path the call.
 * @param fields the request's fields beside the photo, made of the texts.
 * @param show shows an answer in the rows; returns it as a sentence.
 */
export function mountTexts(panel, slot, { noun, first, path, fields, show }) {
  const showRequest = mountRequest(panel.querySelector("[data-request]"));
  const rows = new Rows(panel.querySelector(".rows"), noun, () => changed());
  const question = new Question(ask, panel.querySelector(".outcome"));

  async function ask(options) {
    const { photo } = slot;
    const asked = fields(rows.texts);
    const answer = await post(path, { image: await photo.base64(), ...asked }, options);
    showRequest(path, { image: photo, ...asked }, answer.inference_time_ms);
    return show(rows, answer);
  }

  function changed(delay) {
    if (slot.photo && rows.texts.length) {
      question.ask(delay);
    } else {
      rows.clear();
      question.drop(slot.photo ? `At least one ${noun} is needed.` : "A photo is needed.");
    }
  }

  first.forEach((text) => rows.add(text));
  panel.querySelector(".add").addEventListener("click", () => rows.add().focus());
  slot.onChange(() => changed(0));
  changed();
  return {
    take: ([photo]) => {
      slot.photo = photo;
    },
    again: () => changed(0),
  };
}
