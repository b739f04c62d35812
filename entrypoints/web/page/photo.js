// A photo: the original file, or its conversion if the server cannot read the original.

import { readable } from "./conversion.js";

let unnamed = 0;

export class Photo {
  #base64;

  /**
   * @param blob the bytes that are sent.
   * @param name the file's name; one is made up for a photo without.
   * @param note what was done to the file, as a sentence.
   * @param refusal why it cannot be sent, as a sentence; null if it can.
   * @param onDisk whether the file lies on the visitor's disk under this name.
   */
  constructor(blob, name, { note = "", refusal = null, onDisk = false } = {}) {
    this.blob = blob;
    this.name = name || `photo-${(unnamed += 1)}.${blob.type.split("/")[1] || "jpg"}`;
    this.note = note;
    this.refusal = refusal;
    this.onDisk = onDisk;
    this.url = URL.createObjectURL(blob);
  }

  /** The photo of a file; converted or scaled down if the server cannot read it. */
  static async of(file, { onDisk = true } = {}) {
    const { blob, extension, note, refusal } = await readable(file);
    if (blob === file) return new Photo(file, file.name, { refusal, onDisk });
    return new Photo(blob, `${file.name.replace(/\.[^.]*$/, "")}.${extension}`, { note });
  }

  /** A photo as `remembered` gave it. */
  static recalled({ blob, name, note, refusal, onDisk }) {
    return new Photo(blob, name, { note, refusal, onDisk });
  }

  /** What `recalled` needs. */
  get remembered() {
    const { blob, name, note, refusal, onDisk } = this;
    return { blob, name, note, refusal, onDisk };
  }

  /** The file in base64, made once. */
  base64() {
    this.#base64 ??= new Promise((resolve, reject) => {
      const reader = new FileReader();
      reader.addEventListener("load", () => resolve(reader.result.replace(/^[^,]*,/, "")));
      reader.addEventListener("error", () => reject(reader.error));
      reader.readAsDataURL(this.blob);
    });
    return this.#base64;
  }

  /** Size for people. */
  get size() {
    const kib = this.blob.size / 1024;
    return kib < 1024 ? `${Math.max(1, Math.round(kib))} KiB` : `${(kib / 1024).toFixed(1)} MiB`;
  }
}

/** The files that were chosen, dropped or pasted, as photos. */
export const photosIn = (transfer, options) =>
  Promise.all([...(transfer?.files ?? [])].map((file) => Photo.of(file, options)));

/** Holds one photo and tells everyone who shows or uses it when it changes. */
export class PhotoSlot {
  #photo = null;
  #listeners = [];

  get photo() {
    return this.#photo;
  }

  set photo(photo) {
    this.#photo = photo;
    for (const listener of this.#listeners) listener(photo);
  }

  onChange(listener) {
    this.#listeners.push(listener);
  }
}
