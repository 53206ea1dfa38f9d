"use strict";
// A layer: its counts, its spikes where the page has them, and how they fall into a picture.

const SERVED_BYTES = 64e6; // spikes that are asked for at once
const KEPT_BYTES = 128e6; // served spikes that stay in memory; in order, thrice as much
const AHEAD_BYTES = 128e6; // spikes that are put in order before anybody asks

async function decoded(id) {
  const element = document.getElementById(id);
  if (!element) return null;
  const text = atob(element.textContent);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint32Array(await new Response(stream).arrayBuffer());
}

class Layer {
  constructor(index, about, run) {
    this.index = index;
    this.about = about;
    this.run = run;
    this.neurons = about.neurons;
    this.channels = about.channels;
    this.positions = this.neurons / this.channels;
    this.words = Math.ceil(this.neurons / 32);
    this.blocks = new Map(); // first step -> words of its steps, a bit for each neuron
    this.ranked = new Map(); // channel or null -> its neurons from the busiest on
    this.opened = null;
    this.asked = Promise.resolve();
    this.rest();
  }

  open() {
    this.opened ??= this.#read();
    return this.opened;
  }

  async #read() {
    const [totals, overview, population] = await Promise.all(
      ["totals", "overview", "population"].map((what) => decoded(`${what}-${this.index}-0`)),
    );
    Object.assign(this, { totals, overview, population });
    this.before = new Float64Array(population.length + 1); // spikes before each step
    population.forEach((count, step) => (this.before[step + 1] = this.before[step] + count));
    const firsts = [];
    for (let first = 0; first < this.run.steps; first += this.run.block) firsts.push(first);
    await Promise.all(
      firsts.map(async (first) => {
        const words = await decoded(`bits-${this.index}-${first}`);
        if (words) this.blocks.set(first, words);
      }),
    );
  }

  // Forgets what was only worked out or asked for to draw it.
  rest() {
    if (this.run.served) this.blocks.clear();
    this.ordered = new Map(); // neurons by rate, or null -> first step -> its block in that order
  }

  // First steps of the blocks of a window whose spikes are not here.
  missing(t0, t1) {
    const size = this.run.block;
    const firsts = [];
    for (let first = Math.floor(t0 / size) * size; first < t1; first += size)
      if (!this.blocks.has(first)) firsts.push(first);
    return firsts;
  }

  canAskFor(firsts) {
    const bytes = firsts.length * this.run.block * this.words * 4;
    return this.run.served && !this.about.countsOnly && bytes <= SERVED_BYTES;
  }

  // Asks the server for blocks, those that are on their way not again.
  ask(firsts) {
    this.asked = this.asked.catch(() => null).then(() => this.#fetch(firsts));
    return this.asked;
  }

  async #fetch(firsts) {
    for (const first of firsts) {
      if (this.blocks.has(first)) continue;
      const answer = await fetch(`/bits?layer=${this.index}&first=${first}`).catch(() => {
        throw new Error("srcsnn view has ended, or cannot be reached");
      });
      if (!answer.ok) throw new Error(`the server answers ${answer.status}`);
      this.blocks.set(first, new Uint32Array(await answer.arrayBuffer()));
      this.#forget(first);
    }
  }

  #forget(latest) {
    const most = Math.max(1, Math.floor(KEPT_BYTES / (this.run.block * this.words * 4)));
    for (const first of this.blocks.keys()) {
      if (this.blocks.size <= most || first === latest) break;
      this.blocks.delete(first);
      for (const kept of this.ordered.values()) kept.delete(first);
    }
  }

  spikesIn(t0, t1) {
    return this.before[t1] - this.before[t0];
  }

  rate(neuron) {
    return this.totals ? this.totals[neuron] / this.run.steps : NaN;
  }

  fires(step, neuron) {
    const first = Math.floor(step / this.run.block) * this.run.block;
    const words = this.blocks.get(first);
    if (!words) return null;
    return ((words[(step - first) * this.words + (neuron >>> 5)] >>> (neuron & 31)) & 1) === 1;
  }

  // Calls with every neuron of some words that fires in a step, whose spikes must be here.
  eachSpike(step, see, fromWord = 0, toWord = this.words) {
    const first = Math.floor(step / this.run.block) * this.run.block;
    const words = this.blocks.get(first);
    const start = (step - first) * this.words;
    for (let word = fromWord; word < toWord; word++) {
      let bits = words[start + word];
      while (bits) {
        const lowest = bits & -bits;
        see((word << 5) + 31 - Math.clz32(lowest));
        bits ^= lowest;
      }
    }
  }

  // Where a neuron is in the layer's shape: [channel, y, x].
  position(neuron) {
    const where = [];
    for (const size of [...this.about.shape].reverse()) {
      where.unshift(neuron % size);
      neuron = Math.floor(neuron / size);
    }
    return where;
  }

  // The names of these numbers.
  get axes() {
    const axes = this.about.shape.length;
    return axes === 1 ? ["neuron"] : ["channel", ...["z", "y", "x"].slice(4 - axes)];
  }

  place(neuron) {
    const where = this.position(neuron);
    return this.axes.map((axis, i) => `${axis} ${where[i]}`).join(", ");
  }

  // Neurons of a channel, or of all for null, from the busiest on.
  byRate(channel) {
    if (!this.ranked.has(channel)) {
      const first = channel === null ? 0 : channel * this.positions;
      const count = channel === null ? this.neurons : this.positions;
      const neurons = Uint32Array.from({ length: count }, (_, i) => first + i);
      neurons.sort((a, b) => this.totals[b] - this.totals[a] || a - b);
      this.ranked.set(channel, neurons);
    }
    return this.ranked.get(channel);
  }

  // Spikes in each cell of a picture, column by column.
  //
  // A row of it has the neurons from edges[row] to edges[row + 1], numbered as they are, or by
  // their place in `ranked`: those that fire below one edge, less those below the other.
  tally(t0, t1, { edges, ranked }, cols) {
    const rows = edges.length - 1;
    const picture = new Uint32Array(rows * cols);
    const scale = cols / (t1 - t0);
    const size = this.run.block;
    for (let first = Math.floor(t0 / size) * size; first < t1; first += size) {
      const { words, width, before } = this.#block(first, ranked);
      const word = edges.map((edge) => Math.min(edge >>> 5, width - 1));
      const mask = edges.map((edge) => (edge >>> 5 === width ? -1 : (1 << (edge & 31)) - 1));
      for (let step = Math.max(t0, first); step < Math.min(t1, first + size); step++) {
        const from = (step - first) * width;
        const to = Math.floor((step - t0) * scale) * rows;
        let last = before[from + word[0]] + ones(words[from + word[0]] & mask[0]);
        for (let row = 0; row < rows; row++) {
          const at = from + word[row + 1];
          const below = before[at] + ones(words[at] & mask[row + 1]);
          picture[to + row] += below - last;
          last = below;
        }
      }
    }
    return picture;
  }

  // Lays out blocks before they are asked for, one at a time.
  *workAhead() {
    if (this.blocks.size * this.run.block * this.words * 4 > AHEAD_BYTES) return;
    for (const first of this.blocks.keys()) yield this.#block(first, null);
    if (!this.totals) return;
    for (const first of this.blocks.keys()) yield this.#block(first, this.byRate(null));
  }

  // A block with its bits in the order of the rows, and for each word the spikes of its step
  // before it. It is kept.
  #block(first, ranked) {
    if (!this.ordered.has(ranked)) {
      for (const order of this.ordered.keys()) // of another channel
        if (order && order !== this.ranked.get(null)) this.ordered.delete(order);
      this.ordered.set(ranked, new Map());
    }
    const kept = this.ordered.get(ranked);
    if (!kept.has(first)) {
      const block = ranked
        ? { words: this.#permuted(first, ranked), width: Math.ceil(ranked.length / 32) }
        : { words: this.blocks.get(first), width: this.words };
      kept.set(first, { ...block, before: sumsBefore(block) });
    }
    return kept.get(first);
  }

  #permuted(first, ranked) {
    const rankOf = new Int32Array(this.neurons).fill(-1);
    ranked.forEach((neuron, rank) => (rankOf[neuron] = rank));
    const lowest = ranked.reduce((least, neuron) => Math.min(least, neuron));
    const words = [lowest >>> 5, ((lowest + ranked.length - 1) >>> 5) + 1]; // of one channel, or all
    const width = Math.ceil(ranked.length / 32);
    const steps = this.blocks.get(first).length / this.words;
    const permuted = new Uint32Array(steps * width);
    for (let step = 0; step < steps; step++)
      this.eachSpike(first + step, (neuron) => {
        const rank = rankOf[neuron];
        if (rank >= 0) permuted[step * width + (rank >>> 5)] |= 1 << (rank & 31);
      }, ...words);
    return permuted;
  }

  // The same from the counts of channels, where the spikes are not here; rowOf says in which row
  // a channel is, or -1.
  tallyChannels(t0, t1, rowOf, rows, cols) {
    const picture = new Float64Array(rows * cols);
    const bin = this.about.overviewBin;
    const scale = cols / (t1 - t0);
    for (let col = 0; col < cols; col++) {
      const from = t0 + Math.floor(col / scale);
      const to = Math.max(from + 1, t0 + Math.floor((col + 1) / scale));
      for (let b = Math.floor(from / bin); b * bin < to; b++) {
        const start = b * bin;
        const length = Math.min(bin, this.run.steps - start);
        const part = (Math.min(to, start + length) - Math.max(from, start)) / length;
        for (let channel = 0; channel < this.channels; channel++)
          if (rowOf[channel] >= 0)
            picture[col * rows + rowOf[channel]] += part * this.overview[b * this.channels + channel];
      }
    }
    return picture;
  }
}

// How many bits of a word are 1.
function ones(word) {
  word -= (word >>> 1) & 0x55555555;
  word = (word & 0x33333333) + ((word >>> 2) & 0x33333333);
  return Math.imul((word + (word >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24;
}

function sumsBefore({ words, width }) {
  const before = new (width < 2048 ? Uint16Array : Uint32Array)(words.length); // 2^16 bits
  for (let start = 0; start < words.length; start += width)
    for (let i = start, sum = 0; i < start + width; i++) {
      before[i] = sum;
      sum += ones(words[i]);
    }
  return before;
}
