"use strict";

/* The embedded attention of one network: unpacks it, reads rows, and computes rollout and measures. */
class Attention {
  static ENDS = 65535;
  static LEVELS = 15;

  /* `text` is base64 of: length of the header (uint32, little-endian), header (JSON), sections, each deflated. */
  static async read(text) {
    const raw = atob(text.trim());
    const bytes = new Uint8Array(raw.length);
    for (let i = 0; i < raw.length; i += 1) bytes[i] = raw.charCodeAt(i);
    const length = new DataView(bytes.buffer).getUint32(0, true);
    const header = JSON.parse(new TextDecoder().decode(bytes.subarray(4, 4 + length)));
    let offset = 4 + length;
    const parts = Object.entries(header.sections).map(async ([name, size]) => {
      const stream = new Blob([bytes.subarray(offset, (offset += size))]).stream().pipeThrough(new DecompressionStream("deflate"));
      return [name, new Uint8Array(await new Response(stream).arrayBuffer())];
    });
    return new Attention(header, Object.fromEntries(await Promise.all(parts)));
  }

  constructor(header, sections) {
    Object.assign(this, { header, title: header.title, grid: header.grid, size: header.size, slices: header.slices });
    this.patches = this.grid[0] * this.grid[1];
    this.variants = header.variants;
    this.sections = sections;
    this.tables = new Map();
    this.squares = Float32Array.from({ length: 16 }, (_, level) => (level / Attention.LEVELS) ** 2);
    this.#measureGrid();
  }

  #measureGrid() {
    const n = this.patches;
    const w = this.grid[1];
    this.far = new Float32Array(n * n);
    let sum = 0;
    for (let i = 0; i < n; i += 1) {
      for (let j = 0; j < n; j += 1) {
        const far = Math.hypot(Math.floor(i / w) - Math.floor(j / w), (i % w) - (j % w));
        this.far[i * n + j] = far;
        sum += far;
      }
    }
    this.uniform = sum / (n * n);
  }

  variant(blocks) {
    return this.variants.find((one) => one.blocks === blocks);
  }

  heads(blocks, slice) {
    return slice === 0 ? this.variant(blocks).heads : [];
  }

  /* Grey slice, reference or prediction: one byte per pixel; undefined if it is not embedded. */
  picture(name, slice) {
    return this.sections[`${name}-${slice}`];
  }

  /* Section and index of a map. Head 0 is the average, single heads count from 1; blocks count from 1. */
  #where(blocks, slice, block, head) {
    if (head === 0) return { name: `mean-${blocks}-${slice}`, map: block - 1 };
    const before = this.variant(blocks).heads.slice(0, block - 1).reduce((sum, heads) => sum + heads, 0);
    return { name: `heads-${blocks}-0`, map: before + head - 1 };
  }

  #section(name) {
    if (!this.tables.has(name)) {
      const bytes = this.sections[name];
      const half = Math.ceil(this.patches / 2);
      const rows = bytes.length / (4 + half);
      this.tables.set(name, { ends: new Uint16Array(bytes.buffer, bytes.byteOffset, rows * 2), levels: bytes.subarray(rows * 4), half });
    }
    return this.tables.get(name);
  }

  /* Write the softmax row of `patch` to `out`. */
  row(blocks, slice, block, head, patch, out) {
    const { name, map } = this.#where(blocks, slice, block, head);
    const { ends, levels, half } = this.#section(name);
    const n = this.patches;
    const place = map * n + patch;
    const low = (ends[2 * place] / Attention.ENDS) ** 2;
    const span = (ends[2 * place + 1] / Attention.ENDS) ** 2 - low;
    let sum = 0;
    for (let j = 0; j < n; j += 1) {
      const pair = levels[place * half + (j >> 1)];
      out[j] = low + this.squares[j & 1 ? pair >> 4 : pair & 15] * span;
      sum += out[j];
    }
    for (let j = 0; j < n; j += 1) out[j] /= sum;
    return out;
  }

  map(blocks, slice, block, head) {
    const n = this.patches;
    const all = new Float32Array(n * n);
    for (let patch = 0; patch < n; patch += 1) this.row(blocks, slice, block, head, patch, all.subarray(patch * n, (patch + 1) * n));
    return all;
  }

  /* Maps of all blocks on one slice. The last result is kept. */
  maps(blocks, slice, head) {
    const key = `${blocks} ${slice} ${head}`;
    if (this.kept?.key !== key) {
      this.kept = { key, maps: Array.from({ length: blocks }, (_, i) => this.map(blocks, slice, i + 1, head)), rolled: null };
    }
    return this.kept.maps;
  }

  /* Write the row of `patch` in the rollout ½(A + I) of blocks `last`, …, 1 to `out`, without products of whole matrices. */
  rolledRow(blocks, slice, last, patch, out) {
    const n = this.patches;
    const maps = this.maps(blocks, slice, 0);
    let now = new Float32Array(n);
    now[patch] = 1;
    for (let block = last; block >= 1; block -= 1) {
      const map = maps[block - 1];
      const next = new Float32Array(n);
      for (let i = 0; i < n; i += 1) {
        const weight = now[i] / 2;
        if (weight === 0) continue;
        next[i] += weight;
        for (let j = 0, at = i * n; j < n; j += 1, at += 1) next[j] += weight * map[at];
      }
      now = next;
    }
    out.set(now);
    return out;
  }

  rolledMaps(blocks, slice) {
    const n = this.patches;
    this.maps(blocks, slice, 0);
    if (!this.kept.rolled) {
      let before = null;
      this.kept.rolled = this.kept.maps.map((map) => {
        const step = before ? new Float32Array(n * n) : map.map((value, at) => value / 2 + (at % (n + 1) === 0 ? 0.5 : 0));
        if (before) {
          for (let i = 0; i < n; i += 1) {
            const into = step.subarray(i * n, (i + 1) * n);
            for (let k = 0; k < n; k += 1) {
              const weight = map[i * n + k] / 2 + (i === k ? 0.5 : 0);
              const from = k * n;
              for (let j = 0; j < n; j += 1) into[j] += weight * before[from + j];
            }
          }
        }
        before = step;
        return step;
      });
    }
    return this.kept.rolled;
  }

  /* The attention measures of the row of one patch (docs/definitions.md). */
  measure(row, patch) {
    const n = this.patches;
    const w = this.grid[1];
    const [y, x] = [Math.floor(patch / w), patch % w];
    let [distance, neighbours, spread] = [0, 0, 0];
    for (let j = 0; j < n; j += 1) {
      distance += row[j] * this.far[patch * n + j];
      if (row[j] > 0) spread -= row[j] * Math.log(row[j]);
      if (j !== patch && Math.max(Math.abs(Math.floor(j / w) - y), Math.abs((j % w) - x)) <= 1) neighbours += row[j];
    }
    return { distance, self: row[patch], neighbours, entropy: spread / Math.log(n) };
  }

  /* Attention distance of uniform attention from a patch. */
  uniformDistance(patch) {
    const n = this.patches;
    return this.far.subarray(patch * n, (patch + 1) * n).reduce((sum, far) => sum + far, 0) / n;
  }

  /* Mean globality over all patches of a map. */
  globality(map) {
    let sum = 0;
    for (let at = 0; at < map.length; at += 1) sum += map[at] * this.far[at];
    return sum / this.patches / this.uniform;
  }
}
