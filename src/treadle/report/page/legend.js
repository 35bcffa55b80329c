// Buttons that switch curves and runs, and what is chosen for all charts.

function toggle(text, swatch, on, change) {
  const button = element("button", { type: "button", className: "toggle",
    attributes: { "aria-pressed": String(on) } }, ...(swatch ? [swatch] : []), name(text));
  button.addEventListener("click", () => {
    const now = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(now));
    change(now);
  });
  return button;
}

function legendOf(chart) {
  const legend = element("div", { className: "legend" });
  for (const kind of chart.kinds) {
    const swatch = SEVERAL
      ? element("span", { className: `dash dash-${kind.order % DASHES.length} ${kind.per}` })
      : element("span", { className: `swatch run-${kind.color} ${kind.per}` });
    const text = kind.both ? `${kind.name} by ${kind.per}` : kind.name;
    legend.append(toggle(text, swatch, !chart.hidden.has(kind.key), (on) => {
      if (on) chart.hidden.delete(kind.key); else chart.hidden.add(kind.key);
      chart.redraw();
    }));
  }
  return legend;
}

function runToggles() {
  return DATA.runs.map((run, number) => {
    const swatch = element("span", { className: `swatch run-${number % 8}` });
    return toggle(`${run.name} (${run.id})`, swatch, !chosen.hiddenRuns.has(number), (on) => {
      if (on) chosen.hiddenRuns.delete(number); else chosen.hiddenRuns.add(number);
      redrawAll();
    });
  });
}

function axisChoice() {
  const select = element("select", { id: "axis" });
  for (const [value, label] of [["step", "step"], ["epoch", "epoch"], ["time", "time"]]) {
    const known = value === "step" || DATA.runs.every((run) =>
      value === "epoch" ? run.epochs.steps.length : run.clock.steps.length > 1);
    if (known) select.append(element("option", { value, textContent: label, selected: value === chosen.axis }));
  }
  select.addEventListener("change", () => {
    chosen.axis = select.value;
    chosen.range = null;
    redrawAll();
    for (const chart of charts) chart.zoomed();
  });
  return element("label", {}, "by ", select);
}

function smoothingChoice() {
  const value = element("output", { textContent: String(chosen.smoothing) });
  const range = element("input", { type: "range", id: "smoothing", min: 0, max: 0.99, step: 0.01,
    value: chosen.smoothing });
  range.addEventListener("input", () => {
    chosen.smoothing = Number(range.value);
    value.textContent = range.value;
    redrawAll();
  });
  return element("label", {}, "smoothing ", range, value);
}

function check(id, text, on, change) {
  const box = element("input", { type: "checkbox", id, checked: on });
  box.addEventListener("change", () => change(box.checked));
  return element("label", {}, box, ` ${text}`);
}

function controls(place) {
  const button = (id, text, title, action) => {
    const made = element("button", { type: "button", id, textContent: text, title, ariaLabel: title });
    made.addEventListener("click", action);
    return made;
  };
  const all = element("div", { className: "group" },
    button("closer", "+", "Zoom in", () => zoomBy(0.5)), button("wider", "−", "Zoom out", () => zoomBy(2)),
    button("everything", "all", "Show everything", () => {
      for (const chart of charts) chart.vertical = null;
      zoom(null);
      redrawAll();
    }));
  const log = check("logarithmic", "log scale", false, (on) => {
    for (const chart of charts) chart.toggleLogarithm(on);
  });
  const marks = check("marks", "events", chosen.marks, (on) => {
    chosen.marks = on;
    redrawAll();
  });
  const rows = [element("div", { className: "row" }, axisChoice(), smoothingChoice(), log, marks, all)];
  if (SEVERAL) rows.push(element("div", { className: "row legend" }, ...runToggles()));
  place.append(...rows);
  place.hidden = false;
}
