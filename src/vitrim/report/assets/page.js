"use strict";

/* Light, dark, or as the system has it. */
(() => {
  const button = document.getElementById("theme");
  if (!button) return;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const current = () => document.documentElement.dataset.theme || (dark.matches ? "dark" : "light");
  button.hidden = false;
  button.addEventListener("click", () => {
    document.documentElement.dataset.theme = current() === "dark" ? "light" : "dark";
  });
})();
