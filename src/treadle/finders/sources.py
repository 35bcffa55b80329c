"""Data that are looked at before they are trained on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from treadle.data import Loader, as_source, batch_items, concatenate
from treadle.data.batch import take
from treadle.preparing import BATCH_SIZE


def check_repeatable(train: Any) -> None:
    """Raise a ValueError if the data can be read only once: looking at them would use them up."""
    dataset = getattr(train, "dataset", train)
    if isinstance(dataset, Iterator):
        raise ValueError(
            f"the training data are a {type(dataset).__name__}, which can be read only once, and a finder "
            "would use it up; give a generator function or an IterableDataset"
        )


def batch_of(train: Any, size: int, seed: int) -> Any:
    """One batch of `size` samples, or of all where there are not so many.

    Args:
        train: the training data, as for `Trainer.fit`.
        size: how many samples.
        seed: what the order follows from.
    """
    source = as_source(train, batch_size=BATCH_SIZE, shuffle=True)
    if isinstance(source, Loader):  # it collates so many itself, pads them as one batch
        source = source.replace(batch_size=size, drop_last=False, workers=0)
    batches = source.open(seed)
    parts, items = [], 0
    try:
        for batch in batches.iterate(0):
            parts.append(batch)
            items += batch_items(batch)
            if items >= size:
                break
    finally:
        batches.close()
    return take(parts[0] if len(parts) == 1 else concatenate(parts), 0, min(size, items))
