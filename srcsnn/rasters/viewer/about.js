// What is said of the file and of a layer, beside the pictures.

// The numbers of a layer, and its maps.
function showFacts(layer) {
  const about = layer.about;
  at("name").textContent = about.name;
  const facts = [
    ["shape", about.shape.join(" × ")], ["neurons", number(about.neurons)], ["spikes", number(about.spikes)],
    ["rate, mean", about.rate_mean.toFixed(4)], ["rate, median", about.rate_median.toFixed(4)],
    ["rate, 95 %", about.rate_p95.toFixed(4)], ["rate, largest", about.rate_max.toFixed(4)],
    ["silent", percent(about.silent_share)], ["saturated", percent(about.saturated_share)],
    ["burst", `${percent(about.burst)} at step ${number(about.burst_step)}`],
  ];
  if (about.threshold !== null) facts.push(["threshold", about.threshold.toPrecision(4)]);
  if (about.decay !== null) facts.push(["decay", about.decay.toPrecision(4)]);
  at("facts").replaceChildren(...facts.map(([name, value]) => {
    const row = document.createElement("tr");
    for (const text of [name, value]) row.insertCell().textContent = text;
    return row;
  }));
  at("maps").hidden = !layer.totals;
  at("map-read").textContent = layer.totals ? "" : "Too many neurons for maps in a page.";
  if (layer.totals) drawMaps(at("maps"), layer, null, null);
}

// The list of layers, the words above, and the keys.
function fillIn() {
  document.title = `${run.file} - spikes`;
  at("file").textContent = run.file;
  at("about").textContent = `${run.status}; ${number(run.steps)} of ${number(run.planned)} steps` +
    `${run.every > 1 ? `, one of ${run.every}` : ""}` + (run.dt === null ? "" : `, ${1000 * run.dt} ms each`);
  at("warnings").replaceChildren(...run.layers.flatMap((about) => about.warnings).map((warning) => {
    const line = document.createElement("p");
    line.textContent = warning;
    return line;
  }));
  run.layers.forEach((about, index) => {
    const item = document.createElement("li");
    const button = document.createElement("button");
    button.type = "button";
    const name = document.createElement("b");
    name.textContent = about.name;
    const words = document.createElement("small");
    words.textContent = `${about.shape.join(" × ")}, rate ${about.rate_mean.toFixed(4)}`;
    const spark = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    spark.setAttribute("viewBox", "0 0 100 24");
    spark.setAttribute("preserveAspectRatio", "none");
    spark.setAttribute("aria-hidden", "true");
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    path.setAttribute("d", sparkPath(about.trace));
    spark.append(path);
    button.append(name, words, spark);
    button.addEventListener("click", () => goTo(index));
    item.append(button);
    at("layers").append(item);
  });
  at("keys").replaceChildren(...KEYS.flatMap(([keys, meaning]) => {
    const term = document.createElement("dt");
    const text = document.createElement("dd");
    term.textContent = keys;
    text.textContent = meaning;
    return [term, text];
  }));
}
