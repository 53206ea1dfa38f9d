// What is shown of a layer moves: through time, through rows, and with it the cross-hair.

// Every change of the window keeps it within the layer, a step and a row at least.
function show({ t0 = state.t0, t1 = state.t1, r0 = state.r0, r1 = state.r1 }) {
  const fit = (from, to, size) => {
    const length = Math.min(size, Math.max(1, Math.round(to - from)));
    const start = Math.min(size - length, Math.max(0, Math.round(from)));
    return [start, start + length];
  };
  [state.t0, state.t1] = fit(t0, t1, run.steps);
  [state.r0, state.r1] = fit(r0, r1, rowsOf(state.layer).rows);
  schedule();
}

let scheduled = false;
function schedule() {
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(() => {
    scheduled = false;
    draw();
  });
}

// A length that is longer or shorter by one at least.
const zoomed = (length, factor) =>
  factor > 1 ? Math.max(length + 1, length * factor) : Math.max(1, Math.min(length - 1, length * factor));

function zoomTime(factor, around = (state.t0 + state.t1) / 2) {
  const length = zoomed(state.t1 - state.t0, factor);
  const share = (around - state.t0) / (state.t1 - state.t0);
  show({ t0: around - share * length, t1: around + (1 - share) * length });
}

function zoomRows(factor, around = (state.r0 + state.r1) / 2) {
  const length = zoomed(state.r1 - state.r0, factor);
  const share = (around - state.r0) / (state.r1 - state.r0);
  show({ r0: around - share * length, r1: around + (1 - share) * length });
}

function move(steps, rows) {
  const wide = state.t1 - state.t0;
  const tall = state.r1 - state.r0;
  const by = (size, share) => Math.sign(share) * Math.max(1, Math.round(Math.abs(share) * size));
  const t0 = Math.min(run.steps - wide, Math.max(0, state.t0 + by(wide, steps)));
  const r0 = Math.min(rowsOf(state.layer).rows - tall, Math.max(0, state.r0 + by(tall, rows)));
  show({ t0, t1: t0 + wide, r0, r1: r0 + tall });
}

function moveCross(steps, rows) {
  const cross = state.cross ?? { step: (state.t0 + state.t1) >> 1, row: (state.r0 + state.r1) >> 1 };
  const within = (value, from, to) => Math.min(to - 1, Math.max(from, value));
  state.cross = { step: within(cross.step + steps, state.t0, state.t1),
    row: within(cross.row + rows, state.r0, state.r1) };
  readCross();
  schedule();
}

const showAll = () => show({ t0: 0, t1: run.steps, r0: 0, r1: rowsOf(state.layer).rows });
