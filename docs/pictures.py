"""Write the pictures of the README from real runs: `python docs/pictures.py`.

docs/pictures/terminal.svg is the display in the middle of a run; docs/pictures/report.png is the report of
three runs in Chromium (its place is /usr/bin/chromium, or the environment variable CHROMIUM).
"""

from __future__ import annotations

import io
import os
import re
import tempfile
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

import treadle
from treadle.callbacks import Summary
from treadle.callbacks.live_progress import TerminalProgress
from treadle.config import Experiment
from treadle.report import write_report

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs" / "pictures"
MOMENT = 190  # the step at which the display is taken


class Snapshot(TerminalProgress):
    """The display on a console that keeps what is printed, with its bars as they stand at one step."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self.seconds = 0.0  # draw after every step
        self._done = False

    def on_step_end(self, state: treadle.State) -> None:
        """Draw after every step, however fast."""
        self._due = 0.0
        super().on_step_end(state)
        if self._done:
            state.request_stop("the picture is taken")

    def show(self, panel: Any) -> None:
        """Print the lines that wait; and the bars, once."""
        if not self._done:
            self._print_waiting()
            pace = self._pace
            if pace is not None and self._step >= MOMENT:
                self.console.print(panel)
                self._done = True

    def going_on(self, state: treadle.State, now: float) -> None:
        """Remember where the run stands."""
        self._step = state.progress.step
        super().going_on(state, now)

    def line(self, text: str, style: str = "") -> None:
        """Nothing more after the moment."""
        if not self._done:
            super().line(text, style)


def experiment(folder: Path, *changes: str) -> Experiment:
    """The example of the digits, in a folder that goes away."""
    config = str(ROOT / "examples" / "digits.yaml")
    return Experiment.read(config, [f'trainer.run_dir="{folder}"', *changes], [])


def train(found: Experiment, *callbacks: treadle.Callback) -> treadle.Run:
    """Train without a display of its own."""
    trainer = found.build_trainer().replace(progress=False, callbacks=callbacks)
    return trainer.fit(
        found.build_task(), found.build_data("train"), found.build_data("val"), config=found.config
    )


def terminal(path: Path) -> None:
    """The display as SVG, without rich's fonts from elsewhere."""
    console = Console(
        record=True, width=88, file=io.StringIO(), force_terminal=True, color_system="truecolor", _environ={}
    )
    with tempfile.TemporaryDirectory() as scratch:
        train(experiment(Path(scratch) / "run"), Summary(console=console), Snapshot(console))
    svg = console.export_svg(title="treadle fit examples/digits.yaml", unique_id="terminal")
    svg = re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)
    path.write_text(re.sub(r"[ \t]+\n", "\n", svg), encoding="utf-8")


def report(path: Path, epochs: int = 20) -> None:
    """The upper part of the page of three runs."""
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as scratch:
        runs = []
        for name, rate in (("slow", 5e-4), ("usual", 2e-3), ("fast", 1e-2)):
            found = experiment(
                Path(scratch) / name, f"task.init_args.lr={rate}", f"trainer.max_epochs={epochs}"
            )
            runs.append(train(found))
        page_file = write_report(runs, Path(scratch) / "report.html")
        with sync_playwright() as started:
            place = os.environ.get("CHROMIUM", "/usr/bin/chromium")
            browser = started.chromium.launch(executable_path=place, args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1100, "height": 600})
            page.goto(page_file.as_uri())
            page.locator("figure.chart .log").first.click()
            page.locator("#curves").evaluate("section => scrollTo(0, section.offsetTop + 20)")
            page.locator("figure.chart canvas").nth(2).wait_for()
            page.mouse.move(300, 330)
            page.wait_for_timeout(300)
            page.screenshot(path=path)
            browser.close()


def main() -> None:
    """Write both."""
    torch.set_num_threads(1)
    PICTURES.mkdir(exist_ok=True)
    terminal(PICTURES / "terminal.svg")
    report(PICTURES / "report.png")
    for picture in sorted(PICTURES.iterdir()):
        print(f"{picture.relative_to(ROOT)}: {picture.stat().st_size / 1000:.0f} KB")


if __name__ == "__main__":
    main()
