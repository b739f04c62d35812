// The viewfinder: one photo, dropped, chosen, pasted, taken by the camera, or a sample.

import { cameraExists, takePhoto } from "./camera.js";
import { Photo, photosIn } from "./photo.js";
import { SAMPLES, sample } from "./samples.js";

/** Puts a viewfinder into `place` that shows and sets `slot`'s photo. */
export function mountFinder(place, slot, sampleNames) {
  const template = document.getElementById("finder-template");
  const finder = template.content.cloneNode(true).firstElementChild;
  const part = (selector) => finder.querySelector(selector);
  const [stage, picture, caption] = [".finder-stage", "img", ".finder-caption"].map(part);
  const input = part("input");
  const choose = part("[data-action=choose]");
  const camera = part("[data-action=camera]");
  const { label } = place.dataset;

  finder.setAttribute("role", "group");
  finder.setAttribute("aria-label", label);
  choose.addEventListener("click", () => input.click());
  stage.addEventListener("click", () => input.click());
  input.addEventListener("change", () => {
    if (input.files.length) slot.photo = new Photo(input.files[0], input.files[0].name);
    input.value = ""; // so that the same file can be chosen again
  });
  camera.hidden = !cameraExists();
  camera.addEventListener("click", async () => {
    const taken = await takePhoto();
    if (taken) slot.photo = taken;
  });
  acceptDrops(finder, (photos) => {
    [slot.photo] = photos;
  });

  for (const name of sampleNames) {
    const button = document.createElement("button");
    button.type = "button";
    button.setAttribute("aria-label", `Sample: ${SAMPLES[name]}`);
    const thumbnail = document.createElement("img");
    thumbnail.src = `page/samples/${name}.png`;
    thumbnail.alt = "";
    button.append(thumbnail);
    button.addEventListener("click", async () => {
      slot.photo = await sample(name);
    });
    part(".samples").append(button);
  }

  slot.onChange((photo) => {
    finder.toggleAttribute("data-empty", !photo);
    picture.hidden = !photo;
    part(".finder-invitation").hidden = Boolean(photo);
    choose.className = photo ? "quiet" : "primary";
    choose.textContent = photo ? "Another photo" : "Choose a photo";
    if (!photo) return;
    picture.src = photo.url;
    picture.alt = `${label}: ${photo.name}`;
    caption.textContent = `${photo.name} · ${photo.size}`;
  });
  picture.addEventListener("load", () => {
    const pixels = `${picture.naturalWidth} × ${picture.naturalHeight}`;
    caption.textContent = `${slot.photo.name} · ${pixels} · ${slot.photo.size}`;
  });
  // Some formats that browsers cannot show the server refuses by name; it has the last word.
  picture.addEventListener("error", () => {
    picture.alt = `${slot.photo.name} cannot be shown here`;
  });

  place.append(finder);
}

/** Calls `take` with the photos that are dropped onto `element`. */
export function acceptDrops(element, take) {
  element.addEventListener("dragover", (event) => {
    event.preventDefault();
    event.stopPropagation();
    element.dataset.over = "";
  });
  element.addEventListener("dragleave", () => delete element.dataset.over);
  element.addEventListener("drop", (event) => {
    event.preventDefault();
    event.stopPropagation();
    delete element.dataset.over;
    const photos = photosIn(event.dataTransfer);
    if (photos.length) take(photos);
  });
}
