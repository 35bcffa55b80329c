// News from the server that the page comes from.

// The same charts with the same curves, in the same places?
const shapeOf = (data) => JSON.stringify([data.charts, data.axes.length > 0,
  data.runs.map((run) => [run.id, run.epochs.steps.length > 0, run.clock.steps.length > 1,
    run.curves.map((curve) => [curve.name, curve.per])])]);
let shapeDrawn = shapeOf(DATA);

function takeNews({ data, sections }) {
  const focus = document.activeElement?.id;
  for (const [name, html] of Object.entries(sections)) {
    // HTML of the server's own making, in which every name of a run is escaped.
    if (name !== "curves") replaceSection(name, html);
  }
  decode(data);
  const now = shapeOf(data);
  DATA.runs = data.runs;
  DATA.charts = data.charts;
  DATA.axes = data.axes;
  if (now === shapeDrawn) {
    for (const chart of charts) chart.take();
    redrawAll();
    const parallel = document.getElementById("parallel");
    if (parallel) {
      parallel.replaceChildren();
      drawParallel(parallel);
    }
  } else {
    shapeDrawn = now;
    rebuild(sections.curves);
  }
  if (focus) document.getElementById(focus)?.focus();
}

function replaceSection(name, html) {
  let old = document.getElementById(name);
  if (!old) { // the first picture of a run
    old = document.createElement("section");
    document.getElementById("time").before(old);
    old.id = name;
  }
  const opened = [...old.querySelectorAll("details")].map((one) => one.open);
  old.outerHTML = html;
  document.getElementById(name).querySelectorAll("details").forEach((one, place) => {
    if (place in opened) one.open = opened[place];
  });
}

// New curves: all charts anew, with what the reader chose.
function rebuild(html) {
  const hidden = new Map(charts.map((chart) => [chart.key, chart.hidden]));
  const focused = charts.find((chart) => chart.place === document.activeElement)?.key;
  for (const chart of charts) chart.plot?.destroy();
  charts.length = 0;
  watcher?.disconnect();
  replaceSection("curves", html);
  draw(hidden);
  for (const chart of charts) {
    chart.zoomed();
    if (chart.key === focused) chart.place.focus({ preventScroll: true });
  }
}

function listen() {
  const said = document.getElementById("made");
  const source = new EventSource("events");
  source.addEventListener("report", (event) => {
    takeNews(JSON.parse(event.data));
    said.textContent = `Treadle, live: as of ${new Date().toLocaleTimeString()}`;
    said.classList.remove("lost");
  });
  source.addEventListener("error", () => {
    said.textContent = "Treadle: the connection is lost; trying again";
    said.classList.add("lost");
  });
  addEventListener("pagehide", () => source.close());
}

listen();
