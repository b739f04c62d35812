// Keeps photos, texts and results in the browser for this tab, so that a reload loses nothing.
//
// They are in IndexedDB, which holds files of any size, under a name that only this tab knows. What
// has not been used for half a day is deleted: its tab is closed or forgotten.

const DATABASE = "clip-page";
const STORE = "kept";
const TAB = "clip-tab";
const FORGOTTEN_AFTER_MS = 12 * 3600 * 1000;
const SETTLED_MS = 250;
const PATIENCE_MS = 2000;

const waiting = new Map(); // name → the value that is to be written
let database = null;
let timer;

/** Everything that this tab remembers, by name; empty where the browser keeps nothing. */
export async function recall() {
  const late = new Promise((resolve) => {
    setTimeout(() => resolve({}), PATIENCE_MS);
  });
  return Promise.race([read().catch(() => ({})), late]);
}

/** Remember `value` under `name`; null forgets it, at once. */
export function remember(name, value) {
  waiting.set(name, value);
  clearTimeout(timer);
  if (value === null) write();
  else timer = setTimeout(write, SETTLED_MS);
}

addEventListener("pagehide", write);

async function read() {
  database = await opened();
  const kept = store("readwrite");
  const [keys, records] = await Promise.all([done(kept.getAllKeys()), done(kept.getAll())]);
  const mine = {};
  for (const [place, { used, value }] of records.entries()) {
    const [owner, name] = keys[place];
    if (owner === tab()) mine[name] = value;
    else if (used < Date.now() - FORGOTTEN_AFTER_MS) kept.delete(keys[place]);
  }
  return mine;
}

function write() {
  clearTimeout(timer);
  if (!database || !waiting.size) return;
  const kept = store("readwrite");
  for (const [name, value] of waiting) {
    const key = [tab(), name];
    const request =
      value === null ? kept.delete(key) : kept.put({ used: Date.now(), value }, key);
    // The disk is full, or the browser forbids it: then a reload starts afresh.
    request.addEventListener("error", (event) => event.preventDefault());
  }
  waiting.clear();
}

function tab() {
  let name = sessionStorage.getItem(TAB);
  if (!name) {
    name = `${Date.now()}-${Math.random()}`;
    sessionStorage.setItem(TAB, name);
  }
  return name;
}

function opened() {
  const request = indexedDB.open(DATABASE, 1);
  request.addEventListener("upgradeneeded", () => request.result.createObjectStore(STORE));
  return done(request);
}

const store = (mode) => database.transaction(STORE, mode).objectStore(STORE);

function done(request) {
  return new Promise((resolve, reject) => {
    request.addEventListener("success", () => resolve(request.result));
    request.addEventListener("error", () => reject(request.error));
  });
}
