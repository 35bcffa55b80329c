"""The sections of a report that are text and tables."""

from __future__ import annotations

import math
from collections.abc import Sequence

from treadle.report import describing, markup
from treadle.report.describing import clipped, text_of
from treadle.report.grouping import EPOCH_SECONDS
from treadle.report.timing import Part, duration, times_of
from treadle.runs import Event, Run

_EPOCHS, _EVENTS, _RESULTS, _DIFFERENCES = 200, 100, 60, 300  # rows that are shown


def label_of(run: Run) -> str:
    """How a run is called on the page."""
    return clipped(run.name, 80)


def summary(runs: Sequence[Run]) -> str:
    """How the runs stand, and their results."""
    facts = "".join(_facts(number, run, len(runs) > 1) for number, run in enumerate(runs))
    results = _results(runs[0]) if len(runs) == 1 else _results_of_all(runs)
    return markup.section("summary", "Summary", f'<div class="facts">{facts}</div>', results)


def _facts(number: int, run: Run, several: bool) -> str:
    times = times_of(run)
    rows = [
        ("epochs", str(run.epoch)),
        ("steps", f"{run.step:,}".replace(",", "\u202f")),
        ("time", duration(times.running)),
    ]
    title = (
        f'<h3><span class="swatch run-{number % 8}"></span>{markup.name(label_of(run))}</h3>'
        if several
        else ""
    )
    badge = f'<span class="status {markup.escape(run.status)}">{markup.escape(run.status)}</span>'
    reason = f" {markup.name(clipped(run.reason))}" if run.reason else ""
    cells = "".join(f"<div><dt>{key}</dt><dd>{markup.escape(value)}</dd></div>" for key, value in rows)
    return f'<div class="fact">{title}<p>{badge}{reason}</p><dl>{cells}</dl></div>'


def _results(run: Run) -> str:
    rows = []
    history = run.history
    for name, column in list(history.items())[2 : 2 + _RESULTS]:
        known = [
            (value, epoch)
            for value, epoch in zip(column, history["epoch"], strict=True)
            if math.isfinite(value)
        ]
        if known and not name.startswith("time/"):
            low, high = min(known), max(known, key=lambda pair: (pair[0], -pair[1]))
            rows.append(
                (
                    markup.name(clipped(name, 120)),
                    text_of(known[-1][0]),
                    *(text_of(low[0]), str(int(low[1]))),
                    *(text_of(high[0]), str(int(high[1]))),
                )
            )
    if not rows:
        return markup.note("No epoch is finished yet.")
    head = ("metric", "last", "lowest", "in epoch", "highest", "in epoch")
    return markup.table(head, rows, "Results", numeric=True)


def _results_of_all(runs: Sequence[Run]) -> str:
    lasts = [last_results(run) for run in runs]
    names = list(dict.fromkeys(name for last in lasts for name in last))[:_RESULTS]
    head = ("last value of", *(markup.name(f"{label_of(run)} ({run.id})") for run in runs))
    rows = [[markup.name(clipped(name, 120)), *(text_of(last.get(name)) for last in lasts)] for name in names]
    return markup.table(head, rows, "Results of all runs", numeric=True) if rows else ""


def last_results(run: Run) -> dict[str, float]:
    """The last finite value of every column of the history but the durations."""
    history = run.history
    return {
        name: known[-1]
        for name, column in list(history.items())[2:]
        if not name.startswith("time/") and (known := [value for value in column if math.isfinite(value)])
    }


def differences(runs: Sequence[Run]) -> str:
    """In what several runs differ, and where they part."""
    rows = describing.differences(runs)
    head = ("setting", *(markup.name(f"{label_of(run)} ({run.id})") for run in runs))
    cells = [
        [markup.name(clipped(key, 160)), *map(markup.name, values)] for key, values in rows[:_DIFFERENCES]
    ]
    shown = (
        markup.table(head, cells, "Settings that differ")
        if rows
        else markup.note("All settings are the same.")
    )
    more = markup.note(f"{len(rows) - _DIFFERENCES} more are not shown.") if len(rows) > _DIFFERENCES else ""
    said = "".join(f"<li>{markup.name(sentence)}</li>" for sentence in describing.partings(runs))
    return markup.section("differences", "Differences", shown, more, f"<ul>{said}</ul>")


def time(runs: Sequence[Run]) -> str:
    """Where the time went."""
    return markup.section("time", "Where the time went", *(_time(run, len(runs) > 1) for run in runs))


