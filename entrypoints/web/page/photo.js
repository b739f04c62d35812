// A photo as it was given: its file's bytes go to the server unchanged.

let nameless = 0;

export class Photo {
  #base64;

  constructor(blob, name) {
    this.blob = blob;
    this.name = name || `photo-${(nameless += 1)}.${blob.type.split("/")[1] || "jpg"}`;
    this.url = URL.createObjectURL(blob);
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

/** The photos among what was dropped or pasted. */
export function photosIn(transfer) {
  return [...(transfer?.files ?? [])]
    .filter((file) => file.type.startsWith("image/") || file.type === "")
    .map((file) => new Photo(file, file.name));
}

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
