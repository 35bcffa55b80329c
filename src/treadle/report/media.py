"""Pictures, histograms and texts of a run, on its page."""

from __future__ import annotations

import base64
from collections.abc import Sequence

from treadle.report import markup
from treadle.report.describing import clipped
from treadle.runs import Medium, Run

ROOM = 220_000
"""Bytes that all pictures of a page may take: a page stays small, whatever was logged."""

_TEXT, _EACH = 20_000, 40  # characters of a text; things of one run


def media(runs: Sequence[Run], labels: Sequence[str]) -> str:
    """The newest of each name; an empty text where there is nothing."""
    left = ROOM
    parts = []
    for run, label in zip(runs, labels, strict=True):
        found = run.media(newest=True)
        shown = []
        for medium in sorted(found, key=lambda one: (one.kind == "text", one.name))[:_EACH]:
            if medium.kind == "picture" and len(medium.data) * 4 // 3 > left:
                size = f"{len(medium.data) / 1000:.0f} KB"
                note = markup.note(f"The picture ({size}) is not on this page, which would grow too large.")
                shown.append(_figure(medium, note))
                continue
            left -= len(medium.data) * 4 // 3 if medium.kind == "picture" else 0
            shown.append(_figure(medium, _CONTENT[medium.kind](medium)))
        if shown:
            title = f"<h3>{markup.name(label)}</h3>" if len(runs) > 1 else ""
            less = len(found) - len(shown)
            rest = markup.note(f"{less} more are not shown.") if less > 0 else ""
            parts.append(f'{title}<div class="media">{"".join(shown)}</div>{rest}')
    return markup.section("pictures", "Pictures and texts", *parts) if parts else ""


def _figure(medium: Medium, content: str) -> str:
    where = f'<span class="where">step {medium.step}</span>'
    caption = f"<figcaption>{markup.name(clipped(medium.name, 120))} {where}</figcaption>"
    return f'<figure class="medium {medium.kind}">{caption}{content}</figure>'


def _picture(medium: Medium) -> str:
    data = base64.b64encode(medium.data).decode()
    label = markup.escape(clipped(medium.name, 120))
    return f'<img alt="{label}" src="data:image/png;base64,{data}">'


def _text(medium: Medium) -> str:
    return f'<pre tabindex="0">{markup.escape(clipped(medium.text, _TEXT))}</pre>'


def _histogram(medium: Medium) -> str:
    edges, counts = medium.histogram
    low, width, most = edges[0], edges[-1] - edges[0], max(counts)
    if not (width > 0 and most > 0):
        return markup.note("There is nothing finite in it.")
    bars = [
        f'<rect x="{(left - low) / width * 100:.3f}" width="{(right - left) / width * 100:.3f}" '
        f'y="{40 - 40 * count / most:.3f}" height="{40 * count / most:.3f}"/>'
        for left, right, count in zip(edges, edges[1:], counts, strict=False)
    ]
    label = markup.escape(f"{sum(counts)} values from {edges[0]:.4g} to {edges[-1]:.4g}")
    ends = f"<span>{edges[0]:.4g}</span><span>{sum(counts)} values</span><span>{edges[-1]:.4g}</span>"
    size = 'viewBox="0 0 100 40" preserveAspectRatio="none" role="img"'
    return (
        f'<svg class="bars" {size} aria-label="{label}">{"".join(bars)}</svg><div class="ends">{ends}</div>'
    )


_CONTENT = {"picture": _picture, "text": _text, "histogram": _histogram}
