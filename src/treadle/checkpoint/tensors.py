"""Tensors as bytes: the safetensors format, written and read piece by piece.

The library `safetensors` reads and writes the same files. It is not used here because a checkpoint hashes
and syncs what it writes, and must not need the model's size in memory twice, on either way.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from treadle.checkpoint.errors import CheckpointError

PIECE = 16 << 20  # bytes moved at once
MAX_HEADER = 100_000_000  # bytes; the format's own limit

DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "C64": torch.complex64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
}
NAMES: dict[torch.dtype, str] = {dtype: name for name, dtype in DTYPES.items()}


def pieces(tensor: Tensor) -> Iterator[memoryview]:
    """A tensor's elements in row-major order as little-endian bytes, at most `PIECE` at a time.

    A tensor on a device is moved over in these pieces; this waits for the device.
    """
    if sys.byteorder != "little":
        raise CheckpointError("checkpoints need a little-endian machine")
    tensor = tensor.detach()
    row = tensor.element_size() * math.prod(tensor.shape[1:])
    if tensor.numel() == 0:
        return
    if tensor.is_contiguous():
        flat, count = tensor.reshape(-1), PIECE // tensor.element_size()
        for start in range(0, flat.numel(), count):
            part = flat[start : start + count].cpu().resolve_conj().resolve_neg()
            if part.stride(0) != 1:  # a single element may have any stride, and then has no view as bytes
                part = part.clone(memory_format=torch.contiguous_format)
            yield part.view(torch.uint8).numpy().data
    elif row <= PIECE:
        for start in range(0, tensor.shape[0], PIECE // row):
            yield from pieces(tensor[start : start + PIECE // row].contiguous())
    else:
        for index in range(tensor.shape[0]):
            yield from pieces(tensor[index])


def header_of(tensors: Mapping[str, Tensor]) -> bytes:
    """The head of a safetensors file: eight bytes of length, then JSON, padded to a multiple of eight."""
    entries: dict[str, Any] = {}
    offset = 0
    for name, tensor in tensors.items():
        end = offset + tensor.numel() * tensor.element_size()
        entries[name] = {
            "dtype": NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEADER:
        raise CheckpointError(f"the names and shapes of {len(entries)} tensors exceed {MAX_HEADER} bytes")
    return len(text).to_bytes(8, "little") + text


def serialize(tensors: Mapping[str, Tensor]) -> Iterator[bytes | memoryview]:
    """A safetensors file of these tensors, piece by piece."""
    # Widest elements first keeps every tensor aligned, as the format's other writers do.
    ordered = dict(sorted(tensors.items(), key=lambda item: -item[1].element_size()))
    yield header_of(ordered)
    for tensor in ordered.values():
        yield from pieces(tensor)


def deserialize(size: int, read: Callable[[memoryview], None]) -> dict[str, Tensor]:
    """Read a safetensors file of `size` bytes into new tensors in CPU memory.

    Memory is bounded by `size`, whatever the header says.

    Args:
        size: Of the whole file, in bytes.
        read: Fills a buffer with the next bytes of the file.

    Raises:
        CheckpointError: the header is damaged or does not fit the file exactly.
    """
    length = int.from_bytes(_take(8, size, read), "little")
    if length > min(MAX_HEADER, size - 8):
        raise CheckpointError(f"the header is said to have {length} bytes in a file of {size}")
    entries = _parse(_take(length, size, read))
    tensors: dict[str, Tensor] = {}
    offset = 0
    for name, entry in sorted(entries.items(), key=lambda item: item[1][2:]):
        dtype, shape, begin, end = entry
        if begin != offset or end - begin != math.prod(shape) * dtype.itemsize or end > size - 8 - length:
            raise CheckpointError(f"tensor {name!r} does not lie where its shape says")
        try:
            tensors[name] = tensor = torch.empty(shape, dtype=dtype)
        except (RuntimeError, OverflowError) as error:
            raise CheckpointError(f"tensor {name!r} has an impossible shape: {error}") from error
        if end > begin:
            read(tensor.reshape(-1).view(torch.uint8).numpy().data)
        offset = end
    if offset != size - 8 - length:
        raise CheckpointError(f"{size - 8 - length - offset} bytes belong to no tensor")
    return tensors


def _take(count: int, size: int, read: Callable[[memoryview], None]) -> bytes:
    if count > size:
        raise CheckpointError(f"a file of {size} bytes is too short")
    buffer = bytearray(count)
    read(memoryview(buffer))
    return bytes(buffer)


def _parse(text: bytes) -> dict[str, tuple[torch.dtype, list[int], int, int]]:
    try:
        header = json.loads(text)
        header.pop("__metadata__", None)
        return {name: _entry(**entry) for name, entry in header.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"the header cannot be read: {type(error).__name__}: {error}") from error


def _entry(dtype: str, shape: list[int], data_offsets: list[int]) -> tuple[torch.dtype, list[int], int, int]:
    numbers = [*shape, *data_offsets]
    if len(data_offsets) != 2 or any(
        type(number) is not int or not 0 <= number < 2**63 for number in numbers
    ):
        raise ValueError(f"shape {shape!r} at {data_offsets!r}")
    return DTYPES[dtype], shape, data_offsets[0], data_offsets[1]
