// Puts the page together.

import { mountClassify } from "./classify.js";
import { mountCompare } from "./compare.js";
import { mountDescribe } from "./describe.js";
import { mountFind } from "./find.js";
import { acceptDrops, mountFinder } from "./finder.js";
import { followHealth } from "./health.js";
import { mountKey } from "./key.js";
import { mountLive } from "./live.js";
import { recall, remember } from "./memory.js";
import { Photo, photosIn, PhotoSlot } from "./photo.js";
import { mountTabs } from "./tabs.js";
import { mountWatch } from "./watch.js";

const memory = await recall();
const panel = (id) => document.getElementById(id);
const photo = new PhotoSlot(); // one photo for both panels that look at a single one
if (memory.photo) photo.photo = Photo.recalled(memory.photo);
photo.onChange((chosen) => remember("photo", chosen?.remembered ?? null));
for (const place of document.querySelectorAll("[data-finder=photo]")) {
  mountFinder(place, photo, ["delivery_truck", "person_walking", "dog", "package"]);
}

const panels = {
  classify: mountClassify(panel("classify"), photo, memory.classify),
  describe: mountDescribe(panel("describe"), photo, memory.describe),
  compare: mountCompare(panel("compare"), memory),
  watch: mountWatch(panel("watch"), memory),
  live: mountLive(panel("live")),
  find: mountFind(panel("find")),
};
const each = (act) => Object.values(panels).forEach(act);
mountKey(() => {
  look();
  each(({ again }) => again());
});
const look = followHealth((fingerprint) => each(({ modelChanged }) => modelChanged(fingerprint)));
const shownPanel = mountTabs(document.querySelector("[role=tablist]"));
const take = (photos) => panels[shownPanel()].take(photos);

// A photo that misses its place must not replace the page.
acceptDrops(document.documentElement, take);
document.addEventListener("paste", async (event) => {
  const photos = await photosIn(event.clipboardData, { onDisk: false });
  if (photos.length) take(photos);
});
