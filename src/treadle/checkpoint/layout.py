"""What lies in the folder of one checkpoint, how it is written and how it is verified.

model.safetensors     contents["model"]: a plain state dict that anyone can use
training.safetensors  every other tensor
state.json            everything else, and where the tensors belong
manifest.json         step, score, versions, and the size and SHA-256 of the other files

Where several processes save together, those tensors of which each has some rows are in files of their own,
one for each process: model.shard-1-of-2.safetensors, training.shard-1-of-2.safetensors, and so on. By rank,
the rows of all make up the tensor, so it can be loaded by any number of processes.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from io import BufferedReader, FileIO
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import torch
from torch import Tensor

from treadle.checkpoint import files
from treadle.checkpoint.decode import decode
from treadle.checkpoint.errors import CheckpointError
from treadle.checkpoint.manifest import (
    MANIFEST,
    MAX_MANIFEST,
    MAX_STATE,
    MODEL,
    STATE,
    TRAINING,
    Manifest,
    shard_name,
)
from treadle.checkpoint.tensors import PIECE, deserialize

Parsed = TypeVar("Parsed")


def read(path: Path | str) -> dict[str, Any]:
    """Load one checkpoint, every byte of it verified; tensors are on the CPU.

    Nothing is unpickled, imported or called on behalf of the files, links are not followed, and memory is
    bounded by the size of the files.

    Raises:
        CheckpointError: it is damaged, incomplete, of a newer format, or cannot be read; the message names
            file and reason.
    """
    path = Path(path)
    try:
        folder = files.open_folder(path)
    except OSError as error:
        _refuse(path, _reason(path, error))
    try:
        manifest = _manifest(path, folder)
        try:
            _check_files(path, folder, manifest)
        except OSError as error:  # removed since it was opened
            _refuse(path, error.strerror or error, error)
        model = _tensors(path, folder, MODEL, manifest)
        training = _tensors(path, folder, TRAINING, manifest)
        state = _state(path, folder, manifest)
    finally:
        os.close(folder)
    try:
        contents: dict[str, Any] = decode(state["rest"], training)
        if "model" in state or model:
            contents["model"] = decode(state["model"], model)
    except (CheckpointError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: {STATE}: {error}") from error
    return contents


def read_manifest(path: Path) -> Manifest:
    """The manifest of a checkpoint, whose other files are not looked at.

    Raises:
        CheckpointError: see `read`.
    """
    try:
        folder = files.open_folder(path)
    except OSError as error:
        _refuse(path, _reason(path, error))
    try:
        return _manifest(path, folder)
    finally:
        os.close(folder)


def _refuse(path: Path, reason: object, cause: BaseException | None = None) -> NoReturn:
    raise CheckpointError(f"{path}: {reason}") from cause


def _reason(path: Path, error: OSError) -> str:
    if path.is_symlink():
        return "a symbolic link; give the folder itself"
    return str(error.strerror or error)


def _manifest(path: Path, folder: int) -> Manifest:
    try:
        descriptor = files.open_file(folder, MANIFEST)
        with open(descriptor, "rb") as file:
            data = file.read(MAX_MANIFEST + 1)
        if len(data) > MAX_MANIFEST:
            raise CheckpointError(f"{MANIFEST}: longer than {MAX_MANIFEST} bytes")
        return Manifest.from_bytes(data)
    except OSError as error:
        _refuse(path, f"{MANIFEST}: {error.strerror or error}", error)
    except CheckpointError as error:
        _refuse(path, error, error)


def _check_files(path: Path, folder: int, manifest: Manifest) -> None:
    present, expected = set(os.listdir(folder)), {MANIFEST, *manifest.files}
    for name in sorted(expected - present):
        _refuse(path, f"{name}: missing")
    for name in sorted(present - expected):
        _refuse(path, f"{name!r}: does not belong to a checkpoint")
    for name, (size, _) in manifest.files.items():
        actual = os.stat(name, dir_fd=folder, follow_symlinks=False).st_size
        if actual != size:
            _refuse(path, f"{name}: {actual} bytes, the manifest says {size}")


def _tensors(path: Path, folder: int, name: str, manifest: Manifest) -> dict[str, Tensor]:
    tensors = _verified(path, folder, name, manifest, deserialize)
    if manifest.shards:
        tensors |= _joined(
            path, folder, [shard_name(name, n, manifest.shards) for n in range(manifest.shards)], manifest
        )
    return tensors


def _joined(path: Path, folder: int, names: list[str], manifest: Manifest) -> dict[str, Tensor]:
    shards = [_verified(path, folder, name, manifest, deserialize) for name in names]
    whole = {}
    for tensor in list(shards[0]):  # the first process has rows of every tensor
        try:
            whole[tensor] = torch.cat([shard.pop(tensor) for shard in shards])
        except (KeyError, RuntimeError) as error:
            _refuse(
                path, f"{names[0]}: {tensor!r} does not go together with the other shards: {error}", error
            )
    return whole


def _state(path: Path, folder: int, manifest: Manifest) -> dict[str, Any]:
    state = _verified(path, folder, STATE, manifest, _parse_state)
    if not isinstance(state, dict) or not {"rest"} <= set(state) <= {"rest", "model"}:
        _refuse(path, f"{STATE}: it is not the state of a checkpoint")
    return state


def _parse_state(size: int, read: Callable[[memoryview], None]) -> Any:
    if size > MAX_STATE:
        raise CheckpointError(f"{size} bytes, at most {MAX_STATE} are read")
    buffer = bytearray(size)
    read(memoryview(buffer))
    try:
        return json.loads(buffer, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"cannot be read: {type(error).__name__}: {error}") from error


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _verified(
    path: Path,
    folder: int,
    name: str,
    manifest: Manifest,
    parse: Callable[[int, Callable[[memoryview], None]], Parsed],
) -> Parsed:
    """Parse a file while it is hashed; what comes out is returned only if the hash is right."""
    size, expected = manifest.files[name]
    digest = hashlib.sha256()
    try:
        with BufferedReader(FileIO(files.open_file(folder, name)), 1 << 20) as file:

            def read(buffer: memoryview) -> None:
                for start in range(0, len(buffer), PIECE):
                    block = buffer[start : start + PIECE]
                    if file.readinto(block) != len(block):
                        raise CheckpointError("shorter than it was a moment ago")
                    digest.update(block)

            parsed = parse(size, read)
    except OSError as error:
        _refuse(path, f"{name}: {error.strerror or error}", error)
    except CheckpointError as error:
        _refuse(path, f"{name}: {error}", error)
    if digest.hexdigest() != expected:
        _refuse(path, f"{name}: its SHA-256 is not the one in the manifest")
    return parsed
