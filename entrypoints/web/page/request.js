// The request that was sent, as a shell command.

import { announce } from "./announcer.js";
import { hasKey } from "./key.js";
import { Photo } from "./photo.js";
import { save } from "./saving.js";
import { address } from "./server.js";

const SHOWN_NUMBERS = 3;

/** Puts a card into `place`; returns the `card`, `show` for a request, and `hide`. */
export function mountRequest(place) {
  const template = document.getElementById("request-template");
  const card = template.content.cloneNode(true).firstElementChild;
  const code = card.querySelector("code");
  const copy = card.querySelector(".copy");
  const title = place.dataset.title ?? "With curl";
  card.querySelector("h2").textContent = title;
  card.querySelector("pre").setAttribute("aria-label", title);
  copy.setAttribute("aria-label", `Copy: ${title}`);
  const saves = card.querySelector(".save-photos");
  let whole = "";
  let unsaved = [];
  saves.addEventListener("click", () => unsaved.forEach(({ blob, name }) => save(blob, name)));
  copy.addEventListener("click", async () => {
    copy.textContent = (await copied(whole)) ? "Copied" : "Select it and copy";
    announce(copy.textContent);
    setTimeout(() => {
      copy.textContent = "Copy";
    }, 1600);
  });
  card.hidden = true;
  place.append(card);
  return {
    card,
    hide: () => {
      card.hidden = true;
      code.textContent = "";
    },
    show: (path, fields, milliseconds) => {
      whole = curl(path, fields);
      code.textContent = curl(path, fields, SHOWN_NUMBERS);
      card.querySelector(".took").textContent =
        milliseconds === undefined ? "" : `${Math.round(milliseconds)} ms in the server`;
      // The command reads files by their names; those that this page made are not there yet.
      unsaved = Object.values(fields)
        .flat()
        .filter((value) => value instanceof Photo && !value.onDisk);
      saves.hidden = !unsaved.length;
      saves.textContent = unsaved.length === 1 ? "Save the photo" : "Save the photos";
      card.hidden = false;
    },
  };
}

/**
 * A command for any POSIX shell. It refers to photos by their file names.
 *
 * @param fields the request's fields; photos as `Photo`.
 * @param numbers how many of an embedding's numbers are written; all unless given.
 */
export function curl(path, fields, numbers = Infinity) {
  const lines = Object.entries(fields).map(
    ([name, value]) => `  ${inHeredoc(JSON.stringify(name))}: ${written(value, numbers)}`,
  );
  return [
    `curl -s ${quoted(address(path))} \\`,
    // As a variable: commands are photographed, shared, and kept in a shell's history.
    ...(hasKey() ? ['  -H "Authorization: Bearer $CLIP_API_KEY" \\'] : []),
    "  -H 'Content-Type: application/json' --data-binary @- <<JSON",
    `{\n${lines.join(",\n")}\n}`,
    "JSON",
  ].join("\n");
}

function written(value, numbers) {
  if (value instanceof Photo) return `"$(base64 < ${quoted(value.name)} | tr -d '\\n')"`;
  if (!Array.isArray(value)) return inHeredoc(JSON.stringify(value));
  const isEmbedding = typeof value[0] === "number";
  const shown = (isEmbedding ? value.slice(0, numbers) : value).map((item) =>
    written(item, numbers),
  );
  if (shown.length < value.length) shown.push(`… ${value.length - shown.length} more`);
  const separator = value[0] instanceof Photo ? ",\n    " : ", ";
  return `[${shown.join(separator)}]`;
}

const quoted = (text) => (/^[\w./:@%+=-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);

// Characters that the shell would expand between <<JSON and JSON.
const inHeredoc = (text) => text.replace(/[\\$`]/g, "\\$&");

async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copiedTheOldWay(text);
  }
}

// The clipboard works only on localhost and over HTTPS; a selection can always be copied.
function copiedTheOldWay(text) {
  const field = document.createElement("textarea");
  const { activeElement } = document;
  field.value = text;
  field.className = "visually-hidden";
  document.body.append(field);
  field.select();
  const done = document.execCommand("copy");
  field.remove();
  activeElement?.focus();
  return done;
}
