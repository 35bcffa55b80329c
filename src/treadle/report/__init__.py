"""A run, or several side by side, as one HTML file that needs nothing else. Needs no torch."""

from __future__ import annotations

from treadle.report.callback import ReportWriter
from treadle.report.document import render, write_report
from treadle.report.text import draw

__all__ = ["ReportWriter", "draw", "render", "write_report"]
