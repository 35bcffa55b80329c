// One chart: the curves of some names, of all runs.

const HEIGHT = 260;
const DASHES = [[], [7, 4], [2, 3], [9, 3, 2, 3], [4, 2, 4, 6], [12, 4]];
const ROLES = { train: 0, val: 1, test: 2 };

// What a chart is known by, also when others come before it.
const keyOf = (number) => `${DATA.charts[number].section} ${DATA.charts[number].title}`;

class Chart {
  constructor(figure, number, hidden = new Set()) {
    this.number = number;
    this.figure = figure;
    this.title = DATA.charts[number].title;
    this.key = keyOf(number);
    this.names = DATA.charts[number].names;
    this.hidden = hidden; // "name per" of what is switched off
    this.vertical = null; // [from, to] where the reader zoomed vertically
    this.take();
    this.place = element("div", {
      className: "plot", tabIndex: 0,
      attributes: { role: "group", "aria-label": `Chart of ${this.title}. ${KEYS_HELP}` },
    });
    this.readout = element("div", { className: "readout", attributes: { "aria-live": "polite" } });
    this.notes = element("div", {});
    this.figure.append(this.tools(), this.place, this.readout, legendOf(this), this.notes);
    this.notes.append(...this.warnings());
    listenToKeys(this);
    this.plot = null;
    this.visible = false;
  }

  // The curves as the data have them now.
  take() {
    this.kinds = [];
    this.curves = [];
    for (const run of DATA.runs) {
      for (const curve of run.curves) {
        if (!this.names.includes(curve.name)) continue;
        const key = `${curve.name} ${curve.per}`;
        if (!this.kinds.some((kind) => kind.key === key)) this.kinds.push(this.kind(curve, key));
        this.curves.push({ ...curve, key, number: DATA.runs.indexOf(run) });
      }
    }
    this.notes?.replaceChildren(...this.warnings());
  }

  kind(curve, key) {
    const order = this.names.indexOf(curve.name), head = curve.name.split("/")[0];
    const other = 3 + this.names.filter((name) => !(name.split("/")[0] in ROLES)).indexOf(curve.name);
    const few = this.names.length <= 6;
    return {
      key, name: curve.name, per: curve.per, order,
      color: few && head in ROLES ? ROLES[head] : few && this.names.length > 1 ? other % 8 : order % 8,
      both: DATA.runs.some((run) =>
        run.curves.some((one) => one.name === curve.name && one.per !== curve.per)),
    };
  }

  warnings() {
    const broken = this.curves.filter((curve) => curve.gaps);
    if (!broken.length) return [];
    return broken.slice(0, 4).map((curve) => element("p", { className: "warning" },
      ...(SEVERAL ? [name(curve.run.name), ": "] : []), name(curve.name),
      `: ${curve.gaps} of ${curve.points} values are not finite, first at step ${curve.gap}`));
  }

  tools() {
    const log = element("button", { type: "button", className: "log", textContent: "log",
      title: "Logarithmic scale", attributes: { "aria-pressed": String(chosen.logarithmic.has(this.key)) } });
    log.addEventListener("click", () => this.toggleLogarithm());
    this.logButton = log;
    return element("div", { className: "tools" }, log);
  }

  toggleLogarithm(on = !chosen.logarithmic.has(this.key)) {
    if (on) chosen.logarithmic.add(this.key); else chosen.logarithmic.delete(this.key);
    this.logButton.setAttribute("aria-pressed", String(on));
    this.vertical = null;
    this.redraw();
  }

  shown() {
    return this.curves.filter((curve) => !this.hidden.has(curve.key) && !chosen.hiddenRuns.has(curve.number));
  }

  // The lines to draw: for each a table of x and values, and how it looks.
  lines() {
    const logarithmic = chosen.logarithmic.has(this.key);
    const lines = [], bands = [];
    for (const curve of this.shown()) {
      const kind = this.kinds.find((one) => one.key === curve.key);
      const xs = curve.steps.map((step) => AXES[chosen.axis].of(step, curve.run));
      const value = (values) => (logarithmic ? positive(values) : values);
      const look = {
        stroke: color(SEVERAL ? `run-${curve.number % 8}` : `run-${kind.color}`),
        dash: SEVERAL ? DASHES[kind.order % DASHES.length] : [],
        width: curve.per === "epoch" ? 2 : 1.25,
        faint: curve.per === "step" && kind.both,
        points: curve.steps.length < (curve.per === "epoch" ? 60 : 3),
        label: curve.name + (kind.both ? ` by ${curve.per}` : ""), run: curve.number,
      };
      if (curve.per === "step" && chosen.smoothing > 0) {
        lines.push({ ...look, xs, values: value(curve.mean), faint: true, silent: true });
        lines.push({ ...look, xs, values: value(smoothed(curve.mean, chosen.smoothing)), width: 2, faint: false });
        continue;
      }
      if (curve.minimum && DATA.runs.length <= 2) {
        const at = lines.length + 1;
        lines.push({ ...look, xs, values: value(curve.maximum), silent: true, width: 0 });
        lines.push({ ...look, xs, values: value(curve.minimum), silent: true, width: 0 });
        bands.push({ series: [at, at + 1], fill: look.stroke + "30" });
      }
      lines.push({ ...look, xs, values: value(curve.mean) });
    }
    return { lines, bands };
  }

