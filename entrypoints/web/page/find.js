// "Find a photo": a folder of one's own, embedded photo by photo and searched by words.

import { announce } from "./announcer.js";
import { cosine } from "./describe.js";
import { acceptDrops } from "./finder.js";
import { Photo } from "./photo.js";
import { Query } from "./query.js";
import { sample, SAMPLES } from "./samples.js";
import { csv, mountSaving } from "./saving.js";
import { base64Of, post, Problem } from "./server.js";
import { concernsOnlyThePhoto, IN_WORDS, inPlainWords } from "./words.js";

const MOST_PHOTOS = 2000;
const SHOWN = 24;
const AT_ONCE = 2;
const PICTURE = /\.(jpe?g|jfif|mpo|png|apng|gif|bmp|webp|heic|heif|avif|tiff?)$/i;

export function mountFind(panel) {
  const part = (selector) => panel.querySelector(selector);
  const words = part("#find-words");
  const results = part(".results");
  const progress = part("#find-progress");
  const stop = part("#find-stop");
  let entries = []; // {name, photo, vector}; vector is null where there is no embedding
  let model = null; // the fingerprint that all vectors are of
  let work = new AbortController();
  const query = new Query({
    ask: search,
    show: showFound,
    clear: () => results.replaceChildren(),
    outcome: part("#find-outcome"),
    results: [results],
    onChange: (found) => showSaving(found),
  });
  const showSaving = mountSaving(part("[data-saving]"), {
    "Save as CSV": () => csv("found", [
      ["path", "similarity"],
      ...query.found.matches.map(({ place, similarity }) => [entries[place].name, similarity]),
    ]),
  });

  /** @param files {name, file} or {name, photo}, as many as there are. */
  async function add(files) {
    const room = MOST_PHOTOS - entries.length;
    const taken = files.slice(0, room);
    const fresh = taken.map(({ name, file, photo }) => ({ name, file, photo, vector: null }));
    entries = [...entries, ...fresh];
    part("#find-clear").hidden = !entries.length;
    await embed(fresh, files.length - taken.length);
  }

  async function embed(fresh, leftOver = 0) {
    work.abort();
    work = new AbortController();
    const { signal } = work;
    const waiting = [...fresh];
    const problems = [];
    let done = 0;
    stop.hidden = false;
    const tell = () => say("waiting", `Embedding: ${done} of ${fresh.length}.`);
    const one = async () => {
      for (let entry = waiting.shift(); entry && !signal.aborted; entry = waiting.shift()) {
        try {
          entry.photo ??= await Photo.of(entry.file);
          const image = await base64Of(entry.photo);
          const { body, fingerprint } = await post("embed", { image }, { signal });
          if (signal.aborted) return undefined;
          if (model !== null && fingerprint !== model) return again();
          model = fingerprint;
          entry.vector = Float32Array.from(body.embedding);
        } catch (error) {
          if (signal.aborted) return undefined;
          if (!(error instanceof Problem && concernsOnlyThePhoto(error))) throw error;
          problems.push(`${entry.name} was left out: ${inPlainWords(error)}`);
        }
        done += 1;
        tell();
      }
      return undefined;
    };
    tell();
    try {
      await Promise.all(Array.from({ length: AT_ONCE }, one));
    } catch (error) {
      work.abort();
      stop.hidden = true;
      say("problem", inPlainWords(error));
      return;
    }
    if (signal.aborted) return;
    stop.hidden = true;
    summarise(problems, leftOver);
    asked();
  }

  function summarise(problems, leftOver) {
    const count = entries.filter(({ vector }) => vector).length;
    say(
      "shown",
      [
        `${count} ${count === 1 ? "photo" : "photos"} can be searched.`,
        ...(leftOver > 0 ? [`${leftOver} more were left out: the limit is ${MOST_PHOTOS}.`] : []),
        ...problems.slice(0, 3),
        ...(problems.length > 3 ? [`And ${problems.length - 3} more.`] : []),
      ].join(" "),
    );
    announce(progress.textContent);
  }

  // Vectors from another model cannot be compared with those of this one.
  function forget() {
    model = null;
    for (const entry of entries) entry.vector = null;
  }

  function stopEmbedding() {
    work.abort();
    stop.hidden = true;
    entries = entries.filter(({ vector }) => vector);
    summarise([], 0);
    asked();
  }

  async function search(options) {
    const { body, fingerprint } = await post("embed/text", { texts: [words.value] }, options);
    if (fingerprint !== model) {
      again();
      throw new Problem(0, IN_WORDS, "The model has changed: the photos are being embedded again.");
    }
    const [text] = body.embeddings;
    const matches = entries
      .map(({ vector }, place) => ({ place, similarity: vector ? dot(vector, text) : null }))
      .filter(({ similarity }) => similarity !== null)
      .sort((one, other) => other.similarity - one.similarity)
      .slice(0, SHOWN);
    return { matches, fingerprint };
  }

  function showFound({ matches }) {
    results.replaceChildren(...matches.map(({ place, similarity }) => tile(entries[place], similarity)));
    const [best] = matches;
    return `Nearest: ${entries[best.place].name}, cosine ${cosine(best.similarity)}. Something is always nearest, even if nothing fits.`;
  }

  function asked() {
    if (!entries.some(({ vector }) => vector)) query.drop("Choose a folder first.");
    else if (!words.value.trim()) query.drop("Now say what to look for.");
    else query.ask();
  }

  function again() {
    if (!entries.length) return;
    forget();
    embed(entries);
  }

  function say(state, sentence) {
    progress.dataset.state = state;
    progress.textContent = sentence;
    if (state === "problem") announce(sentence);
  }

  function listen(button, input) {
    part(button).addEventListener("click", () => part(input).click());
    part(input).addEventListener("change", ({ target }) => {
      const files = [...target.files].filter(({ name, type }) => type.startsWith("image/") || PICTURE.test(name));
      target.value = "";
      if (!files.length) say("problem", "There are no pictures in it.");
      else add(files.map((file) => ({ file, name: file.webkitRelativePath || file.name })));
    });
  }

  listen("#find-folder", "#find-folder-input");
  listen("#find-photos", "#find-photos-input");
  stop.addEventListener("click", stopEmbedding);
  words.addEventListener("input", asked);
  part("#find-clear").addEventListener("click", () => {
    work.abort();
    stop.hidden = true;
    entries = [];
    model = null;
    part("#find-clear").hidden = true;
    say("empty", "");
    asked();
  });
  part("#find-samples").addEventListener("click", async () => {
    const photos = await Promise.all(Object.keys(SAMPLES).map(sample));
    add(photos.map((photo) => ({ photo, name: photo.name })));
  });
  const take = (photos) => add(photos.map((photo) => ({ photo, name: photo.name })));
  acceptDrops(part(".card"), take);
  asked();
  return {
    take,
    again,
    modelChanged: (fingerprint) => {
      if (model !== null && model !== fingerprint) again();
    },
  };
}

function tile({ name, photo }, similarity) {
  const template = document.getElementById("found-template");
  const found = template.content.cloneNode(true).firstElementChild;
  const picture = found.querySelector("img");
  picture.src = photo.url;
  picture.alt = name;
  found.querySelector(".found-name").textContent = name;
  found.querySelector(".value").textContent = cosine(similarity);
  return found;
}

function dot(one, other) {
  let sum = 0;
  for (let place = 0; place < one.length; place += 1) sum += one[place] * other[place];
  return sum;
}
