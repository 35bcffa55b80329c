// What the reader has chosen; charts are drawn anew when it changes.

const DATA = decode(JSON.parse(document.getElementById("data").textContent));
const SEVERAL = DATA.runs.length > 1;
const chosen = {
  axis: "step", // what is to the right
  smoothing: 0,
  range: null, // [from, to] of all charts, or null for everything
  marks: true, // whether events and checkpoints are drawn
  logarithmic: new Set(), // keys of charts
  hiddenRuns: new Set(), // numbers of runs
};
const charts = [];

function redrawAll() {
  for (const chart of charts) chart.redraw();
}

function zoom(range) {
  chosen.range = range;
  for (const chart of charts) chart.zoomed();
}

// Everything there is to the right, in the unit that is chosen.
function fullRange() {
  let low = Infinity, high = -Infinity;
  for (const run of DATA.runs) {
    for (const curve of run.curves) {
      if (!curve.steps.length) continue;
      low = Math.min(low, AXES[chosen.axis].of(curve.steps[0], run));
      high = Math.max(high, AXES[chosen.axis].of(curve.steps[curve.steps.length - 1], run));
    }
  }
  if (!(low < high)) return Number.isFinite(low) ? [low - 1, low + 1] : [0, 1];
  return [low, high];
}

function zoomBy(factor, middle) {
  const [low, high] = chosen.range ?? fullRange();
  const at = middle ?? (low + high) / 2;
  const [least, most] = fullRange();
  const from = Math.max(least, at - (at - low) * factor), to = Math.min(most, at + (high - at) * factor);
  if (to - from > (most - least) * 1e-6) zoom(from <= least && to >= most ? null : [from, to]);
}

function pan(share) {
  if (!chosen.range) return;
  const [low, high] = chosen.range, [least, most] = fullRange();
  const by = Math.max(least - low, Math.min(most - high, share * (high - low)));
  zoom([low + by, high + by]);
}

// Colours are those of the style sheet, so that light and dark need nothing here.
const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

// A name from a run: isolated, so that letters of other directions change nothing around it.
const name = (text) => element("bdi", { textContent: text });

function element(tag, properties = {}, ...children) {
  const { dataset, attributes, ...rest } = properties;
  const made = Object.assign(document.createElement(tag), rest);
  Object.assign(made.dataset, dataset ?? {});
  for (const [name, value] of Object.entries(attributes ?? {})) made.setAttribute(name, value);
  made.append(...children); // text nodes: nothing from a run is ever read as HTML
  return made;
}