  redraw() {
    if (!this.visible) return;
    const { lines, bands } = this.lines(), { left = -1, top = 0 } = this.plot?.cursor ?? {};
    this.plot?.destroy();
    this.plot = null;
    this.place.replaceChildren();
    if (!lines.some((line) => line.values.some((value) => value != null))) {
      const reason = chosen.logarithmic.has(this.key) ? "Nothing here is above zero." : "Nothing to draw.";
      this.place.append(element("p", { className: "note", textContent: reason }));
      return;
    }
    const tables = lines.map((line) => [line.xs, line.values]);
    this.plot = new uPlot(this.options(lines, bands), uPlot.join(tables), this.place);
    this.plot.over.addEventListener("dblclick", () => this.reset());
    this.read(null);
    if (left >= 0) this.plot.setCursor({ left, top }); // news come while somebody looks
  }

  options(lines, bands) {
    const { vertical } = this; // as it is now: a plot that is replaced may still be asked
    const logarithmic = chosen.logarithmic.has(this.key);
    const axis = { stroke: color("soft"), grid: { stroke: color("grid"), width: 1 },
      ticks: { stroke: color("grid"), width: 1, size: 5 }, font: "12px system-ui, sans-serif" };
    return {
      width: Math.max(this.place.clientWidth, 200), height: HEIGHT,
      legend: { show: false },
      cursor: { drag: { x: true, y: true, uni: 30, setScale: false }, bind: { dblclick: () => null },
        points: { size: 7 }, focus: { prox: -1 } },
      scales: {
        x: { time: false, range: () => chosen.range ?? fullRange() },
        y: { distr: logarithmic ? 3 : 1, ...(vertical ? { range: () => vertical } : {}) },
      },
      axes: [
        { ...axis, size: 34, values: (_, splits) => splits.map(tick) },
        { ...axis, size: 62, values: (_, splits) => splits.map(tick) },
      ],
      series: [{}, ...lines.map((line) => this.seriesOf(line))],
      bands,
      hooks: {
        draw: [(plot) => { if (chosen.marks) drawMarks(plot, this.shown()); }],
        setSelect: [(plot) => this.selected(plot)],
        setCursor: [(plot) => this.read(plot.cursor.idx)],
      },
    };
  }

  seriesOf(line) {
    return {
      label: line.label, run: line.run, silent: line.silent, stroke: line.faint ? line.stroke + "66" : line.stroke,
      width: line.width, dash: line.dash,
      points: { show: line.points ?? false, size: 5, fill: line.stroke },
    };
  }

  selected(plot) {
    const { left, top, width, height } = plot.select;
    if (width < 4 && height < 4) return;
    if (height >= 30 && height < plot.over.clientHeight - 1) {
      this.vertical = [plot.posToVal(top + height, "y"), plot.posToVal(top, "y")];
    }
    const range = width >= 4 ? [plot.posToVal(left, "x"), plot.posToVal(left + width, "x")] : chosen.range;
    plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
    queueMicrotask(() => {
      zoom(range);
      if (this.vertical) this.redraw();
    });
  }

  zoomed() {
    const [min, max] = chosen.range ?? fullRange();
    this.plot?.setScale("x", { min, max });
    this.figure.classList.toggle("zoomed", chosen.range != null || this.vertical != null);
  }

  reset() {
    const drawn = this.vertical;
    this.vertical = null;
    zoom(null);
    if (drawn) this.redraw();
  }

  // The values under the cursor.
  read(place) {
    if (!this.plot) return;
    const { series, data } = this.plot;
    const at = place ?? data[0].length - 1;
    const cells = series.slice(1).map((line, number) => ({ line, value: near(data[number + 1], at) }))
      .filter(({ line, value }) => !line.silent && value != null);
    const where = `${AXES[chosen.axis].label} ${formatted(data[0][at])}`;
    const said = cells.slice(0, 12).map(({ line, value }) => element("span", {}, ...markOf(line),
      element("b", { textContent: formatted(value) }), " ", name(line.label)));
    if (cells.length > 12) said.push(element("span", { textContent: `and ${cells.length - 12} more` }));
    this.readout.replaceChildren(element("span", { className: "where", textContent: where }), ...said);
  }
}

// Which run a line is of, where there are several.
function markOf(line) {
  if (!SEVERAL) return [];
  const title = DATA.runs[line.run].name;
  return [element("span", { className: `swatch run-${line.run % 8}`, title, role: "img", ariaLabel: title })];
}

// The value at a place, or the last one before it: curves have points at different steps.
function near(values, place) {
  for (let at = place; at >= 0; at--) if (values[at] !== undefined) return values[at];
  return null;
}

function tick(value) {
  if (value == null) return "";
  const size = Math.abs(value);
  if (size >= 1e15 || (size > 0 && size < 1e-4)) return value.toExponential().replace("e+", "e");
  for (const [unit, letter] of [[1e12, "T"], [1e9, "G"], [1e6, "M"]]) {
    if (size >= unit) return `${Number((value / unit).toPrecision(6))} ${letter}`;
  }
  return String(Number(value.toPrecision(6)));
}
