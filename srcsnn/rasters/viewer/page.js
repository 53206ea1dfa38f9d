// The page: what is shown of the file, and what is read out.

const run = JSON.parse(document.getElementById("header").textContent);
const layers = run.layers.map((about, index) => new Layer(index, about, run));
const at = (id) => document.getElementById(id);
const state = { layer: null, order: "neuron", channel: null, t0: 0, t1: run.steps, r0: 0, r1: 1,
  cross: null, spikes: null, exact: true, drawMs: 0, note: "" };
window.__state = state;
window.__ready = false;

const number = (value) => value.toLocaleString("en");
const percent = (share) => `${(100 * share).toFixed(1)} %`;
const stepOf = (row) => row * run.every;

// Rows of the raster: which neuron or channel is in each.
function rowsOf(layer) {
  const first = state.channel === null ? 0 : state.channel * layer.positions;
  const count = state.channel === null ? layer.neurons : layer.positions;
  if (state.order === "channel")
    return { rows: state.channel === null ? layer.channels : 1, first, count };
  return { rows: count, first, count };
}

// Neurons in the order of the rows; null where they are numbered so.
const rankedOf = (layer) => (state.order === "rate" ? layer.byRate(state.channel) : null);

// The neuron in a row, or null where rows are channels.
function neuronAt(layer, row) {
  if (state.order === "channel") return null;
  return rankedOf(layer)?.[row] ?? rowsOf(layer).first + row;
}

// The rows of a picture of some height: from which neuron to which.
function pictureRows(layer, height) {
  const ranked = rankedOf(layer);
  const first = ranked ? 0 : rowsOf(layer).first;
  const unit = state.order === "channel" ? layer.positions : 1;
  const rows = state.r1 - state.r0;
  const edges = Int32Array.from({ length: height + 1 }, (_, row) =>
    first + unit * (state.r0 + Math.ceil((row * rows) / height)));
  return { edges, ranked };
}

let working = null; // what is being worked out while nothing else is to do

// Blocks in every order of rows, so that they are there when they are asked for.
function workAhead(layer) {
  const work = (working = layer.workAhead());
  requestIdleCallback(function go(idle) {
    do {
      if (working !== work) return;
      if (work.next().done) working = null;
    } while (working && idle.timeRemaining() > 10);
    if (working) requestIdleCallback(go);
  });
}

// For each channel the row of the picture where only counts are there, or -1.
function placeChannels(layer, height) {
  const rowOf = new Int32Array(layer.channels).fill(-1);
  const { rows } = rowsOf(layer);
  const from = state.channel ?? 0;
  const many = state.channel === null ? layer.channels : 1;
  const top = (state.r0 / rows) * many;
  const scale = height / (((state.r1 - state.r0) / rows) * many);
  for (let c = 0; c < many; c++) {
    const row = Math.floor((c - top) * scale);
    if (row >= 0 && row < height) rowOf[from + c] = row;
  }
  return rowOf;
}

const sum = (values) => values.reduce((total, value) => total + value, 0);

function draw() {
  const layer = state.layer;
  const started = performance.now();
  const missing = layer.missing(state.t0, state.t1);
  if (missing.length && layer.canAskFor(missing)) {
    at("window").textContent = "Reading the file ...";
    layer.ask(missing).then(draw, (error) => {
      if (layer === state.layer) at("window").textContent = `These spikes could not be read: ${error.message}`;
    });
    return;
  }
  const { context, width, height } = cleared(at("raster"));
  const box = inner(width, height);
  const cols = Math.min(Math.floor(box.width), state.t1 - state.t0);
  const cells = missing.length ? fromCounts(layer, box, cols) : fromSpikes(layer, box, cols);
  const { values, rates, top, total } = cellRates(cells, cols);
  paint(context, values, cells.sizes.length, cols, box, top || 1);
  drawScale(at("colours"), at("top"), top);
  axes(context, layer, box, missing.length > 0);
  drawPopulation(at("population"), rates, state.t0, state.t1, run.every, state.cross?.step ?? null);
  drawCross(context, box);
  state.spikes = Math.round(total);
  state.exact = !missing.length || (state.channel === null && state.r0 === 0 && state.r1 === rowsOf(layer).rows);
  if (missing.length && state.exact) state.spikes = layer.spikesIn(state.t0, state.t1);
  state.drawMs = performance.now() - started;
  describe(layer, missing.length > 0);
}

