"use strict";

/* Draws arrays on canvases: attention in colour over a grey slice, outlines of labels, mosaics. */
class Painter {
  constructor(colours, classes) {
    this.colours = colours;
    this.classes = classes;
    this.kept = new Map();
  }

  /* Make a value once per key and keep it. */
  #once(key, make) {
    if (!this.kept.has(key)) this.kept.set(key, make());
    return this.kept.get(key);
  }

  static canvas(width, height) {
    const canvas = document.createElement("canvas");
    canvas.width = width;
    canvas.height = height;
    return canvas;
  }

  grey(key, bytes, [height, width]) {
    return this.#once(`grey ${key}`, () => {
      const canvas = Painter.canvas(width, height);
      const context = canvas.getContext("2d");
      const pixels = context.createImageData(width, height);
      for (let i = 0; i < bytes.length; i += 1) {
        pixels.data.fill(bytes[i], 4 * i, 4 * i + 3);
        pixels.data[4 * i + 3] = 255;
      }
      context.putImageData(pixels, 0, 0);
      return canvas;
    });
  }

  /* Edges between labels, along the pixel borders: one path per class, in pixels of the slice. */
  outlines(key, bytes, [height, width]) {
    return this.#once(`outlines ${key}`, () => {
      const paths = new Map();
      const at = (y, x) => (y < 0 || x < 0 || y >= height || x >= width ? 0 : bytes[y * width + x]);
      const edge = (label, x0, y0, x1, y1) => {
        if (!label) return;
        if (!paths.has(label)) paths.set(label, new Path2D());
        paths.get(label).moveTo(x0, y0);
        paths.get(label).lineTo(x1, y1);
      };
      for (let y = 0; y <= height; y += 1) {
        for (let x = 0; x <= width; x += 1) {
          const [here, left, above] = [at(y, x), at(y, x - 1), at(y - 1, x)];
          if (here !== left) { edge(here, x, y, x, y + 1); edge(left, x, y, x, y + 1); }
          if (here !== above) { edge(here, x, y, x + 1, y); edge(above, x, y, x + 1, y); }
        }
      }
      return paths;
    });
  }

  /* A row of attention as an image, one pixel per patch. Over a slice, weak attention is more transparent. */
  heat(row, [h, w], top, over) {
    const canvas = this.#once(`heat ${h} ${w}`, () => Painter.canvas(w, h));
    const context = canvas.getContext("2d");
    const pixels = context.createImageData(w, h);
    for (let i = 0; i < row.length; i += 1) {
      const share = Math.min(1, row[i] / top);
      const colour = 3 * Math.round(255 * share);
      for (let channel = 0; channel < 3; channel += 1) pixels.data[4 * i + channel] = this.colours[colour + channel];
      pixels.data[4 * i + 3] = over ? 255 * (0.3 + 0.55 * share) : 255;
    }
    context.putImageData(pixels, 0, 0);
    return canvas;
  }

  /* Draw slice, attention and a frame around the query patch. */
  look(canvas, slice, row, grid, patch, top, thick) {
    const context = canvas.getContext("2d");
    const { width, height } = canvas;
    context.clearRect(0, 0, width, height);
    if (slice) {
      context.imageSmoothingEnabled = true;
      context.drawImage(slice, 0, 0, width, height);
    }
    context.imageSmoothingEnabled = false;
    context.drawImage(this.heat(row, grid, top, Boolean(slice)), 0, 0, width, height);
    const [cell, line] = [[width / grid[1], height / grid[0]], thick];
    const [x, y] = [(patch % grid[1]) * cell[0], Math.floor(patch / grid[1]) * cell[1]];
    for (const [colour, size] of [["#000", line * 2], ["#fff", line]]) {
      context.strokeStyle = colour;
      context.lineWidth = size;
      context.strokeRect(x, y, cell[0], cell[1]);
    }
  }

  lattice(canvas, [h, w]) {
    const context = canvas.getContext("2d");
    context.strokeStyle = "rgb(255 255 255 / 0.22)";
    context.lineWidth = 1;
    context.beginPath();
    for (let row = 1; row < h; row += 1) { context.moveTo(0, (row * canvas.height) / h); context.lineTo(canvas.width, (row * canvas.height) / h); }
    for (let column = 1; column < w; column += 1) { context.moveTo((column * canvas.width) / w, 0); context.lineTo((column * canvas.width) / w, canvas.height); }
    context.stroke();
  }

  /* Draw outlines with a dark edge: the reference in white, a prediction in the colours of its classes. */
  trace(canvas, paths, [height, width], reference) {
    const context = canvas.getContext("2d");
    context.save();
    context.scale(canvas.width / width, canvas.height / height);
    context.lineCap = "round";
    for (const [label, path] of paths) {
      context.setLineDash([]);
      context.strokeStyle = "rgb(0 0 0 / 0.65)";
      context.lineWidth = (3.6 * width) / canvas.width;
      context.stroke(path);
      context.strokeStyle = reference ? "#fff" : this.classes[(label - 1) % this.classes.length];
      context.lineWidth = (1.8 * width) / canvas.width;
      context.stroke(path);
    }
    context.restore();
  }

  /* Draw all maps of a block, each at the position of its patch (paper, figures 4 and 5). */
  mosaic(canvas, map, [h, w], topOf, patch) {
    const n = h * w;
    canvas.width = w * (w + 1) - 1;
    canvas.height = h * (h + 1) - 1;
    const context = canvas.getContext("2d");
    const pixels = context.createImageData(canvas.width, canvas.height);
    for (let query = 0; query < n; query += 1) {
      const row = map.subarray(query * n, (query + 1) * n);
      const top = topOf(row);
      const [y0, x0] = [Math.floor(query / w) * (h + 1), (query % w) * (w + 1)];
      for (let key = 0; key < n; key += 1) {
        const at = 4 * ((y0 + Math.floor(key / w)) * canvas.width + x0 + (key % w));
        const colour = 3 * Math.round(255 * Math.min(1, row[key] / top));
        for (let channel = 0; channel < 3; channel += 1) pixels.data[at + channel] = this.colours[colour + channel];
        pixels.data[at + 3] = 255;
      }
    }
    context.putImageData(pixels, 0, 0);
    context.strokeStyle = "#e69f00";
    context.lineWidth = 1;
    context.strokeRect((patch % w) * (w + 1) - 0.5, Math.floor(patch / w) * (h + 1) - 0.5, w + 1, h + 1);
  }
}
