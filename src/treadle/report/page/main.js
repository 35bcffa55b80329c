// Put everything in its place.

function start() {
  const figures = [...document.querySelectorAll("figure.chart")];
  for (const figure of figures) charts.push(new Chart(figure, Number(figure.dataset.chart)));
  if (charts.length) controls(document.getElementById("controls"));
  // Charts are drawn when they come near the screen: a page may have hundreds.
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      const chart = charts[figures.indexOf(entry.target)];
      if (entry.isIntersecting && !chart.visible) {
        chart.visible = true;
        chart.redraw();
      }
    }
  }, { rootMargin: "400px" });
  for (const figure of figures) watcher.observe(figure);
  const sizes = new ResizeObserver(() => {
    for (const chart of charts) {
      const width = Math.max(chart.place.clientWidth, 200);
      if (chart.plot && chart.plot.width !== width) chart.plot.setSize({ width, height: HEIGHT });
    }
  });
  for (const chart of charts) sizes.observe(chart.place);
  addEventListener("beforeprint", () => {
    for (const chart of charts) {
      chart.visible = true;
      if (!chart.plot) chart.redraw();
    }
  });
  const parallel = document.getElementById("parallel");
  if (parallel) drawParallel(parallel);
  theme();
}

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

start();
