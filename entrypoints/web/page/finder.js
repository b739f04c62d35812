// The viewfinder: one photo, dropped, chosen, pasted, taken by the camera, or a sample.

import { takePhoto, whyNoCamera } from "./camera.js";
import { photosIn } from "./photo.js";
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
  const clear = part("[data-action=clear]");
  const { label } = place.dataset;

  finder.setAttribute("role", "group");
  finder.setAttribute("aria-label", label);
  choose.addEventListener("click", () => input.click());
  stage.addEventListener("click", () => input.click());
  input.addEventListener("change", async () => {
    const reading = photosIn(input);
    input.value = ""; // so that the same file can be chosen again
    const [photo] = await reading;
    if (photo) slot.photo = photo;
  });
  clear.addEventListener("click", () => {
    slot.photo = null;
    choose.focus();
  });
  const reason = whyNoCamera();
  camera.hidden = Boolean(reason);
  part(".finder-hint").textContent = reason ?? "";
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

  function show(photo) {
    finder.toggleAttribute("data-empty", !photo);
    picture.hidden = !photo;
    clear.hidden = !photo;
    part(".finder-invitation").hidden = Boolean(photo);
    choose.className = photo ? "quiet" : "primary";
    choose.textContent = photo ? "Another photo" : "Choose a photo";
    part(".finder-note").textContent = photo?.note ?? "";
    caption.textContent = photo ? `${photo.name} · ${photo.size}` : "";
    picture.alt = photo ? `${label}: ${photo.name}` : "";
    if (photo) picture.src = photo.url;
    else picture.removeAttribute("src");
  }

  slot.onChange(show);
  picture.addEventListener("load", () => {
    const pixels = `${picture.naturalWidth} × ${picture.naturalHeight}`;
    caption.textContent = `${slot.photo.name} · ${pixels} · ${slot.photo.size}`;
  });
  picture.addEventListener("error", () => {
    if (slot.photo) picture.alt = `${slot.photo.name} cannot be shown here`;
  });
  show(slot.photo);

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
  element.addEventListener("drop", async (event) => {
    event.preventDefault();
    event.stopPropagation();
    delete element.dataset.over;
    const photos = await photosIn(event.dataTransfer);
    if (photos.length) take(photos);
  });
}
