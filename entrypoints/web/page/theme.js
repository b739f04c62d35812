// Loaded before anything is drawn, so that a chosen theme does not flash.
// Unless one was chosen, the system's setting counts.
"use strict";

const chosen = (() => {
  try {
    return localStorage.getItem("theme");
  } catch {
    return null; // storage is blocked; the system's setting will do
  }
})();
if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;

document.addEventListener("DOMContentLoaded", () => {
  const button = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () =>
    (document.documentElement.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";
  const show = () => button.setAttribute("aria-pressed", String(isDark()));
  button.addEventListener("click", () => {
    const theme = isDark() ? "light" : "dark";
    document.documentElement.dataset.theme = theme;
    try {
      localStorage.setItem("theme", theme);
    } catch {
      // it holds for this visit then
    }
    show();
  });
  system.addEventListener("change", show);
  show();
});
