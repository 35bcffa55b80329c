"""A run, or several side by side, as one HTML file that needs nothing else. Needs no torch.

Names are imported when they are first asked for: a trainer needs the writer, and a page only at the end.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from treadle.report.callback import ReportWriter
    from treadle.report.document import render, write_report
    from treadle.report.text import draw

_HOMES = {"ReportWriter": "callback", "render": "document", "write_report": "document", "draw": "text"}

__all__ = ["ReportWriter", "draw", "render", "write_report"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'treadle.report' has no attribute {name!r}")
    return getattr(importlib.import_module(f"treadle.report.{_HOMES[name]}"), name)
