"""Everything as TensorBoard reads it."""

from __future__ import annotations

import importlib
import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from treadle.log import Point
from treadle.loggers.base import Begin, Logger
from treadle.loggers.text_files import place_of


class TensorBoardLogger(Logger):
    """Write an event file for TensorBoard: `tensorboard --logdir runs`.

    Values are scalars; pictures, texts and histograms have their own tabs, and the settings are
    hyperparameters. The folder is `tensorboard` in the run's folder, or NAME-ID in `folder`. A run that
    goes on begins a new file, which says from which step on the earlier ones do not count.

    Args:
        folder: where to, instead of the run's folder.
        options: see `Logger`.
    """

    package = "tensorboard"

    def __init__(self, folder: Path | str | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.folder = None if folder is None else Path(folder)
        self._path = Path()
        self._writer: Any = None

    def check(self, begin: Begin) -> None:
        """The run must be somewhere."""
        self._path = place_of(begin, self.folder, "tensorboard")

    def open(self, begin: Begin) -> None:
        """A new file; what the record holds of `begin.step` is written anew into it."""
        module = importlib.import_module("torch.utils.tensorboard")
        goes_on = self._path.is_dir() and any(self._path.iterdir())
        # Files of one second are told apart by their names, which end in a count.
        count = next(n for n in itertools.count() if not list(self._path.glob(f"*.treadle-{n}")))
        self._writer = module.SummaryWriter(
            str(self._path), purge_step=begin.step if goes_on else None, filename_suffix=f".treadle-{count}"
        )
        summary = importlib.import_module("torch.utils.tensorboard.summary")
        for part in summary.hparams(begin.hyperparameters, {}):
            self._writer.file_writer.add_summary(part)
        self.write_points(begin.points)
        for medium in begin.media:
            self.write_medium(medium)

    def write_points(self, points: Sequence[Point]) -> None:
        """A scalar each."""
        for name, step, value in points:
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def write_text(self, name: str, step: int, text: str) -> None:
        """As Markdown."""
        self._writer.add_text(name, text, step)

    def write_picture(self, name: str, step: int, png: bytes) -> None:
        """The file as it is."""
        protocol = importlib.import_module("tensorboard.compat.proto.summary_pb2")
        width, height = (int.from_bytes(png[at : at + 4], "big") for at in (16, 20))
        picture = protocol.Summary.Image(height=height, width=width, encoded_image_string=png)
        value = protocol.Summary.Value(tag=name, image=picture)
        self._writer.file_writer.add_summary(protocol.Summary(value=[value]), step)

    def write_histogram(self, name: str, step: int, edges: list[float], counts: list[int]) -> None:
        """With the sums estimated from the middles of the bins."""
        middles = (np.array(edges[1:]) + np.array(edges[:-1])) / 2
        numbers = np.array(counts, float)
        self._writer.add_histogram_raw(
            name,
            min=edges[0],
            max=edges[-1],
            num=int(numbers.sum()),
            sum=float((middles * numbers).sum()),
            sum_squares=float((middles**2 * numbers).sum()),
            bucket_limits=[*edges[1:-1], math.nextafter(edges[-1], math.inf)],
            bucket_counts=counts,
            global_step=step,
        )

    def close(self, status: str) -> None:
        """Close the file."""
        self._writer.close()
