"use strict";

/* Light or dark colours; by default those of the system. */
(() => {
  const button = document.getElementById("theme");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const current = () => document.documentElement.dataset.theme || (dark.matches ? "dark" : "light");
  const name = () => { button.textContent = current() === "dark" ? "Light colours" : "Dark colours"; };
  button.hidden = false;
  button.addEventListener("click", () => {
    document.documentElement.dataset.theme = current() === "dark" ? "light" : "dark";
    name();
  });
  dark.addEventListener("change", name);
  name();
})();

/* On paper nothing can be opened, so all details are printed. */
{
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details:not([open])")];
    for (const detail of closed) detail.open = true;
  });
  addEventListener("afterprint", () => { for (const detail of closed) detail.open = false; });
}

/* Sort a table by any column: ascending, descending, original order. */
for (const table of document.querySelectorAll("table[data-sortable]")) {
  const body = table.tBodies[0];
  const original = [...body.rows];
  const heads = [...table.tHead.rows[0].cells];
  const value = (row, column) => {
    const text = row.cells[column].dataset.value;
    return text === undefined ? null : text !== "" && !Number.isNaN(Number(text)) ? Number(text) : text;
  };
  const compare = (column, sign) => (a, b) => {
    const [x, y] = [value(a, column), value(b, column)];
    if (x === null || y === null) return (x === null) - (y === null);
    return sign * (typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y)));
  };
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "sort";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const next = { none: "ascending", ascending: "descending", descending: "none" }[head.getAttribute("aria-sort") || "none"];
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      if (next !== "none") head.setAttribute("aria-sort", next);
      const rows = next === "none" ? original : [...original].sort(compare(column, next === "ascending" ? 1 : -1));
      body.append(...rows);
      table.classList.toggle("sorted", next !== "none");
    });
  });
}

/* The threshold slider: moves the line in the chart, shades the blocks beyond its depth, and states the depth. */
for (const panel of document.querySelectorAll("[data-decision]")) {
  const decision = JSON.parse(panel.dataset.decision);
  const slider = panel.querySelector("input");
  const shown = panel.querySelector("output");
  const svg = document.getElementById(panel.dataset.chart);
  const frame = JSON.parse(svg.dataset.frame);
  const total = decision.blocks.length;
  const eps = 1e-6;

  const first = (end, threshold) => {
    const reaches = (block) => (decision.falls ? block[end] <= threshold + eps : block[end] >= threshold - eps);
    const found = decision.blocks.findIndex(reaches);
    return found < 0 ? null : found + 1;
  };
  const at = (threshold) => {
    const near = decision.falls ? "low" : "high";
    const far = decision.falls ? "high" : "low";
    const depth = first(far, threshold);
    return { depth: depth ?? total, low: first(near, threshold) ?? total, reached: depth !== null };
  };
  const x = (block) => frame.left + ((block - frame.x[0]) / (frame.x[1] - frame.x[0])) * (frame.width - frame.left - frame.right);
  const y = (level) => {
    const up = Math.min(1, Math.max(0, (level - frame.y[0]) / (frame.y[1] - frame.y[0])));
    return frame.height - frame.bottom - up * (frame.height - frame.top - frame.bottom);
  };
  const line = svg.querySelector("line.threshold");
  const label = svg.querySelector("text.threshold-text");
  const box = svg.querySelector("rect.discarded");
  const word = svg.querySelector("text.discarded-text");

  const show = () => {
    const threshold = Number(slider.value);
    const { depth, low, reached } = at(threshold);
    for (const end of ["y1", "y2"]) line.setAttribute(end, y(threshold));
    label.setAttribute("y", y(threshold) - 4);
    const text = Math.abs(threshold - decision.threshold) < 0.0051 ? decision.text : threshold.toFixed(2);
    label.textContent = `threshold ${text}`;
    const edge = Math.min(x(depth + 0.5), x(frame.x[1]));
    box.setAttribute("x", edge);
    box.setAttribute("width", Math.max(0, x(frame.x[1]) - edge));
    word.setAttribute("x", edge + 4);
    word.textContent = x(frame.x[1]) - edge > 60 ? "beyond the rule" : "";
    const blocks = `${depth} of ${total} blocks`;
    const between = reached && low !== depth ? ` (the intervals of the single blocks allow ${low} to ${depth})` : "";
    const trained = decision.trained[depth];
    shown.textContent = reached ? `Threshold ${text}: the attention rule says ${blocks}${between}.`
      : `Threshold ${text}: no block reaches it${low < total ? " with its whole interval" : ""}; the attention rule says all ${total} blocks.`;
    if (trained) shown.textContent += ` ${trained}`;
    else if (depth < total) shown.textContent += " A network of this depth was not trained in this study.";
    slider.setAttribute("aria-valuetext", shown.textContent);
  };
  slider.addEventListener("input", show);
  panel.querySelector("button").addEventListener("click", () => { slider.value = decision.threshold; show(); });
  panel.hidden = false;
  show();
}
