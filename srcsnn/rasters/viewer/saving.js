// Export: what the window shows, no more.
function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

function windowName(suffix) {
  const channel = state.channel === null ? "" : `-channel-${state.channel}`;
  const steps = `${stepOf(state.t0)}-${stepOf(state.t1 - 1)}`;
  return `${run.file.replace(/\.[^.]*$/, "")}-${state.layer.about.name}${channel}-${steps}.${suffix}`;
}

function csvOf() {
  const layer = state.layer;
  const { edges, ranked } = pictureRows(layer, 1);
  const neurons = Array.from({ length: edges[1] - edges[0] }, (_, i) => edges[0] + i)
    .map((row) => (ranked ? ranked[row] : row))
    .sort((a, b) => a - b);
  const names = layer.axes.filter((axis) => axis !== "neuron");
  const lines = [["step", "neuron", ...names].join(",")];
  const wanted = new Uint8Array(layer.neurons);
  for (const neuron of neurons) wanted[neuron] = 1;
  for (let step = state.t0; step < state.t1; step++)
    layer.eachSpike(step, (neuron) => {
      if (wanted[neuron])
        lines.push([stepOf(step), neuron, ...(names.length ? layer.position(neuron) : [])].join(","));
    });
  return `${lines.join("\n")}\n`;
}

function saveCsv() {
  if (state.layer.about.countsOnly) return tell("Only counts were recorded; there are no spikes to save.");
  if (state.layer.missing(state.t0, state.t1).length)
    return tell("Not all spikes of these steps are in this page; choose a window whose spikes are.");
  if (state.spikes > 5e6) return tell("More than 5,000,000 spikes; shorten the time.");
  save(new Blob([csvOf()], { type: "text/csv" }), windowName("csv"));
}

function savePng() {
  const [raster, population] = [at("raster"), at("population")];
  const sheet = new OffscreenCanvas(raster.width, raster.height + population.height);
  const context = sheet.getContext("2d");
  context.drawImage(raster, 0, 0);
  context.drawImage(population, 0, raster.height);
  sheet.convertToBlob().then((blob) => save(blob, windowName("png")));
}
