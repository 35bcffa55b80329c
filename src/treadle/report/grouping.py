"""Which curves share a chart, and under which heading the chart stands."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

SECTIONS = (
    "Metrics",
    "Learning rate",
    "Gradients, weights and activations",
    "Speed and memory",
    "Fingerprints",
)
"""Headings in the order of the page."""

EPOCH_SECONDS = (
    "time/epoch",
    "time/data",
    "time/forward",
    "time/backward",
    "time/optimizer",
    "time/checkpoint",
    "time/other",
)
"""How long an epoch took, and what of it went where; see `StepTimes`."""

_INTERNALS = ("gradient", "activation", "weight", "parameter", "update")


class Chart(NamedTuple):
    """A chart: its heading, its title, and the names of the curves in it."""

    section: str
    title: str
    names: list[str]


def charts_of(names: Iterable[str]) -> list[Chart]:
    """Group names into charts: "train/loss" with "val/loss", the same statistic of all layers together."""
    found: dict[tuple[str, str], list[str]] = {}
    for name in dict.fromkeys(names):
        found.setdefault(place_of(name), []).append(name)
    charts = [Chart(section, title, together) for (section, title), together in found.items()]
    return sorted(charts, key=lambda chart: SECTIONS.index(chart.section))


def place_of(name: str) -> tuple[str, str]:
    """The section and the title of the chart that a curve belongs into."""
    head, _, tail = name.partition("/")
    if name in EPOCH_SECONDS:
        return SECTIONS[3], "seconds of an epoch"
    if head == "time":
        return SECTIONS[3], tail or name
    if head == "fingerprint":
        return SECTIONS[4], tail or name
    if head == "learning_rate" or name == "lr":
        return SECTIONS[1], "learning_rate"
    if head.startswith(_INTERNALS):
        # "gradient/<layer>/norm": layers may have dots but no slashes.
        first, last = head, name.rpartition("/")[2]
        return SECTIONS[2], f"{first} {last}" if last != first else first
    return SECTIONS[0], tail or name
