"""Reading idx files, the format of MNIST and its relatives (LeCun, Cortes and Burges)."""

from __future__ import annotations

import gzip
import math
from pathlib import Path
from typing import IO, cast

import numpy as np
import torch

_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
MAX_BYTES = 2**32


def read_idx(path: str | Path, max_bytes: int = MAX_BYTES) -> torch.Tensor:
    """Read an idx file, gzipped or plain: a tensor of the shape and type that the file states.

    No more is read than the header promises, and nothing where it promises more than `max_bytes`, so
    that a small hostile file cannot fill the memory.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: this is no idx file, it is too large, or it is cut short or too long.
    """
    path = Path(path)
    with open(path, "rb") as raw:
        zipped = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        try:
            if not zipped:
                return _read(raw, path, max_bytes)
            with gzip.open(raw, "rb") as file:
                return _read(cast(IO[bytes], file), path, max_bytes)
        except (EOFError, gzip.BadGzipFile) as error:
            raise ValueError(f"{path}: the file is damaged: {error}") from error


def _read(file: IO[bytes], path: Path, max_bytes: int) -> torch.Tensor:
    magic = file.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _TYPES or not 1 <= magic[3] <= 8:
        raise ValueError(f"{path}: not an idx file: it begins with {magic.hex() or 'nothing'}")
    sizes = file.read(4 * magic[3])
    if len(sizes) < 4 * magic[3]:
        raise ValueError(f"{path}: the header is cut short")
    shape = [int(size) for size in np.frombuffer(sizes, dtype=">u4")]
    kind = np.dtype(_TYPES[magic[2]])
    expected = math.prod(shape) * kind.itemsize
    if expected > max_bytes:
        raise ValueError(f"{path}: the header promises {expected} bytes; allowed are at most {max_bytes}")
    content = file.read(expected)
    if len(content) < expected:
        raise ValueError(f"{path}: cut short: {len(content)} of {expected} bytes for shape {shape}")
    if file.read(1):
        raise ValueError(f"{path}: longer than the {expected} bytes of shape {shape}")
    values = np.frombuffer(content, dtype=kind).astype(kind.newbyteorder("="))  # copies: tensors are writable
    return torch.from_numpy(values.reshape(shape))
