"""Outputs written to the disk batch by batch, for predictions larger than memory."""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from treadle.data import map_tree
from treadle.outputs import named_leaves
from treadle.runs.files import sync_folder

Array = NDArray[Any]

_UNNAMED = "prediction"


class OutputFiles:
    """One `.npy` file for each tensor of the outputs, all rows one after another.

    They are written under a hidden name beside the final one, which they get when everything is written and
    on the disk. A failure before that leaves nothing. Numbers keep their type, but bfloat16, which NumPy
    does not have, becomes float32.

    Args:
        target: a name that ends in .npy for a single tensor; else a folder, where each tensor's file is
            called by the names that lead to it ("scores.npy", "hidden.0.npy"), and one alone
            "prediction.npy".

    Raises:
        ValueError: the folder around it is missing, a folder of this name has files, or it is neither's name.
    """

    def __init__(self, target: str | Path) -> None:
        self.target = _checked(target)
        self._temporary = self.target.with_name(f".{self.target.name}.{secrets.token_hex(6)}.tmp")
        self._columns: list[_Column | None] = []
        self._names: list[str] = []

    @property
    def is_folder(self) -> bool:
        """Whether the target is a folder of files."""
        return self.target.suffix.lower() != ".npy"

    def __enter__(self) -> OutputFiles:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for column in self._columns:
            if column is not None:
                column.file.close()
        if self._temporary.is_dir():
            shutil.rmtree(self._temporary, ignore_errors=True)
        else:
            self._temporary.unlink(missing_ok=True)

    def add(self, output: Any) -> None:
        """Write one batch; waits for the device.

        Raises:
            ValueError: rows are not like those of the first batch, or there are several tensors for one file.
            TypeError: it holds something other than tensors, arrays and None.
        """
        parts = list(named_leaves(output))
        names = [name for name, _ in parts]
        if not self._names:
            self._begin(parts, output)
        elif names != self._names:
            raise ValueError(f"predictions cannot be written: one batch has {self._names}, another {names}")
        for column, (name, leaf) in zip(self._columns, parts, strict=True):
            if column is not None:
                column.write(_array(leaf, name))
            elif leaf is not None:
                raise ValueError(f"predictions cannot be written: {name} is None in some batches only")

    def result(self) -> Any:
        """Give the files their final names; returns the tree of the outputs, of read-only memory maps.

        Raises:
            ValueError: there was no batch.
        """
        if not self._names:
            raise ValueError("predictions: the data gave no batch")
        for column in self._columns:
            if column is not None:
                column.finish()
        if self.is_folder:
            sync_folder(self._temporary)
            if self.target.is_dir():
                self.target.rmdir()
        os.replace(self._temporary, self.target)
        sync_folder(self.target.parent)
        return self.read(self._first)

    def read(self, like: Any) -> Any:
        """The tree `like`, with a read-only memory map of its file for each tensor."""
        files = iter([None if leaf is None else self._file(name) for name, leaf in named_leaves(like)])
        return map_tree(lambda _: _mapped(next(files)), like)

    def _file(self, name: str) -> Path:
        return self.target / _file_name(name) if self.is_folder else self.target

    def _begin(self, parts: list[tuple[str, Any]], output: Any) -> None:
        present = [name for name, leaf in parts if leaf is not None]
        arrays = [None if leaf is None else _array(leaf, name) for name, leaf in parts]
        if not self.is_folder and len(present) != 1:
            raise ValueError(
                f"{self.target.name} holds one array; the predictions are {', '.join(present)}: "
                "name a folder instead"
            )
        if len({_file_name(name) for name in present}) < len(present):
            raise ValueError(f"two of the predictions {present} have the same name in a folder")
        if self.is_folder:
            self._temporary.mkdir()
        for (name, _), array in zip(parts, arrays, strict=True):
            path = self._temporary / _file_name(name) if self.is_folder else self._temporary
            self._columns.append(None if array is None else _Column(path, array, name or _UNNAMED))
        self._names = [name for name, _ in parts]
        self._first = map_tree(lambda leaf: None if leaf is None else 0, output)  # its containers alone


class _Column:
    """One file under way."""

    def __init__(self, path: Path, like: Array, name: str) -> None:
        self._name, self._dtype, self._row = name, like.dtype, like.shape[1:]
        self._rows = 0
        self.file: BinaryIO = path.open("xb")
        self._write_header()
        self._start = self.file.tell()

    def write(self, array: Array) -> None:
        if array.shape[1:] != self._row or array.dtype != self._dtype:
            raise ValueError(
                f"predictions cannot be written: {self._name} has rows of {self._dtype} {self._row} in one "
                f"batch and {array.dtype} {array.shape[1:]} in another; predict without out, and join them "
                "in Task.join"
            )
        self._rows += len(array)
        if array.size:
            self.file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)

    def finish(self) -> None:
        """Say how many rows there are, and have it all on the disk."""
        self.file.seek(0)
        self._write_header()  # as long as the first: the format keeps room for the number of rows to grow
        assert self.file.tell() == self._start
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()

    def _write_header(self) -> None:
        descr = np.lib.format.dtype_to_descr(self._dtype)
        header = {"descr": descr, "fortran_order": False, "shape": (self._rows, *self._row)}
        np.lib.format.write_array_header_1_0(self.file, header)


def _checked(target: str | Path) -> Path:
    if not isinstance(target, (str, os.PathLike)):
        raise ValueError(f"predict: out is {target!r}; give the name of a .npy file or of a folder")
    path = Path(os.path.abspath(target))
    if not path.parent.is_dir():
        raise ValueError(f"predict: out is {str(target)!r}; there is no folder {path.parent}")
    if path.suffix.lower() == ".npy":
        if path.is_dir():
            raise ValueError(f"predict: out is {str(target)!r}, which is a folder; give another name")
    elif path.is_dir():
        if any(path.iterdir()):
            raise ValueError(f"predict: the folder {str(target)!r} has files in it; give a new or empty one")
    elif path.exists():
        raise ValueError(f"predict: out is {str(target)!r}, a file that is none of NumPy's; name it .npy")
    return path


def _array(leaf: Any, name: str) -> Array:
    if isinstance(leaf, Tensor):
        leaf = leaf.detach()
        leaf = (leaf.float() if leaf.dtype is torch.bfloat16 else leaf).cpu().numpy()  # waits for the device
    if not isinstance(leaf, np.ndarray) or leaf.dtype.hasobject:
        raise TypeError(
            f"a prediction{' ' + name if name else ''} is {type(leaf).__name__}; only tensors can be "
            "written: predict without out"
        )
    return np.atleast_1d(leaf)


def _file_name(name: str) -> str:
    safe = "".join(letter if letter.isalnum() or letter in "._- " else "_" for letter in name or _UNNAMED)
    return f"{safe}.npy"


def _mapped(path: Path | None) -> Array | None:
    if path is None:
        return None
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)  # type: ignore[no-any-return]
    except ValueError:  # no rows at all cannot be mapped
        return np.load(path, allow_pickle=False)  # type: ignore[no-any-return]
