"use strict";

/* Saves a part of the page as one SVG or PNG, with its images, charts and text in the same layout. */
const saving = (() => {
  const STYLES = ["fill", "stroke", "stroke-width", "stroke-dasharray", "stroke-linejoin", "opacity", "font-family",
    "font-size", "font-weight", "text-anchor"];
  const escape = (text) => text.replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);
  const clean = (text) => text.replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-+|-+$/g, "").slice(0, 80) || "vitrim";
  const round = (number) => Math.round(number * 100) / 100;

  function chart(svg) {
    const copy = svg.cloneNode(true);
    const originals = [svg, ...svg.querySelectorAll("*")];
    [copy, ...copy.querySelectorAll("*")].forEach((element, index) => {
      const style = getComputedStyle(originals[index]);
      for (const name of STYLES) element.setAttribute(name, style.getPropertyValue(name));
      element.removeAttribute("class");
      element.removeAttribute("data-frame");
    });
    return copy;
  }

  /* Lines of a text node after line breaking: words whose boxes have the same top are on one line. */
  function lines(node) {
    const found = [];
    const range = document.createRange();
    for (const word of node.data.matchAll(/\S+/g)) {
      range.setStart(node, word.index);
      range.setEnd(node, word.index + word[0].length);
      const box = range.getBoundingClientRect();
      const last = found.at(-1);
      if (last && Math.abs(last.top - box.top) < 2) Object.assign(last, { text: `${last.text} ${word[0]}`, right: box.right });
      else if (box.width) found.push({ text: word[0], left: box.left, top: box.top, right: box.right, height: box.height });
    }
    return found;
  }

  function drawing(root) {
    const frame = root.getBoundingClientRect();
    const parts = [];
    const drawn = { top: Infinity, bottom: 0 };
    const seen = (box) => {
      drawn.top = Math.min(drawn.top, box.top - frame.top);
      drawn.bottom = Math.max(drawn.bottom, box.top - frame.top + box.height);
    };
    const place = (box) => {
      seen(box);
      return `x="${round(box.left - frame.left)}" y="${round(box.top - frame.top)}" ` +
        `width="${round(box.width)}" height="${round(box.height)}"`;
    };
    const image = (box, address, pixels) => parts.push(
      `<image ${place(box)} href="${escape(address)}" preserveAspectRatio="none"` +
      `${pixels ? ' style="image-rendering: pixelated"' : ""}/>`);

    function visit(node) {
      if (node.nodeType === Node.TEXT_NODE) {
        if (!node.data.trim()) return;
        const style = getComputedStyle(node.parentElement);
        for (const { text, left, top, right, height } of lines(node)) {
          seen({ top, height });
          parts.push(`<text x="${round(left - frame.left)}" y="${round(top - frame.top + height * 0.78)}" ` +
            `font-family="${escape(style.fontFamily)}" font-size="${style.fontSize}" font-weight="${style.fontWeight}" ` +
            `fill="${style.color}" textLength="${round(right - left)}" lengthAdjust="spacingAndGlyphs">${escape(text)}</text>`);
        }
        return;
      }
      if (node.nodeType !== Node.ELEMENT_NODE || node.closest("[data-unsaved]")) return;
      const style = getComputedStyle(node);
      const box = node.getBoundingClientRect();
      if (style.display === "none" || style.visibility === "hidden" || !box.width || box.width < 2) return;
      if (node.localName === "svg") {
        seen(box);
        const copy = chart(node);
        for (const name of ["width", "height"]) copy.setAttribute(name, round(box[name]));
        copy.setAttribute("x", round(box.left - frame.left));
        copy.setAttribute("y", round(box.top - frame.top));
        parts.push(new XMLSerializer().serializeToString(copy));
        return;
      }
      if (!/^(rgba\(0, 0, 0, 0\)|transparent)$/.test(style.backgroundColor)) {
        parts.push(`<rect ${place(box)} fill="${style.backgroundColor}"/>`);
      }
      const background = style.backgroundImage.match(/^url\("(data:[^"]+)"\)$/);
      if (background) image(box, background[1], false);
      const pixels = style.imageRendering === "pixelated";
      if (node.localName === "img") image(box, node.src, pixels);
      else if (node.localName === "canvas") image(box, node.toDataURL("image/png"), pixels);
      else node.childNodes.forEach(visit);
    }

    const paper = getComputedStyle(document.body).backgroundColor;
    visit(root);
    const edge = 12;
    const [width, height] = [Math.ceil(frame.width) + 2 * edge, Math.ceil(drawn.bottom - drawn.top) + 2 * edge];
    const box = `x="${-edge}" y="${round(drawn.top) - edge}" width="${width}" height="${height}"`;
    return {
      width,
      height,
      svg: `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" ` +
        `viewBox="${-edge} ${round(drawn.top) - edge} ${width} ${height}"><rect ${box} fill="${paper}"/>${parts.join("")}</svg>`,
    };
  }

  function download(blob, name) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  async function save(root, name, kind) {
    const { svg, width, height } = drawing(root);
    const file = `${clean(name)}.${kind}`;
    const vector = new Blob([svg], { type: "image/svg+xml" });
    if (kind === "svg") return download(vector, file);
    const picture = new Image();
    picture.src = URL.createObjectURL(vector);
    await picture.decode();
    const canvas = document.createElement("canvas");
    const sharp = Math.min(2, 8000 / Math.max(width, height));
    canvas.width = Math.round(width * sharp);
    canvas.height = Math.round(height * sharp);
    canvas.getContext("2d").drawImage(picture, 0, 0, canvas.width, canvas.height);
    URL.revokeObjectURL(picture.src);
    return download(await new Promise((done) => canvas.toBlob(done, "image/png")), file);
  }

  return { save };
})();

/* Add two buttons to each element with data-save="name of the file". */
for (const view of document.querySelectorAll("[data-save]")) {
  const bar = document.createElement("div");
  bar.className = "save";
  bar.dataset.unsaved = "";
  for (const kind of ["png", "svg"]) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = kind.toUpperCase();
    button.setAttribute("aria-label", `Save ${view.dataset.save} as ${kind.toUpperCase()}`);
    button.addEventListener("click", () => saving.save(view, view.dataset.save, kind));
    bar.append(button);
  }
  view.append(bar);
}
