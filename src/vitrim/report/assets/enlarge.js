"use strict";

/* A click on a tile shows it in a dialog. Arrow keys go to the other tiles of its slice; Escape closes. */
(() => {
  const tiles = [...document.querySelectorAll(".slice .tile")];
  if (!tiles.length) return;
  const dialog = document.createElement("dialog");
  dialog.className = "enlarged";
  const body = document.createElement("div");
  const close = Object.assign(document.createElement("button"), { type: "button", textContent: "Close" });
  dialog.append(body, close);
  document.body.append(dialog);
  let shown = null;

  const show = (tile) => {
    shown = tile;
    const style = tile.closest(".slice").style;
    for (const name of ["--image", "--ratio"]) dialog.style.setProperty(name, style.getPropertyValue(name));
    const title = Object.assign(document.createElement("p"), { textContent: tile.dataset.title });
    const frame = tile.querySelector(".frame").cloneNode(true);
    const caption = Object.assign(document.createElement("p"), { textContent: tile.querySelector("figcaption").textContent });
    body.replaceChildren(title, frame, caption);
    dialog.setAttribute("aria-label", `${title.textContent}. ${caption.textContent}`);
    if (!dialog.open) dialog.showModal();
  };
  const turn = (step) => {
    const all = [...shown.closest(".slice").querySelectorAll(".tile")];
    show(all[(all.indexOf(shown) + step + all.length) % all.length]);
  };

  for (const tile of tiles) {
    const frame = tile.querySelector(".frame");
    const button = document.createElement("button");
    button.type = "button";
    button.className = "enlarge";
    button.setAttribute("aria-label", `Enlarge: ${tile.querySelector("img").alt}`);
    frame.replaceWith(button);
    button.append(frame);
    button.addEventListener("click", () => show(tile));
  }
  close.addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  dialog.addEventListener("close", () => shown?.querySelector(".enlarge").focus());
  dialog.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step) turn(step);
  });
})();
