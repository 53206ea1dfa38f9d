// Pictures on canvases: densities in colours that everybody can tell apart, and their axes.

const MAGMA = ["#000004", "#1d1147", "#51127c", "#822681", "#b73779", "#e75263", "#fc8961", "#fec488", "#fcfdbf"];
const MARGIN = { left: 58, right: 10, top: 6, bottom: 22 };

const isDark = () => document.documentElement.dataset.theme === "dark";
const ink = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

// 256 colours from little to much, and behind them that of nothing at all, as pixels.
function colours() {
  const stops = MAGMA.map((hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16)));
  const table = new Uint8ClampedArray(4 * 257).fill(255);
  for (let i = 0; i < 256; i++) {
    const along = (isDark() ? 0.25 + (0.75 * i) / 255 : 0.88 - (0.88 * i) / 255) * (stops.length - 1);
    const at = Math.min(stops.length - 2, Math.floor(along));
    for (let c = 0; c < 3; c++)
      table[4 * i + c] = stops[at][c] + (along - at) * (stops[at + 1][c] - stops[at][c]);
  }
  table.set(isDark() ? [28, 31, 37] : [241, 241, 241], 4 * 256);
  return new Uint32Array(table.buffer);
}

// A canvas of the size it has on the page, in its own pixels.
function cleared(canvas) {
  const ratio = window.devicePixelRatio || 1;
  const { clientWidth: width, clientHeight: height } = canvas;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.fillStyle = ink("page");
  context.fillRect(0, 0, width, height);
  context.font = "11px system-ui, 'DejaVu Sans', sans-serif";
  return { context, width, height };
}

const inner = (width, height) => ({
  x: MARGIN.left,
  y: MARGIN.top,
  width: Math.max(10, width - MARGIN.left - MARGIN.right),
  height: Math.max(10, height - MARGIN.top - MARGIN.bottom),
});

// Draws values of cells, row by row, into a box; `top` has the last colour.
function paint(context, values, rows, cols, box, top) {
  const table = colours();
  const image = new ImageData(cols, rows);
  const pixels = new Uint32Array(image.data.buffer);
  for (let i = 0; i < pixels.length; i++) {
    const value = values[i];
    if (value > 0) pixels[i] = table[Math.min(255, Math.floor((255 * value) / top))];
    else if (value === 0) pixels[i] = table[256]; // and NaN stays transparent
  }
  const small = new OffscreenCanvas(cols, rows);
  small.getContext("2d").putImageData(image, 0, 0);
  context.imageSmoothingEnabled = false;
  context.drawImage(small, box.x, box.y, box.width, box.height);
}

// The colours from the first to the last, and what they mean.
function drawScale(canvas, words, top) {
  const { context, width, height } = cleared(canvas);
  const values = Float64Array.from({ length: 256 }, (_, i) => i + 0.5);
  paint(context, values, 1, 256, { x: 0, y: 0, width, height }, 256);
  words.textContent = `${top.toPrecision(2)} spikes / neuron / step`;
}

// Whole numbers between two, some `about` apart, that are easy to read.
function ticks(from, to, count) {
  const rough = Math.max(1, (to - from) / count);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = Math.max(1, [1, 2, 5, 10].find((m) => m * power >= rough) * power);
  const found = [];
  for (let tick = Math.ceil(from / step) * step; tick <= to; tick += step) found.push(tick);
  return found;
}

function timeAxis(context, box, t0, t1, every) {
  context.fillStyle = ink("soft");
  context.strokeStyle = ink("line");
  context.textAlign = "center";
  context.textBaseline = "top";
  for (const tick of ticks(t0 * every, t1 * every, box.width / 90)) {
    const x = box.x + ((tick / every - t0) / (t1 - t0)) * box.width;
    line(context, x, box.y + box.height, x, box.y + box.height + 4);
    const label = tick.toLocaleString("en");
    const rightmost = box.x + box.width + MARGIN.right - context.measureText(label).width / 2;
    context.fillText(label, Math.min(x, rightmost), box.y + box.height + 6);
  }
}

function rowAxis(context, box, r0, r1, unit, word) {
  context.fillStyle = ink("soft");
  context.strokeStyle = ink("line");
  context.textAlign = "right";
  context.textBaseline = "middle";
  for (const tick of ticks(r0 / unit, r1 / unit, box.height / 34)) {
    if (tick * unit >= r1) continue; // the row below the window
    const y = box.y + ((tick * unit - r0) / (r1 - r0)) * box.height;
    line(context, box.x - 4, y, box.x, y);
    context.fillText(tick.toLocaleString("en"), box.x - 7, Math.min(y + 5, box.y + box.height - 5));
  }
  context.save();
  context.translate(10, box.y + box.height / 2);
  context.rotate(-Math.PI / 2);
  context.textAlign = "center";
  context.fillText(word, 0, 0);
  context.restore();
}

