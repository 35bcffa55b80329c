// Put everything in its place.

let watcher = null;

// All charts; what is hidden in them by its key, where the page knew that before.
function draw(hidden = new Map()) {
  const figures = [...document.querySelectorAll("figure.chart")];
  for (const figure of figures) {
    const number = Number(figure.dataset.chart);
    charts.push(new Chart(figure, number, hidden.get(keyOf(number))));
  }
  if (charts.length) controls(document.getElementById("controls"));
  // Charts are drawn when they come near the screen: a page may have hundreds.
  watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      const chart = charts[figures.indexOf(entry.target)];
      if (entry.isIntersecting && !chart.visible) {
        chart.visible = true;
        chart.redraw();
      }
    }
  }, { rootMargin: "400px" });
  for (const figure of figures) watcher.observe(figure);
  for (const chart of charts) sizes.observe(chart.place);
  const parallel = document.getElementById("parallel");
  if (parallel) drawParallel(parallel);
}

const sizes = new ResizeObserver(() => {
  for (const chart of charts) {
    const width = Math.max(chart.place.clientWidth, 200);
    if (chart.plot && chart.plot.width !== width) chart.plot.setSize({ width, height: HEIGHT });
  }
});

addEventListener("beforeprint", () => {
  for (const chart of charts) {
    chart.visible = true;
    if (!chart.plot) chart.redraw();
  }
});

// Light or dark as the system has it, until the reader chooses.
function theme() {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const button = document.getElementById("theme"), root = document.documentElement;
  const dark = () => (root.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";
  const named = () => { button.textContent = dark() ? "Light" : "Dark"; };
  button.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    named();
    redrawAll();
  });
  system.addEventListener("change", () => {
    named();
    redrawAll();
  });
  named();
  button.hidden = false;
}

draw();
theme();
