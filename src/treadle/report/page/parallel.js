// Parallel coordinates: one line for each run across the settings that differ and the results.

const SVG = "http://www.w3.org/2000/svg";

function shape(tag, attributes, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

// Positions between 0 (bottom) and 1 (top); numbers over several magnitudes stand logarithmically.
function positionsOf(axis) {
  const known = axis.values.filter((value) => value != null);
  const low = Math.min(...known), high = Math.max(...known);
  const logarithmic = !axis.labels && low > 0 && high / low >= 50;
  const map = logarithmic ? Math.log : (value) => value;
  const width = map(high) - map(low);
  return {
    low, high, logarithmic,
    of: (value) => (value == null ? null : width > 0 ? (map(value) - map(low)) / width : 0.5),
  };
}

function drawParallel(figure) {
  const { axes, runs } = DATA, gap = 150, top = 46, height = 220, left = 70;
  const width = left * 2 + gap * (axes.length - 1);
  const svg = shape("svg", { width, height: height + top + 34, role: "img",
    "aria-label": "Parallel coordinates of settings and results" });
  const scales = axes.map(positionsOf);
  const across = (number) => left + gap * number, up = (share) => top + height * (1 - share);
  axes.forEach((axis, number) => drawAxis(svg, axis, scales[number], across(number), up));
  const lines = runs.map((run, index) => {
    const points = axes.map((axis, number) => [number, scales[number].of(axis.values[index])])
      .filter(([, share]) => share != null).map(([number, share]) => `${across(number)},${up(share)}`);
    const values = axes.map((axis) => `${axis.name}: ${axis.labels ? axis.labels[axis.values[index]] : formatted(axis.values[index])}`);
    const line = shape("polyline", { class: `line run-${index % 8}`, points: points.join(" "), tabindex: 0 },
      shape("title", {}, `${run.name} (${run.id})\n${values.join("\n")}`));
    const said = () => { caption.textContent = `${run.name} (${run.id}) — ${values.join(", ")}`; };
    line.addEventListener("pointerenter", said);
    line.addEventListener("focus", said);
    return line;
  });
  svg.append(...lines);
  const caption = element("figcaption", { textContent: "Point at a line, or reach it with the tab key." });
  figure.append(element("div", { className: "scroll", tabIndex: 0, attributes: { role: "region",
    "aria-label": "Settings and results" } }, svg), caption);
}

function drawAxis(svg, axis, scale, x, up) {
  const short = axis.name.length > 22 ? `…${axis.name.slice(-21)}` : axis.name;
  const text = (y, content, kind) => shape("text", { x, y, class: kind, "text-anchor": "middle" }, content);
  svg.append(shape("line", { class: "axis", x1: x, x2: x, y1: up(0), y2: up(1) }),
    shape("g", {}, shape("title", {}, axis.name), text(16, short, "name")));
  if (axis.labels) {
    axis.labels.forEach((label, place) => {
      const clipped = label.length > 20 ? `${label.slice(0, 19)}…` : label;
      svg.append(text(up(scale.of(place)) - 5, clipped, "value"));
    });
  } else {
    svg.append(text(up(1) - 10, formatted(scale.high), "value"), text(up(0) + 18, formatted(scale.low), "value"));
  }
}
