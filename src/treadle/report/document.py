"""The report: one HTML file with everything in it, and a policy that lets it ask for nothing."""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from treadle.report import describing, markup, sections
from treadle.report.curves import buckets_for, clock_of, curves_of
from treadle.report.grouping import SECTIONS, charts_of
from treadle.report.media import media
from treadle.report.parallel import axes_of
from treadle.runs import Run, RunError

_HERE = Path(__file__).parent
_STYLES = ("vendored/uplot/uPlot.min.css", "page/page.css", "page/charts.css")
_LIBRARY = "vendored/uplot/uPlot.iife.min.js"
_PAGE = ("curves.js", "state.js", "chart.js", "keys.js", "legend.js", "parallel.js", "main.js")
_LIVE = "live.js"
_OFTEN = 20  # events of one kind; with more of them they are not drawn


def write_report(runs: Run | Sequence[Run], path: Path | str) -> Path:
    """Write the report of a run, or of several side by side, to an HTML file; returns its path.

    The file is replaced at once: whoever reads it meanwhile sees the old one or the new one.

    Raises:
        ValueError: no run is given.
        RunError: a run cannot be read, or the file cannot be written.
    """
    path = Path(path)
    content = render(runs).encode("utf-8", "replace")
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise RunError(path, f"the report cannot be written: {error.strerror}") from error
    return path


def render(runs: Run | Sequence[Run], live: bool = False) -> str:
    """The report as text; with `live`, one that listens to the server it comes from.

    Raises:
        ValueError: no run is given.
        RunError: a run cannot be read.
    """
    runs = [runs] if isinstance(runs, Run) else list(runs)
    if not runs:
        raise ValueError("report: runs is empty; give at least one run")
    data = data_of(runs)
    title = " · ".join(sections.label_of(run) for run in runs[:4]) + (" · …" if len(runs) > 4 else "")
    parts = sections_of(runs, data)
    links = "".join(f'<a href="#{name}">{name.capitalize()}</a>' for name in parts)
    made = "Treadle, live" if live else f"Treadle report of {describing.moment(time.time())}"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy_of(live)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>{markup.escape(title)}</title>
<style>{_style()}</style>
</head>
<body>
<a class="skip" href="#curves">Skip to the curves</a>
<header><h1>{markup.name(title)}</h1>
<p class="made" id="made" role="status">{made}</p>
<button type="button" id="theme" hidden>Dark</button></header>
<nav aria-label="Sections">{links}</nav>
<main>{"".join(parts.values())}</main>
<script type="application/json" id="data">{markup.embedded(data)}</script>
<script>{_text(_LIBRARY)}</script>
<script>{_script(live)}</script>
</body>
</html>
"""


def policy_of(live: bool = False) -> str:
    """What the page may do: run its own two scripts; and ask for nothing, or for news where it is live."""
    news = "connect-src 'self'; " if live else ""
    return (
        f"default-src 'none'; script-src {_hash(_text(_LIBRARY))} {_hash(_script(live))}; "
        f"style-src {_hash(_style())}; img-src data:; {news}base-uri 'none'; form-action 'none'"
    )


def sections_of(runs: Sequence[Run], data: dict[str, Any] | None = None) -> dict[str, str]:
    """The sections of the page by their names, as HTML."""
    pictures = media(runs, [sections.label_of(run) for run in runs])
    return {
        "summary": sections.summary(runs),
        **({"differences": sections.differences(runs)} if len(runs) > 1 else {}),
        "curves": _curves(data_of(runs) if data is None else data),
        **({"pictures": pictures} if pictures else {}),
        "time": sections.time(runs),
        "events": sections.timeline(runs),
        "epochs": sections.epochs(runs),
        "settings": sections.settings(runs),
    }


def data_of(runs: Sequence[Run]) -> dict[str, Any]:
    """What the page draws: `runs` with their curves, `charts` with the names of theirs, axes to compare."""
    count = sum(len(run.names()) + len(run.history) for run in runs)
    drawn = [_run(run, buckets_for(count)) for run in runs]
    names = (curve["name"] for run in drawn for curve in run["curves"])
    charts = [chart._asdict() for chart in charts_of(names)]
    return {"runs": drawn, "charts": charts, "axes": axes_of(runs)}


def _run(run: Run, buckets: int) -> dict[str, Any]:
    rows = run.epoch_rows()
    counts: dict[str, int] = {}
    events = run.events
    for event in events:
        counts[event.kind] = counts.get(event.kind, 0) + 1
    return {
        "name": sections.label_of(run),
        "id": run.id,
        "epochs": {"steps": [row.step for row in rows], "epochs": [row.epoch for row in rows]},
        "clock": clock_of(run),
        "events": [
            [event.step, describing.clipped(event.kind, 40)]
            for event in events
            if counts[event.kind] <= _OFTEN
        ],
        "checkpoints": [int(path.name.removeprefix("step-")) for path in run.checkpoints],
        "curves": curves_of(run, buckets),
    }


def _curves(data: dict[str, Any]) -> str:
    groups = []
    for heading in SECTIONS:
        figures = [
            f'<figure class="chart" data-chart="{number}">'
            f"<figcaption>{markup.name(describing.clipped(chart['title'], 120))}</figcaption></figure>"
            for number, chart in enumerate(data["charts"])
            if chart["section"] == heading
        ]
        if figures:
            inside = f'<div class="charts">{"".join(figures)}</div>'
            hidden = heading == SECTIONS[-1]
            groups.append(markup.folded(heading, inside) if hidden else f"<h3>{heading}</h3>{inside}")
    asked = "<noscript><p class='note'>The curves need JavaScript; the tables do not.</p></noscript>"
    content = "".join(groups) or markup.note("Nothing is recorded yet.")
    parallel = '<h3>Settings and results</h3><figure id="parallel"></figure>' if data["axes"] else ""
    return markup.section("curves", "Curves", '<div id="controls" hidden></div>', asked, content, parallel)


@cache
def _text(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


@cache
def _style() -> str:
    return "".join(_text(name) for name in _STYLES)


@cache
def _script(live: bool) -> str:
    files = [f"page/{name}" for name in (*_PAGE, *([_LIVE] if live else []))]
    return '(() => {\n"use strict";\n' + "".join(_text(name) for name in files) + "})();\n"


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