function line(context, x0, y0, x1, y1) {
  context.beginPath();
  context.moveTo(x0, y0);
  context.lineTo(x1, y1);
  context.stroke();
}

// Shares of neurons that fire, in a column each, under the raster.
function drawPopulation(canvas, rates, t0, t1, every, mark) {
  const { context, width, height } = cleared(canvas);
  const box = inner(width, height);
  const top = Math.max(...rates, 0) || 1;
  context.fillStyle = ink("accent");
  rates.forEach((rate, column) => {
    const x = box.x + (column / rates.length) * box.width;
    const tall = (rate / top) * box.height;
    context.fillRect(x, box.y + box.height - tall, Math.ceil(box.width / rates.length), tall);
  });
  context.strokeStyle = ink("line");
  line(context, box.x, box.y + box.height, box.x + box.width, box.y + box.height);
  timeAxis(context, box, t0, t1, every);
  context.textAlign = "right";
  context.textBaseline = "top";
  context.fillText(Math.max(...rates, 0).toPrecision(2), box.x - 7, box.y);
  context.textBaseline = "bottom";
  context.fillText("0", box.x - 7, box.y + box.height + 4);
  context.save();
  context.translate(10, box.y + box.height / 2);
  context.rotate(-Math.PI / 2);
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.fillText("rate", 0, 0);
  context.restore();
  if (mark !== null && mark >= t0 && mark < t1) {
    context.strokeStyle = ink("mark");
    const x = box.x + ((mark + 0.5 - t0) / (t1 - t0)) * box.width;
    line(context, x, box.y, x, box.y + box.height);
  }
}

// A path of bars for the list of layers, on a field of 100 x 24.
function sparkPath(trace) {
  const top = Math.max(...trace) || 1;
  const wide = 100 / trace.length;
  return trace
    .map((value, i) => {
      const tall = Math.max(0.5, (value / top) * 24);
      return `M${(i * wide).toFixed(2)} 24v${(-tall).toFixed(2)}h${(wide * 0.85).toFixed(2)}V24z`;
    })
    .join("");
}

// Where the maps of the channels are on their canvas: width of a tile and how many beside another.
function mapGrid(layer, width) {
  const shape = layer.about.shape;
  // A row of many neurons is cut into rows that look like a map.
  const row = shape.length === 1 ? Math.ceil(Math.sqrt(1.6 * layer.neurons)) : shape.at(-1);
  const tall = shape.length === 1 ? Math.ceil(layer.neurons / row) : shape.length > 2 ? shape.at(-2) : 1;
  const wide = shape.length === 1 ? row : layer.positions / tall;
  const fair = Math.ceil(Math.sqrt((layer.channels * tall * 1.2) / wide));
  const across = Math.max(1, Math.min(layer.channels, fair, Math.floor(width / 22)));
  const tile = Math.min(width / across, shape.length === 1 ? width : 150);
  const high = Math.min(400, Math.max(6, ((tile - 3) * tall) / wide)) + 3; // canvases have a limit
  return { tall, wide, across, tile, high, down: Math.ceil(layer.channels / across) };
}

function drawMaps(canvas, layer, chosen, focused) {
  const grid = mapGrid(layer, canvas.clientWidth);
  canvas.style.height = `${grid.down * grid.high}px`;
  const { context } = cleared(canvas);
  const top = layer.about.rate_max || 1;
  for (let channel = 0; channel < layer.channels; channel++) {
    const box = {
      x: (channel % grid.across) * grid.tile,
      y: Math.floor(channel / grid.across) * grid.high,
      width: grid.tile - 3,
      height: grid.high - 3,
    };
    const rates = new Float64Array(grid.tall * grid.wide).fill(NaN);
    for (let i = 0; i < layer.positions; i++) rates[i] = layer.rate(channel * layer.positions + i);
    paint(context, rates, grid.tall, grid.wide, box, top);
    if (channel === chosen || channel === focused) {
      context.strokeStyle = ink("mark");
      context.lineWidth = channel === chosen ? 3 : 1;
      context.strokeRect(box.x + 1, box.y + 1, box.width - 2, box.height - 2);
      context.lineWidth = 1;
    }
  }
}