def _time(run: Run, several: bool) -> str:
    times = times_of(run)
    title = f"<h3>{markup.name(label_of(run))}</h3>" if several else ""
    breaks = f", and {duration(times.breaks)} of breaks before it was resumed" if times.breaks > 0 else ""
    return f"{title}<p>{duration(times.running)} of running{breaks}.</p>{_bar(times.parts)}"


def _bar(parts: Sequence[Part]) -> str:
    total = sum(part.seconds for part in parts)
    if not total > 0:
        return markup.note("Nothing is recorded.")
    pieces, rows, left = [], [], 0.0
    for number, part in enumerate(parts):
        width = 100 * part.seconds / total
        # Sizes as attributes of SVG: the page's own policy forbids styles inside of elements.
        pieces.append(
            f'<rect class="part-{number % 8}" x="{left:.3f}" width="{width:.3f}" y="0" height="10"/>'
        )
        swatch = f'<span class="swatch part-{number % 8}"></span>{markup.name(part.name)}'
        rows.append((swatch, duration(part.seconds), f"{width:.1f} %"))
        left += width
    size = 'viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true"'
    picture = f'<svg class="bar" {size}>{"".join(pieces)}</svg>'
    return picture + markup.table(("what", "time", "share"), rows, "Where the time went", numeric=True)


def timeline(runs: Sequence[Run]) -> str:
    """Checkpoints and events."""
    return markup.section("events", "Events and checkpoints", *(_events(run, len(runs) > 1) for run in runs))


def _events(run: Run, several: bool) -> str:
    title = f"<h3>{markup.name(label_of(run))}</h3>" if several else ""
    events = run.events
    shown = events if len(events) <= _EVENTS else _rare(events)
    rows = [
        (
            markup.name(clipped(event.kind, 80)),
            str(event.step),
            describing.moment(event.time),
            markup.name(text_of(event.details) if event.details else ""),
        )
        for event in shown
    ]
    less = len(events) - len(shown)
    table = (
        markup.table(("event", "step", "when", "details"), rows, "Events")
        if rows
        else markup.note("No events.")
    )
    rest = markup.note(f"{less} more events, of kinds that come often, are not shown.") if less else ""
    steps = [path.name for path in run.checkpoints]
    kept = f"<p>Checkpoints: {markup.name(clipped(', '.join(steps), 2000) or 'none')}</p>"
    return title + kept + table + rest


def _rare(events: Sequence[Event]) -> list[Event]:
    counts: dict[str, int] = {}
    for event in events:
        counts[event.kind] = counts.get(event.kind, 0) + 1
    return [event for event in events if counts[event.kind] <= 20][-_EVENTS:]


def epochs(runs: Sequence[Run]) -> str:
    """The table of epochs."""
    return markup.section("epochs", "Epochs", *(_epochs(run, len(runs) > 1) for run in runs))


def _epochs(run: Run, several: bool) -> str:
    rows = run.history.rows()
    # Where an epoch's time went is a curve; here it would push the values out of sight.
    hidden = {"time/start", "time/end", *EPOCH_SECONDS[1:]}
    names = [name for name in run.history if name not in hidden]
    cells = [
        ["" if math.isnan(row[name]) else text_of(row[name]) for name in names] for row in rows[-_EPOCHS:]
    ]
    head = [markup.name(clipped(name, 120)) for name in names]
    shown = (
        markup.table(head, cells, f"Epochs of {label_of(run)}", numeric=True)
        if rows
        else markup.note("No epoch is finished yet.")
    )
    less = markup.note(f"The last {_EPOCHS} of {len(rows)} epochs.") if len(rows) > _EPOCHS else ""
    return markup.folded(label_of(run), less + shown) if several else less + shown


def settings(runs: Sequence[Run]) -> str:
    """What was run, and on what."""
    return markup.section("settings", "What was run", *(_settings(run, len(runs) > 1) for run in runs))


def _settings(run: Run, several: bool) -> str:
    title = f"<h3>{markup.name(label_of(run))}</h3>" if several else ""
    written = describing.configuration(run)
    missing = markup.note("The run was started from Python, without a configuration.")
    made = describing.document(run.setup)
    return (
        title
        + markup.pairs(describing.identity(run), "The run")
        + markup.folded("Configuration", _pre(written) if written else missing, opened=not several)
        + (markup.folded("Setup", _pre(made), opened=not several and not written) if made else "")
        + markup.folded(
            "Environment", markup.pairs(describing.environment(run), "Environment"), opened=not several
        )
    )


def _pre(text: str) -> str:
    return f'<pre tabindex="0">{markup.escape(text)}</pre>'
