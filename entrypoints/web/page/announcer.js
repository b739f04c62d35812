// The page's one live region: screen readers hear one sentence at a time, the latest.

const SETTLED_MS = 150;

let timer;

/** Have a screen reader say `sentence` once things have settled. */
export function announce(sentence) {
  clearTimeout(timer);
  timer = setTimeout(() => {
    document.getElementById("announcer").textContent = sentence;
  }, SETTLED_MS);
}
