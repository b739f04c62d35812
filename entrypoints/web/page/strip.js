// A strip of photos that grows by dropping or choosing.

import { acceptDrops } from "./finder.js";
import { photosIn } from "./photo.js";

export class Strip {
  #frames;
  #changed;
  #label;

  /** Puts the strip into `place`; `changed` is called after each change. */
  constructor(place, changed) {
    const template = document.getElementById("strip-template");
    const strip = template.content.cloneNode(true).firstElementChild;
    const input = strip.querySelector("input");
    const add = strip.querySelector(".frame-add");
    this.#frames = strip.querySelector(".frames");
    this.#changed = changed;
    this.#label = place.dataset.label;
    this.photos = [];
    add.querySelector("span").textContent = `Add ${this.#label}`;
    add.addEventListener("click", () => input.click());
    input.addEventListener("change", () => {
      this.add(photosIn(input));
      input.value = "";
    });
    acceptDrops(strip, (photos) => this.add(photos));
    place.append(strip);
  }

  add(photos) {
    for (const photo of photos) {
      this.photos.push(photo);
      this.#frames.append(this.#frame(photo));
    }
    if (photos.length) this.#changed();
  }

  /** The element that shows a photo. */
  elementOf(photo) {
    return this.#frames.children[this.photos.indexOf(photo)];
  }

  /** Takes all photos out and puts these in. */
  replace(photos) {
    this.photos = [];
    this.#frames.replaceChildren();
    this.add(photos);
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
      next?.focus();
      this.#changed();
    });
    return frame;
  }
}
