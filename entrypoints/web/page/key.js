// The API key, if the server needs one: prompted for when a request is refused, kept for this tab only.

import { announce } from "./announcer.js";

const STORE = "clip-api-key";
const REFUSED = "clip-key-refused";

let key = null;
try {
  key = sessionStorage.getItem(STORE);
} catch {
  // storage is turned off: the key lasts until the page is left
}

/** Whether requests are sent with a key. */
export const hasKey = () => key !== null;

/** The headers that carry the key. */
export const keyHeaders = () => (key === null ? {} : { Authorization: `Bearer ${key}` });

/** Show the field for the key: a request was refused. */
export const refused = () => document.dispatchEvent(new Event(REFUSED));

/** Shows the field when it is needed; `changed` is called when there is another key. */
export function mountKey(changed) {
  const form = document.getElementById("key");
  const field = document.getElementById("key-field");
  const says = document.getElementById("key-says");
  let asked = false;

  document.addEventListener(REFUSED, () => {
    // Requests that were sent without a key, or with the previous one, say nothing new.
    if (!form.hidden) return;
    says.textContent = asked ? "This key is wrong." : "It stays in this tab.";
    announce(asked ? says.textContent : "This server needs a key.");
    field.setAttribute("aria-invalid", String(asked));
    form.hidden = false;
    if (asked) field.select();
  });

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    key = field.value.trim();
    asked = true;
    form.hidden = true;
    try {
      sessionStorage.setItem(STORE, key);
    } catch {
      // as above
    }
    changed();
  });
}
