// Puts the page together.

import { mountClassify } from "./classify.js";
import { mountCompare } from "./compare.js";
import { mountDescribe } from "./describe.js";
import { acceptDrops, mountFinder } from "./finder.js";
import { followHealth } from "./health.js";
import { mountKey } from "./key.js";
import { photosIn, PhotoSlot } from "./photo.js";
import { mountTabs } from "./tabs.js";
import { mountWatch } from "./watch.js";

const panel = (id) => document.getElementById(id);
const photo = new PhotoSlot(); // one photo for both questions about a single one
for (const place of document.querySelectorAll("[data-finder=photo]")) {
  mountFinder(place, photo, ["delivery_truck", "person_walking", "dog", "package"]);
}

const askAgain = () => Object.values(questions).forEach(({ again }) => again());
mountKey(() => {
  model.look();
  askAgain();
});
const model = followHealth(askAgain);
const questions = {
  classify: mountClassify(panel("classify"), photo),
  describe: mountDescribe(panel("describe"), photo),
  compare: mountCompare(panel("compare")),
  watch: mountWatch(panel("watch"), model),
};
const shownPanel = mountTabs(document.querySelector("[role=tablist]"));
const take = (photos) => questions[shownPanel()].take(photos);

// A photo that misses its place must not replace the page.
acceptDrops(document.documentElement, take);
document.addEventListener("paste", (event) => {
  const photos = photosIn(event.clipboardData);
  if (photos.length) take(photos);
});
