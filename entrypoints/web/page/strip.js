// A strip of photos that grows by dropping or choosing.

import { acceptDrops } from "./finder.js";
import { photosIn } from "./photo.js";

export class Strip {
  #frames;
  #changed;
  #clear;

  /**
   * Puts the strip into `place`.
   *
   * @param photos what is in it at first.
   * @param changed called after each change.
   */
  constructor(place, photos, changed) {
    const template = document.getElementById("strip-template");
    const strip = template.content.cloneNode(true).firstElementChild;
    const input = strip.querySelector("input");
    const add = strip.querySelector(".frame-add");
    const { label } = place.dataset;
    this.#frames = strip.querySelector(".frames");
    this.#clear = strip.querySelector(".frames-clear");
    this.#changed = changed;
    this.photos = [];
    add.querySelector("span").textContent = `Add ${label}`;
    add.addEventListener("click", () => input.click());
    this.#clear.setAttribute("aria-label", `Remove all ${label}`);
    this.#clear.addEventListener("click", () => {
      this.replace([]);
      add.focus();
    });
    input.addEventListener("change", async () => {
      const reading = photosIn(input);
      input.value = "";
      this.add(await reading);
    });
    acceptDrops(strip, (dropped) => this.add(dropped));
    place.append(strip);
    this.#append(photos);
  }

  add(photos) {
    this.#append(photos);
    if (photos.length) this.#changed();
  }

  /** The element that shows a photo; undefined if it was removed. */
  elementOf(photo) {
    return this.#frames.children[this.photos.indexOf(photo)];
  }

  /** Takes all photos out and puts these in. */
  replace(photos) {
    this.photos = [];
    this.#frames.replaceChildren();
    this.#append(photos);
    this.#changed();
  }

  /** Marks a photo as left out, and says why; null takes the mark away. */
  leaveOut(photo, reason) {
    const frame = this.elementOf(photo);
    frame.toggleAttribute("data-left-out", reason !== null);
    frame.title = reason ?? "";
  }

  #append(photos) {
    for (const photo of photos) {
      this.photos.push(photo);
      this.#frames.append(this.#frame(photo));
    }
    this.#clear.hidden = this.photos.length < 2;
  }

  #frame(photo) {
    const template = document.getElementById("frame-template");
    const frame = template.content.cloneNode(true).firstElementChild;
    const picture = frame.querySelector("img");
    picture.src = photo.url;
    picture.alt = photo.name;
    const remove = frame.querySelector("button");
    remove.setAttribute("aria-label", `Remove ${photo.name}`);
    remove.addEventListener("click", () => {
      this.photos = this.photos.filter((kept) => kept !== photo);
      const next = (frame.nextElementSibling ?? frame.previousElementSibling)?.querySelector(
        "button",
      );
      frame.remove();
      this.#append([]);
      next?.focus();
      this.#changed();
    });
    return frame;
  }
}
