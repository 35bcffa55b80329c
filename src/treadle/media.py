"""From what a program has at hand to what a run records: pictures and histograms."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

PNG = b"\x89PNG\r\n\x1a\n"
_COLOURS = {1: 0, 3: 2, 4: 6}  # channels to PNG's types of colour


def png_of(picture: Any) -> bytes:
    """A picture as the bytes of a PNG file.

    Args:
        picture: the bytes of a PNG file; a figure of matplotlib; or a tensor or array, (height, width),
            (height, width, 1, 3 or 4) or with these channels first, of bytes or of floats from 0 to 1.

    Raises:
        TypeError, ValueError: it is nothing of these; the text says what is allowed.
    """
    if isinstance(picture, bytes):
        if not picture.startswith(PNG):
            raise ValueError("picture: these bytes are no PNG file")
        return picture
    if hasattr(picture, "savefig"):
        file = io.BytesIO()
        picture.savefig(file, format="png")
        return file.getvalue()
    if isinstance(picture, Tensor):
        picture = picture.detach().cpu().numpy()  # waits for the device
    if not isinstance(picture, np.ndarray):
        raise TypeError(
            f"picture: a {type(picture).__name__} is none; give a tensor, an array, a figure, or PNG bytes"
        )
    return _encode(_pixels(picture))


def _pixels(array: NDArray[Any]) -> NDArray[np.uint8]:
    """Bytes (height, width, channels)."""
    if array.ndim == 2:
        array = array[:, :, None]
    elif array.ndim == 3 and array.shape[-1] not in _COLOURS and array.shape[0] in _COLOURS:
        array = np.moveaxis(array, 0, -1)
    if array.ndim != 3 or array.shape[-1] not in _COLOURS or 0 in array.shape:
        raise ValueError(
            f"picture: the shape is {array.shape}; allowed are (height, width), (height, width, channels) "
            "and (channels, height, width) with 1, 3 or 4 channels"
        )
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_ or np.issubdtype(array.dtype, np.floating):
        scaled = np.nan_to_num(array.astype(np.float64), nan=0.0, posinf=1.0, neginf=0.0) * 255
        return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
    raise ValueError(f"picture: the values are {array.dtype}; allowed are bytes, and floats from 0 to 1")


def _encode(pixels: NDArray[np.uint8]) -> bytes:
    """PNG (ISO/IEC 15948), without filters."""
    height, width, channels = pixels.shape
    rows = np.zeros((height, 1 + width * channels), np.uint8)
    rows[:, 1:] = pixels.reshape(height, -1)
    head = struct.pack(">IIBBBBB", width, height, 8, _COLOURS[channels], 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(rows.tobytes())), (b"IEND", b""))
    return PNG + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def bins_of(values: Tensor | NDArray[Any], bins: int) -> tuple[list[float], list[int]]:
    """Edges and counts of evenly spaced bins over the finite values; without any, one empty bin."""
    tensor = torch.as_tensor(values).detach().flatten()
    numbers = tensor.to("cpu", torch.float64).numpy()  # waits for the device
    finite = numbers[np.isfinite(numbers)]
    if not len(finite):
        return [0.0, 1.0], [0]
    counts, edges = np.histogram(finite, bins=bins)
    return edges.tolist(), counts.tolist()
