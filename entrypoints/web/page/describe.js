// "Does it fit?": the cosine of the photo with each text.

import { mountTexts } from "./texts.js";

// The bars' full width, unless a text fits better than that.
const FULL_WIDTH = 0.4;

export function mountDescribe(panel, slot) {
  return mountTexts(panel, slot, {
    noun: "text",
    first: ["a delivery truck", "a drawing of a vehicle", "a dog in the snow"],
    path: "batch-similarity",
    fields: (texts) => ({ texts }),
    show: (rows, { similarities }) => {
      const [best] = Object.entries(similarities).sort(([, a], [, b]) => b - a)[0];
      const full = Math.max(FULL_WIDTH, similarities[best]);
      const share = (value) => Math.max(0, value) / full;
      rows.show(similarities, { share, words: cosine, best });
      return `Fits best: ${best}, cosine ${cosine(similarities[best])}.`;
    },
  });
}

/** Three decimals and a real minus sign. */
export const cosine = (value) => value.toFixed(3).replace("-", "−");
