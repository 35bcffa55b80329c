"""The metric store of a run that is kept in memory."""

from __future__ import annotations

import threading
from typing import Any

from treadle.runs.writer import WritableStore


class MemoryStore(WritableStore):
    """A store in memory, opened when somebody first records or asks: most evaluations do neither."""

    def __init__(self) -> None:
        self._opening = threading.RLock()

    def __getattr__(self, name: str) -> Any:  # asked for what opening sets, and nothing else
        if name.startswith("__") or name == "_opening":
            raise AttributeError(name)
        with self._opening:
            if "_connection" not in vars(self):
                super().__init__(":memory:")
        return object.__getattribute__(self, name)