function fromSpikes(layer, box, cols) {
  const rows = pictureRows(layer, Math.min(Math.floor(box.height), state.r1 - state.r0));
  const sizes = rows.edges.slice(1).map((edge, row) => edge - rows.edges[row]);
  return { counts: layer.tally(state.t0, state.t1, rows, cols), sizes };
}

function fromCounts(layer, box, cols) {
  const { rows } = rowsOf(layer);
  const many = state.channel === null ? layer.channels : 1;
  const seen = Math.max(1, Math.ceil((many * (state.r1 - state.r0)) / rows));
  const height = Math.min(Math.floor(box.height), seen);
  const rowOf = placeChannels(layer, height);
  const sizes = new Uint32Array(height);
  for (const row of rowOf) if (row >= 0) sizes[row] += layer.positions;
  return { counts: layer.tallyChannels(state.t0, state.t1, rowOf, height, cols), sizes };
}

// Spikes per neuron and step in each cell and in each column, the largest, and how many in all.
function cellRates({ counts, sizes }, cols) {
  const steps = new Uint32Array(cols);
  const scale = cols / (state.t1 - state.t0);
  for (let step = 0; step < state.t1 - state.t0; step++) steps[Math.floor(step * scale)]++;
  const neurons = sum(sizes) || 1;
  const values = new Float64Array(counts.length);
  const rates = new Float64Array(cols);
  let top = 0;
  let total = 0;
  for (let column = 0, i = 0; column < cols; column++)
    for (let row = 0; row < sizes.length; row++, i++) {
      rates[column] += counts[i];
      total += counts[i];
      const value = counts[i] / sizes[row] / steps[column]; // NaN where a row has no neuron
      values[row * cols + column] = value;
      if (value > top) top = value;
    }
  return { values, rates: rates.map((count, c) => count / neurons / steps[c]), top, total };
}

function axes(context, layer, box, countsAlone) {
  context.strokeStyle = ink("line");
  context.strokeRect(box.x - 0.5, box.y - 0.5, box.width + 1, box.height + 1);
  timeAxis(context, box, state.t0, state.t1, run.every);
  const { rows, first } = rowsOf(layer);
  const many = layer.channels > 1 && state.channel === null;
  if (state.order === "channel" || countsAlone) {
    const from = first / layer.positions;
    const scale = (state.channel === null ? layer.channels : 1) / rows;
    rowAxis(context, box, from + state.r0 * scale, from + state.r1 * scale, 1, "channel");
  } else if (state.order === "neuron" && many && state.r1 - state.r0 > layer.positions / 2) {
    rowAxis(context, box, first + state.r0, first + state.r1, layer.positions, "channel");
  } else {
    const shift = state.order === "neuron" ? first : 0;
    rowAxis(context, box, shift + state.r0, shift + state.r1, 1,
      state.order === "rate" ? "neuron, busiest first" : "neuron");
  }
}

function drawCross(context, box) {
  if (!state.cross) return;
  const { step, row } = state.cross;
  if (step < state.t0 || step >= state.t1 || row < state.r0 || row >= state.r1) return;
  const x = box.x + ((step + 0.5 - state.t0) / (state.t1 - state.t0)) * box.width;
  const y = box.y + ((row + 0.5 - state.r0) / (state.r1 - state.r0)) * box.height;
  context.strokeStyle = ink("mark");
  context.globalAlpha = 0.8;
  line(context, x, box.y, x, box.y + box.height);
  line(context, box.x, y, box.x + box.width, y);
  context.globalAlpha = 1;
}

