"""Files of outputs where several processes have the same ones: one writes, all read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from treadle.data import map_tree
from treadle.engine import Engine
from treadle.output_files import OutputFiles
from treadle.outputs import Sink


class FilesElsewhere:
    """Files that another process writes, for a process that is given the same outputs.

    Args:
        files: what would be written here.
        wait: returns when the other process has finished.
    """

    def __init__(self, files: OutputFiles, wait: Callable[[], object]) -> None:
        self._files, self._wait = files, wait
        self._first: Any = None

    def add(self, output: Any) -> None:
        """Learn what outputs look like."""
        if self._first is None:
            self._first = map_tree(lambda leaf: None if leaf is None else 0, output)

    def result(self) -> Any:
        """The tree of the outputs, of read-only memory maps."""
        self._wait()
        return self._files.read(self._first)


class FilesForAll(FilesElsewhere):
    """Files that this process writes, and others read."""

    def add(self, output: Any) -> None:
        """Write one batch."""
        self._files.add(output)

    def result(self) -> Any:
        """The tree of the outputs, of read-only memory maps, after which the others are let go on."""
        result = self._files.result()
        self._wait()
        return result


def files_of(files: OutputFiles, engine: Engine) -> Sink:
    """What takes in all outputs on one of an engine's processes, so that one of them writes the files."""
    if not engine.strategy.is_shared:
        return files
    kind = FilesForAll if engine.strategy.is_main else FilesElsewhere
    return kind(files, lambda: engine.gather(None))
