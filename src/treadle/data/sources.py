"""Whatever a person hands over as data, as a `Source`."""

from __future__ import annotations

from typing import Any

from torch.utils.data import DataLoader

from treadle.data.given import GivenLoader
from treadle.data.loader import Loader
from treadle.data.source import Source
from treadle.data.stream import is_stream


def as_source(data: Any, *, batch_size: int, shuffle: bool = False, name: str = "train") -> Source:
    """Make a `Source` of data.

    Args:
        data: a Source as it is, a torch DataLoader as it is, or anything that `Loader` takes.
        batch_size: samples in a batch over all ranks, where a Loader is made.
        shuffle: whether a made Loader shuffles; a stream keeps its own order.
        name: what error messages call the data: "train", "val", ...

    Raises:
        TypeError: this is no data.
        ValueError: the data are empty or do not fit together.
    """
    if isinstance(data, Source):
        return data
    try:
        if isinstance(data, DataLoader):
            return GivenLoader(data)
        return Loader(data, batch_size, shuffle=shuffle and not is_stream(data))
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name} data: {error}") from None
