// "Does it fit?": the cosine of the photo with each text.

import { highest } from "./classify.js";
import { mountTexts } from "./texts.js";

// The bars' full width, unless a text fits better than that.
const FULL_WIDTH = 0.4;

export function mountDescribe(panel, slot, kept) {
  return mountTexts(panel, slot, {
    kept,
    noun: "text",
    first: ["a delivery truck", "a drawing of a vehicle", "a dog in the snow"],
    path: "batch-similarity",
    fields: (texts) => ({ texts }),
    scoresOf: ({ similarities }) => similarities,
    number: "cosine",
    show: (rows, similarities) => {
      const best = highest(similarities);
      const full = Math.max(FULL_WIDTH, similarities[best]);
      const share = (value) => Math.max(0, value) / full;
      rows.show(similarities, { share, words: cosine, best });
      return `Fits best: ${best}, cosine ${cosine(similarities[best])}.`;
    },
  });
}

/** Three decimals and a real minus sign. */
export const cosine = (value) => value.toFixed(3).replace("-", "−");
