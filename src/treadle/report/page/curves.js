// Curves as they come from the record, made ready to draw.

function stepsOf(packed) {
  if (Array.isArray(packed)) return packed;
  return Array.from({ length: packed.count }, (_, place) => packed.from + place * packed.by);
}

// Linear between the known points, going on at the last slope behind them.
function interpolate(x, xs, ys) {
  const last = xs.length - 1;
  if (last < 0) return x;
  if (last === 0 || x <= xs[0]) return xs[0] > 0 ? (ys[0] * x) / xs[0] : ys[0];
  let low = 0, high = last;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (xs[middle] <= x) low = middle; else high = middle;
  }
  const width = xs[high] - xs[low];
  return width > 0 ? ys[low] + ((ys[high] - ys[low]) * (x - xs[low])) / width : ys[high];
}

const AXES = {
  step: { label: "step", of: (step) => step },
  epoch: { label: "epoch", of: (step, run) => interpolate(step, run.epochs.steps, run.epochs.epochs) },
  time: { label: "hours", of: (step, run) => interpolate(step, run.clock.steps, run.clock.seconds) / 3600 },
};

// An exponential moving average without the bias of its beginning; gaps stay gaps.
function smoothed(values, weight) {
  let average = 0, share = 0;
  return values.map((value) => {
    if (value == null) return null;
    average = average * weight + value * (1 - weight);
    share = share * weight + (1 - weight);
    return average / share;
  });
}

const positive = (values) => values.map((value) => (value != null && value > 0 ? value : null));

function decode(data) {
  for (const run of data.runs) {
    for (const curve of run.curves) {
      curve.steps = stepsOf(curve.steps);
      curve.run = run;
    }
  }
  return data;
}

function formatted(value) {
  if (value == null || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (Number.isInteger(value) && size < 1e6) return String(value);
  return size !== 0 && (size < 1e-3 || size >= 1e6) ? value.toExponential(3) : String(Number(value.toPrecision(5)));
}
