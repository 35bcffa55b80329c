"""The live page in a real browser: news arrive, and what the reader chose stays."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.report.samples import HOSTILE, usual

from treadle.report.live import LiveServer
from treadle.runs import Run

Open = Callable[..., Any]
LOSS = "figure.chart >> nth=0"


@pytest.fixture
def serve() -> Iterator[Callable[..., LiveServer]]:
    servers = []

    def serve(*runs: Run) -> LiveServer:
        server = LiveServer([Run.open(run.path or "") for run in runs], every=0.02)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        servers.append(server)
        return server

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def shows(page: Any, text: str, where: str = LOSS) -> None:
    """Wait until a text is there."""
    page.locator(f"{where} >> text={text}").first.wait_for()


def test_new_points_arrive_and_what_was_chosen_stays(open_page: Open, serve: Any, tmp_path: Path) -> None:
    with Run.create(tmp_path / "run", name="running") as run:
        run.append_steps([("train/loss", step, 1 / step) for step in range(1, 50)])
        page = open_page(serve(run).url)
        page.wait_for_selector(f"{LOSS} >> canvas")
        shows(page, "step 49")
        assert "running" in page.inner_text("#summary")
        page.click(f"{LOSS} >> .log")
        page.locator("#smoothing").fill("0.5")
        before = page.locator(f"{LOSS} >> canvas").evaluate("canvas => canvas.toDataURL()")
        run.append_steps([("train/loss", step, 1 / step) for step in range(50, 120)])
        shows(page, "step 119")
        assert page.locator(f"{LOSS} >> canvas").evaluate("canvas => canvas.toDataURL()") != before
        # An epoch ends: there are new curves and a new chart, and the tables change.
        run.append_epoch(1, 119, {"train/loss": 0.2, "val/loss": 0.3, "val/accuracy": 0.9})
        run.update(step=119, epoch=1)
        page.locator("figcaption >> text=accuracy").wait_for()
        assert page.locator(f"{LOSS} >> .log").get_attribute("aria-pressed") == "true"
        assert page.locator("#smoothing").input_value() == "0.5"
        page.locator("#epochs td >> text=0.3").wait_for()
        # A curve that was switched off stays so, also when others come.
        page.locator(f"{LOSS} >> .legend button", has_text="val/loss").click()
        run.append_epoch(2, 130, {"train/loss": 0.2, "val/loss": 0.3, "val/accuracy": 0.9, "val/f1": 0.8})
        page.locator("figcaption >> text=f1").wait_for()
        pressed = page.locator(f"{LOSS} >> .legend button", has_text="val/loss").get_attribute("aria-pressed")
        assert pressed == "false"
        run.update(status="finished", reason="done", step=130, epoch=2)
        page.locator("#summary >> text=finished").wait_for()
        assert page.inner_text("#made").startswith("Treadle, live: as of ")


def test_zoom_and_focus_stay_when_news_come(open_page: Open, serve: Any, tmp_path: Path) -> None:
    with Run.create(tmp_path / "run") as run:
        run.append_steps([("train/loss", step, 1 / step) for step in range(1, 101)])
        page = open_page(serve(run).url)
        page.wait_for_selector(f"{LOSS} >> canvas")
        page.focus(f"{LOSS} >> .plot")
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("+")
        page.wait_for_selector("figure.chart.zoomed")
        run.append_steps([("train/loss", step, 1 / step) for step in range(101, 103)])
        run.event("remark", 102)
        page.locator("#events >> text=remark").wait_for()
        assert page.locator("figure.chart.zoomed").count() == 1
        assert page.evaluate("document.activeElement.className") == "plot"


def test_several_runs_and_hostile_news(open_page: Open, serve: Any, tmp_path: Path) -> None:
    with Run.create(tmp_path / "run", name=HOSTILE) as run:
        page = open_page(serve(run, usual(tmp_path / "usual")).url)
        page.wait_for_selector(f"{LOSS} >> canvas")
        run.append_steps([(f"train/{HOSTILE}", 1, 1.0), (f"train/{HOSTILE}", 2, 2.0)])
        run.append_epoch(1, 2, {f"val/{HOSTILE}": 1.0})
        run.event(HOSTILE, 2, **{HOSTILE: HOSTILE})
        page.locator("#events td").first.wait_for()
        page.locator("figcaption bdi").nth(6).wait_for(state="attached")
        assert page.evaluate("window.hacked") is None
        assert page.locator("main img").count() == 0
        assert page.locator("main script").count() == 0


def test_a_server_that_goes_away_is_said(browser: Any, serve: Any, tmp_path: Path) -> None:
    server = serve(usual(tmp_path / "run"))
    page = browser.new_page()
    page.goto(server.url)
    page.wait_for_selector("text=live: as of")
    server.shutdown()
    server.server_close()
    page.wait_for_selector("text=the connection is lost")
    page.close()


def test_a_page_from_elsewhere_cannot_look(browser: Any, serve: Any, tmp_path: Path) -> None:
    """Even one that knows the token: neither as a stream, nor as a script, nor in a frame."""
    url = serve(usual(tmp_path / "run")).url
    path = tmp_path / "evil.html"
    path.write_text("<body>")
    page = browser.new_page()
    page.goto(path.as_uri())
    script = """url => new Promise((done) => {
        const source = new EventSource(url + "events");
        source.onmessage = source.onopen = () => done("open");
        source.onerror = () => done("refused");
    })"""
    assert page.evaluate(script, url) == "refused"
    assert page.evaluate("url => fetch(url).then(() => 'read', () => 'refused')", url) == "refused"
    page.close()
