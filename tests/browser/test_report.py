"""The report in a real browser: what a reader does with it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.report.samples import HOSTILE, empty, hostile, usual

from treadle.media import png_of
from treadle.runs import Run
from treadle.runs.media import of_histogram, of_picture, of_text

Open = Callable[..., Any]

PLOT = "figure.chart .plot"
FIRST = "figure.chart >> nth=0"


def drawn(page: Any, figure: str = FIRST) -> str:
    """What a chart shows, as the bytes of its picture."""
    page.locator(figure).scroll_into_view_if_needed()  # what is far away is not drawn
    page.wait_for_selector(f"{figure} >> canvas")
    return str(page.locator(f"{figure} >> canvas").evaluate("canvas => canvas.toDataURL()"))


def readout(page: Any, figure: str = FIRST) -> str:
    return str(page.locator(f"{figure} >> .readout").inner_text())


def step_under_cursor(page: Any) -> float:
    match = re.search(r"(?:step|epoch|hours) ([-0-9.e+]+)", readout(page))
    assert match is not None, readout(page)
    return float(match[1])


def first_shown_step(page: Any) -> float:
    """Put the cursor to the left end of the first chart: the first step that is in view."""
    page.focus(f"{FIRST} >> .plot")
    for _ in range(60):
        page.keyboard.press("ArrowLeft")
    return step_under_cursor(page)


def test_all_is_there_and_the_curves_are_drawn(open_report: Open, tmp_path: Path) -> None:
    page = open_report(usual(tmp_path / "run"))
    assert page.title() == "usual"
    assert page.locator("h2").all_inner_texts() == [
        "Summary",
        "Curves",
        "Where the time went",
        "Events and checkpoints",
        "Epochs",
        "What was run",
    ]
    titles = page.locator("figure.chart figcaption").all_inner_texts()
    assert titles == [
        "loss",
        "accuracy",
        "learning_rate",
        "gradient norm",
        "samples_per_second",
        "seconds of an epoch",
    ]
    for number in range(len(titles)):
        drawn(page, f"figure.chart >> nth={number}")
    assert "val/loss" in readout(page)
    text = page.inner_text("main")
    for part in (
        "stopped",
        "val/loss did not get better for 3 epochs",
        "resumed",
        "torch.optim.SGD",
        "c0ffee",
    ):
        assert part in text


def test_dragging_zooms_all_charts_and_a_double_click_shows_everything(
    open_report: Open, tmp_path: Path
) -> None:
    page = open_report(usual(tmp_path / "run"))
    second = "figure.chart >> nth=1"
    before, other = drawn(page), drawn(page, second)
    page.locator(f"{FIRST} >> .plot").scroll_into_view_if_needed()
    box = page.locator(f"{FIRST} >> .u-over").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.75, box["y"] + 55, steps=5)
    page.mouse.up()
    page.wait_for_selector("figure.chart.zoomed")
    assert drawn(page) != before
    assert drawn(page, second) != other
    assert 290 < first_shown_step(page) < 310
    page.mouse.dblclick(box["x"] + box["width"] * 0.5, box["y"] + 100)
    page.wait_for_function("!document.querySelector('figure.chart').classList.contains('zoomed')")
    assert first_shown_step(page) == 1


def test_a_vertical_drag_zooms_one_chart_vertically(open_report: Open, tmp_path: Path) -> None:
    page = open_report(usual(tmp_path / "run"))
    before = drawn(page)
    page.locator(f"{FIRST} >> .plot").scroll_into_view_if_needed()
    box = page.locator(f"{FIRST} >> .u-over").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + 120, steps=5)
    page.mouse.up()
    page.wait_for_selector("figure.chart.zoomed")
    assert drawn(page) != before
    page.click("#everything")
    page.mouse.move(0, 0)
    page.wait_for_function("!document.querySelector('figure.chart').classList.contains('zoomed')")


def test_curves_are_switched_off_and_on(open_report: Open, tmp_path: Path) -> None:
    page = open_report(usual(tmp_path / "run"))
    before = drawn(page)
    button = page.locator(f"{FIRST} >> .legend button", has_text="val/loss")
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    assert drawn(page) != before
    assert "val/loss" not in readout(page)
    button.click()
    assert "val/loss" in readout(page)
    for button in page.locator(f"{FIRST} >> .legend button").all():
        button.click()
    assert page.locator(f"{FIRST} >> .plot").inner_text() == "Nothing to draw."


def test_log_scale_smoothing_axis_and_events_change_what_is_drawn(open_report: Open, tmp_path: Path) -> None:
    page = open_report(usual(tmp_path / "run"))
    seen = [drawn(page)]
    page.click(f"{FIRST} >> .log")
    assert page.locator(f"{FIRST} >> .log").get_attribute("aria-pressed") == "true"
    seen.append(drawn(page))
    page.click("#logarithmic")  # all charts
    assert (
        page.locator("figure.chart .log[aria-pressed=true]").count() == page.locator("figure.chart").count()
    )
    page.click("#logarithmic")
    assert drawn(page) == seen[0]
    page.locator("#smoothing").fill("0.9")
    seen.append(drawn(page))
    for axis, last in (("epoch", "epoch 6"), ("time", "hours ")):
        page.select_option("#axis", axis)
        seen.append(drawn(page))
        assert last in readout(page)
    page.uncheck("#marks")
    seen.append(drawn(page))
    assert len(set(seen)) == len(seen)


def test_everything_can_be_done_with_the_keyboard_alone(open_report: Open, tmp_path: Path) -> None:
    page = open_report(usual(tmp_path / "run"))
    drawn(page)
    reached = []
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate(
                "(e => e.id || e.className || e.getAttribute('href') || e.tagName)(document.activeElement)"
            )
        )
        if reached[-1] == "plot":
            break
    assert {"skip", "theme", "#curves", "axis", "smoothing", "logarithmic", "marks", "closer", "log"} <= set(
        reached
    )
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    assert "zoom" in page.evaluate("document.activeElement.getAttribute('aria-label')")
    everything = drawn(page)
    page.keyboard.press("ArrowRight")
    first = step_under_cursor(page)
    page.keyboard.press("ArrowRight")
    assert step_under_cursor(page) > first
    page.keyboard.press("+")
    page.keyboard.press("+")
    page.keyboard.press("Shift+ArrowRight")
    assert first_shown_step(page) > 1
    zoomed = drawn(page)
    page.keyboard.press("l")
    assert drawn(page) not in (zoomed, everything)
    page.keyboard.press("l")
    page.keyboard.press("0")
    assert drawn(page) == everything
    for _ in range(3):
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('aria-pressed')") == "true"
    page.keyboard.press("Space")
    assert page.evaluate("document.activeElement.getAttribute('aria-pressed')") == "false"
    assert drawn(page) != everything


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [340, 768, 1600])
def test_it_fits_narrow_and_wide_screens_light_and_dark(
    open_report: Open, tmp_path: Path, width: int, scheme: str
) -> None:
    page = open_report([usual(tmp_path / "run"), hostile(tmp_path / "other")], width=width, scheme=scheme)
    drawn(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") == (scheme == "light")
    columns = page.evaluate(
        "getComputedStyle(document.querySelector('.charts')).gridTemplateColumns.split(' ').length"
    )
    assert columns == {340: 1, 768: 1, 1600: 2}[width]
    assert page.locator(f"{FIRST} >> canvas").bounding_box()["width"] <= width


def test_light_and_dark_can_be_chosen_and_the_charts_follow(open_report: Open, tmp_path: Path) -> None:
    page = open_report(usual(tmp_path / "run"))
    light = drawn(page)
    page.click("#theme")
    dark = drawn(page)
    assert dark != light
    assert page.inner_text("#theme") == "Light"
    page.click("#theme")
    assert drawn(page) == light
    page.emulate_media(color_scheme="dark")  # chosen is chosen
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


def test_names_and_values_stay_text_whatever_they_are(open_report: Open, tmp_path: Path) -> None:
    page = open_report([hostile(tmp_path / "one"), hostile(tmp_path / "two"), hostile(tmp_path / "three")])
    for number in range(page.locator("figure.chart").count()):
        page.locator(f"figure.chart >> nth={number}").scroll_into_view_if_needed()
    page.wait_for_timeout(200)
    for axis in ("epoch", "time", "step"):
        if page.locator(f"#axis option[value={axis}]").count():
            page.select_option("#axis", axis)
    page.check("#logarithmic")
    page.locator("#smoothing").fill("0.5")
    assert page.evaluate("window.hacked") is None
    assert page.locator("img").count() == 0
    assert page.locator("script").count() == 3
    assert page.locator("figcaption bdi").first.text_content() == HOSTILE
    assert "values are not finite" in page.inner_text("figure.chart >> nth=0")


def test_several_runs_lie_over_each_other_and_can_be_switched(open_report: Open, tmp_path: Path) -> None:
    rates = (0.001, 0.01, 0.1)
    page = open_report([usual(tmp_path / f"run-{lr}", f"run-{lr}", lr) for lr in rates])
    rows = page.locator("#differences tbody tr").all_inner_texts()
    assert [row.split() for row in rows] == [["task.lr", *map(str, rates)]]
    assert "part at step 1" in page.inner_text("#differences ul")
    before = drawn(page)
    page.locator("#controls .toggle", has_text="run-0.01 ").click()
    assert drawn(page) != before
    page.locator("#parallel").scroll_into_view_if_needed()
    lines = page.locator("#parallel polyline")
    assert lines.count() == 3
    assert page.locator("#parallel text.name").first.text_content() == "task.lr"
    lines.nth(2).focus()
    assert re.search(r"run-0.1 .*task.lr: 0.1, .*val/loss: ", page.inner_text("#parallel figcaption"))


def test_a_run_that_has_just_begun_has_a_page_too(open_report: Open, tmp_path: Path) -> None:
    with empty(tmp_path / "run") as run:
        page = open_report(run)
    assert "running" in page.inner_text("#summary")
    assert "Nothing is recorded yet." in page.inner_text("#curves")


def test_what_is_not_allowed_to_run_does_not_run(browser: Any, tmp_path: Path) -> None:
    """The page's policy is in force: a script slipped into it afterwards is not run, a request not made."""
    from treadle.report import render

    text = render(usual(tmp_path / "run")).replace(
        "<main>", "<main><script>window.hacked=1</script><img src='https://example.invalid/x.png' alt=''>"
    )
    path = tmp_path / "changed.html"
    path.write_text(text)
    page = browser.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.goto(path.as_uri())
    page.wait_for_selector("figure.chart canvas")
    assert page.evaluate("window.hacked") is None
    assert sum("Content Security Policy" in text for text in said) >= 2
    page.close()


def test_pictures_and_histograms_are_shown(open_report: Open, tmp_path: Path) -> None:
    with Run.create(tmp_path / "run") as run:
        run.add_media([of_picture("val/results", 3, png_of(torch.rand(8, 16)))])
        run.add_media([of_histogram("weights", 3, [0, 1, 2], [1, 3]), of_text("layers", 0, "one\ntwo")])
        page = open_report(run)
    assert page.locator("#pictures img").evaluate("image => [image.naturalWidth, image.naturalHeight]") == [
        16,
        8,
    ]
    assert page.locator("#pictures rect").count() == 2
    assert page.inner_text("#pictures pre") == "one\ntwo"
