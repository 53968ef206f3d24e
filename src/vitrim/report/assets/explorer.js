"use strict";

/* The explorer shows which patches the chosen patch attends to, in every block. */
(() => {
  const root = document.getElementById("explorer");
  if (!root) return;
  const part = (name) => root.querySelector(`[data-part="${name}"]`);
  const control = (name) => root.querySelector(`[name="${name}"]`);
  const sources = [...document.querySelectorAll("script[data-network]")];
  const painter = new Painter(
    Uint8Array.from(atob(root.dataset.colours), (character) => character.charCodeAt(0)),
    JSON.parse(root.dataset.classes),
  );
  const big = part("big");
  const opened = new Map();
  const state = { patch: null, block: 1, held: false, rows: [] };
  let net = null;

  const option = (value, text) => Object.assign(document.createElement("option"), { value, textContent: text });
  const fill = (select, options, wanted) => {
    select.replaceChildren(...options);
    if (options.some((one) => one.value === wanted)) select.value = wanted;
  };
  const blocks = () => Number(control("depth").value);
  const slice = () => Number(control("slice").value);
  const head = () => (rolled() ? 0 : Number(control("head").value));
  const rolled = () => control("kind").value === "rollout";
  const mosaic = () => control("view").value === "mosaic";
  const ticked = (name) => control(name).checked;
  const count = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;
  const UNIFORM = 0.98;
  const shared = () => Number(root.dataset.times) / net.patches;
  const percent = (share) => `${(100 * share).toFixed(1)} %`;

  async function open(index) {
    const source = sources[index];
    if (!opened.has(index)) opened.set(index, Attention.read(source.textContent));
    net = await opened.get(index);
    state.decided = source.dataset.decided === "" ? null : Number(source.dataset.decided);
    part("note").textContent = source.dataset.note;
    fill(control("depth"), net.variants.map((one, place) => option(String(one.blocks), `${count(one.blocks, "block")}${place ? " (truncated)" : " (full)"}`)));
    fill(control("slice"), net.slices.map((one, place) => option(String(place), `${one.case}, slice ${one.slice}`)), control("slice").value);
    const [height, width] = net.size;
    const sharp = Math.max(1, Math.round(672 / width));
    big.width = width * sharp;
    big.height = height * sharp;
    root.style.setProperty("--ratio", `${width} / ${height}`);
    if (state.patch === null || state.patch >= net.patches) {
      state.patch = Math.floor(net.grid[0] / 2) * net.grid[1] + Math.floor(net.grid[1] / 2);
    }
    change();
  }

  /* After a change of network, depth, slice, kind or view: offer the heads and blocks that exist. */
  function change() {
    const total = blocks();
    state.block = Math.min(state.block, total);
    const heads = Math.max(0, ...net.heads(total, slice()));
    const names = [option("0", heads || !net.variant(total).heads.length ? "average" : "average (single heads: first slice)")];
    for (let number = 1; number <= heads; number += 1) names.push(option(String(number), `head ${number}`));
    fill(control("head"), names, control("head").value);
    control("head").disabled = rolled() || names.length === 1;
    control("block").disabled = mosaic();
    fill(control("block"), Array.from({ length: total }, (_, i) => option(String(i + 1), String(i + 1))), String(state.block));
    control("reference").disabled = !net.picture("reference", slice());
    control("prediction").disabled = !net.picture(`prediction-${total}`, slice());
    thumbs(total);
    part("patch-view").hidden = mosaic();
    part("mosaic-view").hidden = !mosaic();
    state.means = null;
    draw();
  }

  function thumbs(total) {
    const strip = part("strip");
    if (strip.children.length !== total) {
      strip.replaceChildren(...Array.from({ length: total }, (_, place) => {
        const button = document.createElement("button");
        button.type = "button";
        button.className = "thumb";
        const canvas = Painter.canvas(168, Math.round((168 * net.size[0]) / net.size[1]));
        button.append(canvas, document.createElement("span"));
        button.addEventListener("click", () => choose(place + 1));
        return button;
      }));
    }
  }

  function choose(block) {
    state.block = Math.min(blocks(), Math.max(1, block));
    control("block").value = String(state.block);
    draw();
  }

  function read() {
    const total = blocks();
    for (let block = 1; block <= total; block += 1) {
      const row = (state.rows[block - 1] ??= new Float32Array(net.patches));
      const out = row.length === net.patches ? row : (state.rows[block - 1] = new Float32Array(net.patches));
      if (rolled()) net.rolledRow(total, slice(), block, state.patch, out);
      else net.row(total, slice(), block, head(), state.patch, out);
    }
    state.rows.length = total;
  }

  /* Draw everything that depends on the patch. data-milliseconds holds the time, for benchmarks/explorer.py. */
  function draw() {
    const start = performance.now();
    if (mosaic()) drawMosaics();
    else drawPatch();
    root.dataset.milliseconds = (performance.now() - start).toFixed(2);
    root.dataset.state = `${net.title} ${blocks()} ${slice()} ${control("kind").value} ${head()} ${state.block} ${state.patch}`;
  }

  function drawPatch() {
    read();
    const own = control("scale").value === "own";
    const grey = ticked("image") ? painter.grey(`${net.title} ${slice()}`, net.picture("image", slice()), net.size) : null;
    const top = (row) => (own ? Math.max(...row) : shared());
    [...part("strip").children].forEach((button, place) => {
      const [canvas, words] = button.children;
      const row = state.rows[place];
      painter.look(canvas, grey, row, net.grid, state.patch, top(row), 1.5);
      const cut = state.decided !== null && blocks() > state.decided && place + 1 > state.decided ? ", removed" : "";
      const flat = net.measure(row, state.patch).entropy >= UNIFORM ? ", as uniform" : "";
      words.textContent = `Block ${place + 1}${cut}: ${own ? "0 to" : "at most"} ${percent(Math.max(...row))}${flat}`;
      canvas.dataset.top = top(row);
      button.setAttribute("aria-pressed", String(place + 1 === state.block));
    });
    const row = state.rows[state.block - 1];
    painter.look(big, grey, row, net.grid, state.patch, top(row), 3);
    if (ticked("lattice")) painter.lattice(big, net.grid);
    for (const name of ["reference", `prediction-${blocks()}`]) {
      const labels = net.picture(name, slice());
      if (labels && ticked(name.split("-")[0])) {
        const paths = painter.outlines(`${net.title} ${name} ${slice()}`, labels, net.size);
        painter.trace(big, paths, net.size, name === "reference");
      }
    }
    const end = top(row);
    part("top").textContent = `${percent(end)}${own ? "" : " or more"}`;
    part("mark").style.left = `${100 / net.patches / end}%`;
    part("uniform").textContent = `The mark on the scale is uniform attention: ${percent(1 / net.patches)} for each of ${net.patches} patches.`;
    measure();
  }

  /* Means over all patches are slow, so they are computed after the rest is drawn. */
  function averages() {
    clearTimeout(state.waiting);
    state.waiting = setTimeout(() => {
      const maps = rolled() ? net.rolledMaps(blocks(), slice()) : net.maps(blocks(), slice(), head());
      state.means = maps.map((map) => net.globality(map));
      if (!mosaic()) measure();
    }, 30);
  }

  function measure() {
    const measures = state.rows.map((row) => net.measure(row, state.patch));
    if (!state.means) averages();
    part("globality-of").textContent = rolled() ? "Globality of the rollout" : "Globality of the block";
    const body = part("measures");
    body.replaceChildren(...measures.map((one, place) => {
      const line = document.createElement("tr");
      const cells = [String(place + 1), one.distance.toFixed(2), state.means ? state.means[place].toFixed(3) : "…",
        percent(one.self), percent(one.neighbours), `${one.entropy.toFixed(3)}${one.entropy >= UNIFORM ? " as uniform" : ""}`];
      line.append(...cells.map((text, column) => {
        const cell = document.createElement(column ? "td" : "th");
        if (!column) cell.scope = "row";
        cell.textContent = text;
        return cell;
      }));
      line.className = place + 1 === state.block ? "chosen" : "";
      return line;
    }));
    const one = measures[state.block - 1];
    const [row, column] = [Math.floor(state.patch / net.grid[1]) + 1, (state.patch % net.grid[1]) + 1];
    const who = rolled() ? `rollout up to block ${state.block}` : `block ${state.block}, ${head() ? `head ${head()}` : "average of the heads"}`;
    part("words").textContent = `Patch in row ${row}, column ${column}; ${who}: ${percent(one.self)} of its attention goes to ` +
      `itself, ${percent(one.neighbours)} to the patches around it. Its mean attention distance is ${one.distance.toFixed(1)} ` +
      `patches; that of uniform attention from here is ${net.uniformDistance(state.patch).toFixed(1)} ` +
      `(${one.entropy >= UNIFORM ? "attention is as uniform" : `entropy ${one.entropy.toFixed(2)}`}).` +
      `${state.held ? " Held: click the patch again to release it." : ""}`;
  }

  function drawMosaics() {
    const chosen = control("mosaic-blocks").value === "all" ? Array.from({ length: blocks() }, (_, i) => i + 1)
      : JSON.parse(root.dataset.mosaic).filter((block) => block <= blocks());
    const maps = rolled() ? net.rolledMaps(blocks(), slice()) : net.maps(blocks(), slice(), head());
    const sheet = part("mosaics");
    while (sheet.children.length > chosen.length) sheet.lastChild.remove();
    while (sheet.children.length < chosen.length) {
      const figure = document.createElement("figure");
      const canvas = document.createElement("canvas");
      canvas.className = "pixels";
      canvas.addEventListener("click", (event) => { state.patch = pointed(canvas, event); draw(); });
      figure.append(document.createElement("figcaption"), canvas);
      sheet.append(figure);
    }
    chosen.forEach((block, place) => {
      const [words, canvas] = sheet.children[place].children;
      const map = maps[block - 1];
      let topOf = (row) => Math.max(...row);
      let range = "each map from 0 to its largest value";
      if (control("scale").value !== "own") {
        topOf = shared;
        range = `0 to ${percent(shared())} or more; uniform is ${percent(1 / net.patches)}`;
      }
      painter.mosaic(canvas, map, net.grid, topOf, state.patch);
      words.textContent = `Block ${block}: ${range}`;
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", `Attention of every patch in block ${block}`);
    });
  }

  function pointed(canvas, event) {
    const box = canvas.getBoundingClientRect();
    const place = (share, cells) => Math.min(cells - 1, Math.max(0, Math.floor(share * cells)));
    return place((event.clientY - box.top) / box.height, net.grid[0]) * net.grid[1] +
      place((event.clientX - box.left) / box.width, net.grid[1]);
  }

  function look(patch) {
    if (patch !== state.patch) {
      state.patch = patch;
      draw();
    }
  }

  big.addEventListener("pointermove", (event) => {
    if (net && !state.held && (event.pointerType === "mouse" || event.buttons)) look(pointed(big, event));
  });
  big.addEventListener("pointerdown", (event) => {
    if (!net) return;
    if (event.pointerType === "mouse") {
      const patch = pointed(big, event);
      state.held = !(state.held && patch === state.patch);
      state.patch = patch;
      draw();
    } else look(pointed(big, event));
  });
  big.addEventListener("keydown", (event) => {
    if (!net || event.ctrlKey || event.metaKey || event.altKey) return;
    const [h, w] = net.grid;
    const [y, x] = [Math.floor(state.patch / w), state.patch % w];
    const moves = { ArrowLeft: [y, x - 1], ArrowRight: [y, x + 1], ArrowUp: [y - 1, x], ArrowDown: [y + 1, x], Home: [0, 0], End: [h - 1, w - 1] };
    if (event.key in moves) {
      const [row, column] = moves[event.key];
      look(Math.min(h - 1, Math.max(0, row)) * w + Math.min(w - 1, Math.max(0, column)));
    } else if (event.key === "PageDown") choose(state.block + 1);
    else if (event.key === "PageUp") choose(state.block - 1);
    else return;
    event.preventDefault();
  });

  control("network").addEventListener("change", (event) => open(Number(event.target.value)).catch(failed));
  for (const name of ["depth", "slice", "kind", "view"]) control(name).addEventListener("change", change);
  for (const name of ["scale", "reference", "prediction", "image", "lattice", "mosaic-blocks"]) control(name).addEventListener("change", draw);
  control("head").addEventListener("change", () => { state.means = null; draw(); });
  control("block").addEventListener("change", (event) => choose(Number(event.target.value)));

  function failed(error) {
    part("status").textContent = `The explorer cannot be shown in this browser: ${error.message}`;
    part("status").hidden = false;
  }

  fill(control("network"), sources.map((source, place) => option(String(place), source.dataset.title)));
  if (!sources.length) return;
  if (!("DecompressionStream" in window)) {
    failed(new Error("it has no DecompressionStream. Use a browser version from 2023 or later."));
    return;
  }
  open(0).then(() => {
    part("status").hidden = true;
    part("stage").hidden = false;
    root.dataset.ready = "yes";
  }).catch(failed);
})();
