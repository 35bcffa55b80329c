"""Arrays in files that people exchange: read without running anything, written whole or not at all."""

from __future__ import annotations

import contextlib
import csv
import json
import math
import os
import secrets
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from treadle.cli.arguments import UsageError

READABLE = (".npy", ".npz", ".csv", ".json", ".safetensors")
WRITABLE = READABLE


def can_read(path: Path) -> bool:
    """Whether this is a file of arrays, by its name."""
    return path.suffix.lower() in READABLE


def can_write(path: Path) -> bool:
    """Whether arrays can be written to a file of this name."""
    return path.suffix.lower() in WRITABLE


def read(path: Path) -> Any:
    """A tensor, or a dictionary of tensors where the file has several; float64 becomes float32.

    Raises:
        UsageError: it is not such a file, or holds something other than numbers.
    """
    try:
        found = _READERS[path.suffix.lower()](path)
    except (
        ValueError,
        OSError,
        EOFError,
        UnicodeError,
        safetensors.SafetensorError,
        RecursionError,
        zipfile.BadZipFile,
    ) as error:
        raise UsageError(f"{path}: cannot be read: {error}") from None
    named = found if isinstance(found, dict) else {"": found}
    if not named:
        raise UsageError(f"{path}: has no arrays")
    tensors = {
        name: _tensor(array, f"{path}: {name}" if name else str(path)) for name, array in named.items()
    }
    return tensors if len(tensors) > 1 else next(iter(tensors.values()))


def write(path: Path, result: Any) -> None:
    """Write a tensor, or a dictionary of them, in the format that the file's name says.

    Raises:
        UsageError: the format cannot hold this.
    """
    _WRITERS[path.suffix.lower()](path, _numpy(result))


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`; what is written there takes its place at the end, on the disk."""
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(6)}.tmp{path.suffix}")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _tensor(array: Any, where: str) -> Tensor:
    try:
        tensor = array if isinstance(array, Tensor) else torch.from_numpy(np.array(array))
    except TypeError:
        raise UsageError(
            f"{where}: {getattr(array, 'dtype', type(array).__name__)} is no type of numbers"
        ) from None
    if not tensor.ndim:
        raise UsageError(f"{where}: a single number, without rows")
    return tensor.float() if tensor.dtype == torch.float64 else tensor


def _read_npy(path: Path) -> Any:
    with path.open("rb") as file:
        found = np.load(file, allow_pickle=False)
    if not isinstance(found, np.ndarray):
        raise ValueError("it is a .npz file by its contents")
    return found


def _read_npz(path: Path) -> dict[str, Any]:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def _read_csv(path: Path) -> Any:
    """Numbers, a row for each sample; a first line of words is a heading."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.reader(file) if row]
    if rows and not all(map(_is_number, rows[0])):
        rows = rows[1:]
    for number, row in enumerate(rows):
        wrong = next((cell for cell in row if not _is_number(cell)), None)
        if wrong is not None or len(row) != len(rows[0]):
            problem = (
                f"{wrong!r} is no number" if wrong is not None else f"{len(row)} columns, not {len(rows[0])}"
            )
            raise ValueError(f"row {number + 1}: {problem}")
    if not rows:
        raise ValueError("it has no rows")
    return np.array([[float(cell) for cell in row] for row in rows], dtype=np.float32)


def _read_json(path: Path) -> Any:
    found = json.loads(path.read_text(encoding="utf-8"))
    return (
        {name: np.array(one) for name, one in found.items()} if isinstance(found, dict) else np.array(found)
    )


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _numpy(result: Any) -> Any:
    if isinstance(result, Mapping):
        return {str(name): _numpy(one) for name, one in result.items()}
    if isinstance(result, (tuple, list)):
        return {str(position): _numpy(one) for position, one in enumerate(result)}
    if isinstance(result, Tensor):
        wide = result.float() if result.dtype in (torch.bfloat16, torch.float16) else result
        return wide.detach().cpu().numpy()
    raise UsageError(
        f"a prediction is {type(result).__name__}, which these files cannot hold; define store_result"
    )


def _flat(result: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(result, dict):
        return {prefix or "prediction": result}
    found: dict[str, Any] = {}
    for name, one in result.items():
        found |= _flat(one, f"{prefix}.{name}" if prefix else name)
    return found


def _single(result: Any, path: Path) -> Any:
    if isinstance(result, dict):
        raise UsageError(
            f"{path.suffix} holds one array; the predictions are {', '.join(result)}: use .npz or .json"
        )
    return result


def _write_npy(path: Path, result: Any) -> None:
    np.save(path, _single(result, path), allow_pickle=False)


def _write_npz(path: Path, result: Any) -> None:
    np.savez(path, **_flat(result))


def _write_csv(path: Path, result: Any) -> None:
    array = _single(result, path)
    if array.ndim > 2:
        raise UsageError(f".csv holds rows of numbers; the predictions have shape {array.shape}: use .npy")
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(array.reshape(len(array), -1).tolist())


def _write_json(path: Path, result: Any) -> None:
    path.write_text(json.dumps(_plain(result)) + "\n", encoding="utf-8")


def _plain(result: Any) -> Any:
    if isinstance(result, dict):
        return {name: _plain(one) for name, one in result.items()}
    if isinstance(result, list):
        return [_plain(one) for one in result]
    if isinstance(result, float) and not math.isfinite(result):
        return None  # JSON has no word for it
    return _plain(result.tolist()) if isinstance(result, np.ndarray) else result


def _write_safetensors(path: Path, result: Any) -> None:
    tensors = {name: torch.from_numpy(np.ascontiguousarray(one)) for name, one in _flat(result).items()}
    path.write_bytes(safetensors.torch.save(tensors))


_READERS: dict[str, Callable[[Path], Any]] = {
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".csv": _read_csv,
    ".json": _read_json,
    ".safetensors": lambda path: safetensors.torch.load(path.read_bytes()),
}
_WRITERS: dict[str, Callable[[Path, Any], None]] = {
    ".npy": _write_npy,
    ".npz": _write_npz,
    ".csv": _write_csv,
    ".json": _write_json,
    ".safetensors": _write_safetensors,
}
