// "What is it?": labels as bars that follow the typing.

import { mountTexts } from "./texts.js";

export function mountClassify(panel, slot, kept = {}) {
  const prompts = panel.querySelector("#prompts");
  prompts.value = kept.prompts ?? "";
  const query = mountTexts(panel, slot, {
    kept,
    noun: "label",
    first: ["a delivery truck", "a person walking", "a dog", "an empty driveway"],
    path: "classify",
    fields: (labels) =>
      prompts.value ? { labels, use_ensemble: true, camera_type: prompts.value } : { labels },
    choices: () => ({ prompts: prompts.value }),
    scoresOf: ({ scores }) => scores,
    number: "score",
    show: (rows, scores) => {
      const best = highest(scores);
      rows.show(scores, { share: (score) => score, words: percent, best });
      return Object.keys(scores).length === 1
        ? "With a single label the score means nothing: add another to choose from."
        : `Most likely ${best}, ${percent(scores[best])}.`;
    },
  });
  prompts.addEventListener("change", query.again);
  return query;
}

/** The text with the highest number. */
export const highest = (numbers) => Object.entries(numbers).sort(([, a], [, b]) => b - a)[0][0];

const percent = (score) => `${(score * 100).toFixed(score < 0.0995 ? 1 : 0)} %`;
