// Charts by keyboard, and what is marked in them.

const KEYS_HELP = "Left and right move the cursor, plus and minus zoom, shift with left and right moves " +
  "along, 0 shows everything, L switches the logarithmic scale.";

function moveCursor(chart, by) {
  const { plot } = chart;
  if (!plot) return;
  const [first, last] = plot.series[0].idxs;
  const at = plot.cursor.idx ?? (by > 0 ? first - 1 : last + 1);
  const place = Math.max(first, Math.min(last, at + by));
  plot.setCursor({ left: plot.valToPos(plot.data[0][place], "x"), top: plot.over.clientHeight / 2 });
}

function listenToKeys(chart) {
  const stride = () => Math.max(1, Math.round((chart.plot?.data[0].length ?? 0) / 50));
  const middle = () => {
    const place = chart.plot?.cursor.idx;
    return place == null ? null : chart.plot.data[0][place];
  };
  const actions = {
    ArrowLeft: () => moveCursor(chart, -stride()), ArrowRight: () => moveCursor(chart, stride()),
    "shift ArrowLeft": () => pan(-0.25), "shift ArrowRight": () => pan(0.25),
    "+": () => zoomBy(0.5, middle()), "=": () => zoomBy(0.5, middle()), "-": () => zoomBy(2, middle()),
    0: () => chart.reset(), Escape: () => chart.reset(), l: () => chart.toggleLogarithm(),
  };
  chart.place.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const action = actions[event.shiftKey && event.key.startsWith("Arrow") ? `shift ${key}` : key];
    if (action) {
      event.preventDefault();
      action();
    }
  });
}

// Events as lines with their names, checkpoints as small triangles on the axis.
function drawMarks(plot, shown) {
  const runs = [...new Set(shown.map((curve) => curve.run))];
  if (runs.length > 3) return;
  const { ctx, bbox } = plot, scale = devicePixelRatio;
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width + 6 * scale, bbox.height);
  ctx.clip();
  ctx.font = `${11 * scale}px system-ui, sans-serif`;
  for (const run of runs) {
    const stroke = SEVERAL ? color(`run-${DATA.runs.indexOf(run) % 8}`) : color("soft");
    const across = (step) => plot.valToPos(AXES[chosen.axis].of(step, run), "x", true);
    ctx.fillStyle = ctx.strokeStyle = stroke;
    for (const step of run.checkpoints) drawTriangle(ctx, across(step), bbox.top + bbox.height, 5 * scale);
    const labels = new Map();
    for (const [step, kind] of run.events) labels.set(step, [...(labels.get(step) ?? []), kind]);
    for (const [step, kinds] of labels) drawEvent(ctx, bbox, across(step), [...new Set(kinds)].join(", "), scale);
  }
  ctx.restore();
}

function drawTriangle(ctx, x, y, size) {
  ctx.beginPath();
  ctx.moveTo(x, y - 1.6 * size);
  ctx.lineTo(x + size, y);
  ctx.lineTo(x - size, y);
  ctx.fill();
}

function drawEvent(ctx, bbox, x, label, scale) {
  ctx.lineWidth = scale;
  ctx.setLineDash([3 * scale, 4 * scale]);
  ctx.beginPath();
  ctx.moveTo(x, bbox.top);
  ctx.lineTo(x, bbox.top + bbox.height);
  ctx.stroke();
  // Beside the line, on the side where there is room.
  const right = x - bbox.left < bbox.width / 2;
  ctx.textAlign = right ? "left" : "right";
  ctx.textBaseline = "top";
  ctx.fillText(label, x + (right ? 4 : -4) * scale, bbox.top + 2 * scale);
}
