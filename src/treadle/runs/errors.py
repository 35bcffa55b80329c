"""The one error of the run record."""

from __future__ import annotations

from pathlib import Path


class RunError(ValueError):
    """A run cannot be read or written; the message names the place and the reason."""

    def __init__(self, place: Path | str, reason: str) -> None:
        super().__init__(f"{place}: {reason}")
        self.place = place
        self.reason = reason
