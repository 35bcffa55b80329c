"""Whatever a person hands over as data, as a `Source`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch.utils.data import DataLoader

from treadle.data.given import GivenLoader
from treadle.data.loader import Loader
from treadle.data.source import Source
from treadle.data.stream import is_stream


def loaders(splits: Mapping[str, Any], batch_size: int, **options: Any) -> dict[str, Loader]:
    """A `Loader` for each split of a data set, such as a Hugging Face dataset dictionary.

    The split "train" is shuffled; the others, which need no gradients, get batches twice as large.

    Args:
        splits: data by name.
        batch_size: samples in a batch of "train".
        **options: further arguments of `Loader`, for all of them.
    """
    return {
        name: Loader(data, batch_size, shuffle=not is_stream(data), **options)
        if name == "train"
        else Loader(data, 2 * batch_size, **options)
        for name, data in splits.items()
    }


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
