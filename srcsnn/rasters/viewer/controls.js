// Wheel, drag, keys and buttons; and the start, when all else is there.
let focused = 0;

const KEYS = [
  ["← → ↑ ↓", "move the window"], ["+ −", "shorter or longer time"], ["Shift + wheel, < >", "more or fewer rows"],
  ["Shift + arrows", "move the cross-hair by a step or a row"], ["0", "all steps and rows"],
  ["n c r", "rows are neurons, channels, or neurons by rate"], ["Page up, Page down", "another layer"],
  ["Esc", "all channels"], ["s p", "the window as CSV, as PNG"], ["d", "light or dark"], ["?", "these keys"],
];


function pointed(event) {
  const canvas = at("raster");
  const bounds = canvas.getBoundingClientRect();
  const box = inner(bounds.width, bounds.height);
  const x = (event.clientX - bounds.left - box.x) / box.width;
  const y = (event.clientY - bounds.top - box.y) / box.height;
  return { step: state.t0 + x * (state.t1 - state.t0), row: state.r0 + y * (state.r1 - state.r0),
    within: x >= 0 && x < 1 && y >= 0 && y < 1, box };
}

function followPointer() {
  const canvas = at("raster");
  let grabbed = null;
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    const { step, row } = pointed(event);
    const turned = event.deltaY || event.deltaX; // Shift turns the wheel sideways in some browsers
    if (event.shiftKey) zoomRows(turned > 0 ? 1.25 : 0.8, row);
    else zoomTime(turned > 0 ? 1.25 : 0.8, step);
  }, { passive: false });
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    grabbed = { x: event.clientX, y: event.clientY, t0: state.t0, r0: state.r0 };
  });
  canvas.addEventListener("pointerup", () => (grabbed = null));
  canvas.addEventListener("pointermove", (event) => {
    const { step, row, within, box } = pointed(event);
    if (grabbed) {
      const wide = state.t1 - state.t0;
      const tall = state.r1 - state.r0;
      const t0 = grabbed.t0 - ((event.clientX - grabbed.x) / box.width) * wide;
      const r0 = grabbed.r0 - ((event.clientY - grabbed.y) / box.height) * tall;
      show({ t0, t1: t0 + wide, r0, r1: r0 + tall });
    } else if (within) {
      state.cross = { step: Math.floor(step), row: Math.floor(row) };
      readCross();
      schedule();
    }
  });
}

const ACTIONS = {
  ArrowLeft: () => move(-0.2, 0), ArrowRight: () => move(0.2, 0),
  ArrowUp: () => move(0, -0.2), ArrowDown: () => move(0, 0.2),
  "+": () => zoomTime(0.5), "=": () => zoomTime(0.5), "-": () => zoomTime(2),
  "<": () => zoomRows(2), ">": () => zoomRows(0.5), 0: showAll,
  n: () => setOrder("neuron"), c: () => setOrder("channel"), r: () => setOrder("rate"),
  PageUp: () => goTo(Math.max(0, chosen.index - 1)),
  PageDown: () => goTo(Math.min(layers.length - 1, chosen.index + 1)),
  Escape: () => setChannel(null), s: saveCsv, p: savePng,
  d: () => setTheme(isDark() ? "light" : "dark"), "?": toggleKeys,
};
const CROSS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function toggleKeys() {
  at("keys").hidden = !at("keys").hidden;
  at("help").setAttribute("aria-expanded", String(!at("keys").hidden));
}

function followKeys() {
  document.addEventListener("keydown", (event) => {
    const element = event.target;
    const chooses = element.matches("select") || (element.matches("input") && event.key.startsWith("Arrow"));
    const typed = chooses || event.ctrlKey || event.metaKey || event.altKey;
    if (typed || (element === at("maps") && (event.key in CROSS || event.key === "Enter"))) return;
    const arrow = event.key in CROSS;
    if (arrow && !event.shiftKey && element !== at("raster") && element !== document.body) return;
    const action = arrow && event.shiftKey ? () => moveCross(...CROSS[event.key]) : ACTIONS[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  });
  const maps = at("maps");
  const look = (channel) => {
    channel = Math.min(state.layer.channels - 1, Math.max(0, channel));
    if (channel === focused || !state.layer.totals) return;
    focused = channel;
    drawMaps(maps, state.layer, state.channel, focused);
    const rates = Array.from({ length: state.layer.positions }, (_, i) =>
      state.layer.rate(focused * state.layer.positions + i));
    at("map-read").textContent = `channel ${focused}: rate ${(sum(rates) / rates.length).toFixed(4)} / step`;
  };
  maps.addEventListener("keydown", (event) => {
    const across = mapGrid(state.layer, maps.clientWidth).across;
    const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -across, ArrowDown: across }[event.key];
    if (by) look(focused + by);
    else if (event.key === "Enter") setChannel(state.layer.channels > 1 ? focused : null);
    else return;
    event.preventDefault();
  });
  const under = (event) => {
    const bounds = maps.getBoundingClientRect();
    const grid = mapGrid(state.layer, bounds.width);
    const column = Math.floor((event.clientX - bounds.left) / grid.tile);
    const channel = Math.floor((event.clientY - bounds.top) / grid.high) * grid.across + column;
    return column < grid.across && channel < state.layer.channels ? channel : null;
  };
  maps.addEventListener("pointermove", (event) => under(event) !== null && look(under(event)));
  maps.addEventListener("click", (event) => {
    const channel = under(event);
    if (channel !== null && state.layer.channels > 1) setChannel(channel === state.channel ? null : channel);
  });
}

function followButtons() {
  const clicks = { in: () => zoomTime(0.5), out: () => zoomTime(2), all: showAll, csv: saveCsv, png: savePng,
    help: toggleKeys, theme: ACTIONS.d };
  for (const [id, action] of Object.entries(clicks)) at(id).addEventListener("click", action);
  at("orders").addEventListener("change", (event) => setOrder(event.target.value));
  at("channel").addEventListener("change", (event) =>
    setChannel(event.target.value === "" ? null : Number(event.target.value)));
  window.addEventListener("resize", () => {
    schedule();
    if (state.layer?.totals) drawMaps(at("maps"), state.layer, state.channel, focused);
  });
}

async function start() {
  setTheme(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  fillIn();
  followPointer();
  followKeys();
  followButtons();
  // The first layer that is not the input is what people come for.
  await openLayer(Math.min(1, layers.length - 1));
  window.__ready = true;
}

start().catch((error) => {
  tell(`The page cannot show this file: ${error.message}`);
  throw error;
});