function describe(layer, countsAlone) {
  const { rows, count } = rowsOf(layer);
  const unit = state.order === "channel" ? "channels" : "neurons";
  const shown = `${number(state.r1 - state.r0)} of ${number(rows)} ${unit}` +
    (state.channel === null ? "" : ` of channel ${state.channel}`) +
    (unit === "channels" ? ` (${number(count)} neurons)` : "");
  const last = stepOf(state.t1 - 1);
  const spikes = `${state.exact ? "" : "about "}${number(state.spikes)} spikes`;
  at("window").textContent = `${shown}; steps ${number(stepOf(state.t0))} to ${number(last)}; ${spikes} `;
  if (countsAlone) {
    const note = document.createElement("span");
    note.className = "note";
    note.textContent = layer.about.countsOnly
      ? "Only counts were recorded: rows are channels."
      : run.served
        ? "Too many spikes to ask for at once: rows are channels. Shorten the time."
        : "Not all spikes of these steps are in this page, only counts: rows are channels.";
    at("window").append(note);
  }
  state.note = at("window").querySelector(".note")?.textContent ?? "";
  at("raster").setAttribute("aria-label", `Layer ${layer.about.name}`);
}

function readCross() {
  const layer = state.layer;
  const { step, row } = state.cross;
  const neuron = neuronAt(layer, row);
  const words = [`step ${number(stepOf(step))}`];
  // What the rows of the picture are is decided for all of its steps.
  if (neuron === null || layer.missing(state.t0, state.t1).length) {
    const channel = state.channel ?? (state.order === "channel" ? row : Math.floor(row / layer.positions));
    words.push(`channel ${channel}`);
  } else {
    words.push(layer.place(neuron), layer.fires(step, neuron) ? "fires" : "silent");
    if (layer.totals) words.push(`rate ${layer.rate(neuron).toFixed(4)} / step`);
  }
  state.read = words.join(", ");
  at("read").textContent = state.read;
}

const tell = (text) => (at("read").textContent = text);

// Takes the cross-hair away, and what it read.
function leave() {
  state.cross = null;
  tell("");
}

function setOrder(order) {
  if (order === "rate" && !state.layer.totals) {
    document.querySelector(`input[value="${state.order}"]`).checked = true;
    return tell("Rates of this many neurons are not in the page.");
  }
  state.order = order;
  leave();
  document.querySelector(`input[value="${order}"]`).checked = true;
  show({ r0: 0, r1: rowsOf(state.layer).rows });
}

function setChannel(channel) {
  state.channel = channel;
  leave();
  at("channel").value = channel ?? "";
  show({ r0: 0, r1: rowsOf(state.layer).rows });
  if (state.layer.totals) drawMaps(at("maps"), state.layer, state.channel, focused);
}

let chosen = null; // the layer asked for last, which may still be on its way
async function openLayer(index) {
  const layer = (chosen = layers[index]);
  await layer.open();
  if (layer !== chosen) return;
  state.layer?.rest();
  state.layer = layer;
  state.channel = null;
  leave();
  focused = 0;
  at("channel").replaceChildren(new Option("all", ""),
    ...Array.from({ length: layer.channels }, (_, c) => new Option(c, c)));
  at("channel-label").hidden = layer.channels === 1;
  document.querySelectorAll("#layers button").forEach((button, i) =>
    button.setAttribute("aria-current", String(i === index)));
  if (state.order === "rate" && !layer.totals) setOrder("neuron");
  showFacts(layer);
  show({ r0: 0, r1: rowsOf(layer).rows });
  draw();
  workAhead(layer);
}

const goTo = (index) => openLayer(index).catch((error) => tell(`not shown: ${error.message}`));

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  at("theme").textContent = theme === "dark" ? "Light" : "Dark";
  if (!state.layer) return;
  draw();
  if (state.layer.totals) drawMaps(at("maps"), state.layer, state.channel, focused);
}
