// "What is it?": labels as bars that follow the typing.

import { mountTexts } from "./texts.js";

export function mountClassify(panel, slot) {
  const prompts = panel.querySelector("#prompts");
  const question = mountTexts(panel, slot, {
    noun: "label",
    first: ["a delivery truck", "a person walking", "a dog", "an empty driveway"],
    path: "classify",
    fields: (labels) =>
      prompts.value ? { labels, use_ensemble: true, camera_type: prompts.value } : { labels },
    show: (rows, { scores, top_label: best }) => {
      rows.show(scores, { share: (score) => score, words: percent, best });
      return `Most likely ${best}, ${percent(scores[best])}.`;
    },
  });
  prompts.addEventListener("change", question.again);
  return question;
}

const percent = (score) => `${(score * 100).toFixed(score < 0.0995 ? 1 : 0)} %`;
