"""Commit and dirty flag of a git working tree, read from its files: no process is started.

The formats are those of git's own documentation (gitrepository-layout, gitformat-index).
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_SUBMODULE = 0o160000
_MOST_HASHED = 256 * 2**20  # bytes; where more would have to be read, the answer is "unknown"


class _UnknownError(Exception):
    """The files do not tell, or tell it in a way that is not understood here."""


@dataclass(frozen=True, slots=True)
class _Entry:
    mode: int
    size: int
    modified: tuple[int, int]
    identity: bytes
    name: bytes
    ignored: bool  # assume-unchanged or skip-worktree
    unfinished: bool  # in conflict, or only intended to be added


def describe(folder: Path) -> dict[str, Any] | None:
    """{"commit", "dirty"} of the working tree around `folder`; None outside of one.

    `dirty` says whether a tracked file differs from the commit, in the working tree or in the index;
    files that are not tracked do not count. It is None where that cannot be told: split or sparse
    indexes, filters such as LFS on touched files, very much to compare. `commit` is None before the first.
    """
    try:
        found = _find(folder)
        if found is None:
            return None
        tree, git, common = found
        commit = _commit(git, common)
    except (OSError, _UnknownError, UnicodeDecodeError):
        return {"commit": None, "dirty": None}
    try:
        dirty = None if commit is None else _is_dirty(tree, git, common, commit)
    except (OSError, _UnknownError, ValueError, IndexError, struct.error, zlib.error):
        dirty = None
    return {"commit": commit, "dirty": dirty}


def _find(folder: Path) -> tuple[Path, Path, Path] | None:
    """The working tree, its git folder, and the folder that all working trees of the repository share."""
    for place in (absolute := Path(os.path.abspath(folder)), *absolute.parents):
        git = place / ".git"
        if git.is_file():
            target = git.read_text().strip()
            if not target.startswith("gitdir: "):
                raise _UnknownError
            git = place / target.removeprefix("gitdir: ")
        if (git / "HEAD").is_file():
            shared = git / "commondir"
            return place, git, git / shared.read_text().strip() if shared.is_file() else git
    return None


def _commit(git: Path, common: Path) -> str | None:
    name = (git / "HEAD").read_text().strip()
    for _ in range(5):  # references may point to references
        if re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", name):
            return name
        if not name.startswith("ref: ") or ".." in name:
            raise _UnknownError
        reference = name.removeprefix("ref: ")
        loose = next((f / reference for f in (git, common) if (f / reference).is_file()), None)
        if loose is None:
            return _packed(common, reference)
        name = loose.read_text().strip()
    raise _UnknownError


def _packed(common: Path, reference: str) -> str | None:
    if (common / "reftable").is_dir():
        raise _UnknownError
    packed = common / "packed-refs"
    for line in packed.read_text().splitlines() if packed.is_file() else ():
        commit, _, name = line.partition(" ")
        if name == reference:
            return commit
    return None


def _is_dirty(tree: Path, git: Path, common: Path, commit: str) -> bool | None:
    algorithm = hashlib.sha1 if len(commit) == 40 else hashlib.sha256
    length = len(commit) // 2
    index = git / "index"
    if not index.is_file():
        return None
    written = index.stat().st_mtime_ns
    entries, cached = _read_index(index.read_bytes(), length)
    if any(entry.unfinished for entry in entries):
        return True
    budget = _MOST_HASHED
    for entry in entries:
        if entry.ignored or entry.mode == _SUBMODULE:
            continue
        path = os.path.join(os.fsencode(tree), entry.name)
        try:
            found = os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            return True
        if _looks_same(entry, found, written):
            continue
        budget -= found.st_size
        if budget < 0:
            raise _UnknownError
        if _hash_file(path, found, entry.mode, algorithm) != entry.identity:
            return True
    committed = _tree_of(common, commit)
    if committed is None:  # the commit is in a pack; a valid cached tree was read from a commit
        return False if cached is not None and cached == _tree(entries, algorithm) else None
    return committed != _tree(entries, algorithm)


def _looks_same(entry: _Entry, found: os.stat_result, written: int) -> bool:
    seconds, nanoseconds = divmod(found.st_mtime_ns, 10**9)
    same_time = entry.modified[0] == seconds & 0xFFFFFFFF and entry.modified[1] in (0, nanoseconds)
    # A file changed in the very moment in which the index was written can look unchanged: git reads it again.
    racy = found.st_mtime_ns >= written
    executable = bool(found.st_mode & stat.S_IXUSR) == (entry.mode & 0o777 == 0o755)
    return same_time and not racy and entry.size == found.st_size & 0xFFFFFFFF and executable


def _hash_file(path: bytes, found: os.stat_result, mode: int, algorithm: Callable[..., Any]) -> bytes:
    if stat.S_ISLNK(found.st_mode) != (stat.S_IFMT(mode) == stat.S_IFLNK):
        return b""
    if stat.S_ISLNK(found.st_mode):
        content = os.readlink(path)
    elif not stat.S_ISREG(found.st_mode) or bool(found.st_mode & stat.S_IXUSR) != (mode & 0o777 == 0o755):
        return b""
    else:
        with open(path, "rb") as file:
            content = file.read()
    return bytes(algorithm(b"blob %d\0" % len(content) + content).digest())


def _read_index(data: bytes, length: int) -> tuple[list[_Entry], bytes | None]:
    """The entries, and the tree that the index says it holds."""
    signature, version, count = struct.unpack_from(">4sII", data)
    if signature != b"DIRC" or version not in (2, 3, 4):
        raise _UnknownError
    position, name, entries = 12, b"", []
    for _ in range(count):
        start = position
        words = struct.unpack_from(">10I", data, position)
        identity = data[position + 40 : position + 40 + length]
        position += 40 + length
        (flags,) = struct.unpack_from(">H", data, position)
        position += 2
        extended = 0
        if flags & 0x4000:
            (extended,) = struct.unpack_from(">H", data, position)
            position += 2
        if version == 4:
            drop, position = _variable(data, position)
            kept = name[: len(name) - drop]
            end = data.index(b"\0", position)
            name, position = kept + data[position:end], end + 1
        else:
            end = data.index(b"\0", position)
            name = data[position:end]
            position = start + (end - start + 8) // 8 * 8
        ignored = bool(flags & 0x8000 or extended & 0x4000)
        unfinished = bool(flags & 0x3000 or extended & 0x2000)
        entries.append(_Entry(words[6], words[9], (words[2], words[3]), identity, name, ignored, unfinished))
    return entries, _cached_tree(data[position:-length], length)


def _variable(data: bytes, position: int) -> tuple[int, int]:
    byte = data[position]
    value = byte & 0x7F
    while byte & 0x80:
        position += 1
        byte = data[position]
        value = ((value + 1) << 7) | (byte & 0x7F)
    return value, position + 1


def _cached_tree(extensions: bytes, length: int) -> bytes | None:
    cached = None
    while len(extensions) >= 8:
        kind, size = struct.unpack_from(">4sI", extensions)
        body, extensions = extensions[8 : 8 + size], extensions[8 + size :]
        if kind == b"TREE":
            match = re.match(rb"\0(-?\d+) \d+\n", body)
            if match and int(match[1]) >= 0:
                cached = body[match.end() : match.end() + length]
        elif kind[:1].islower():  # must be understood to read the index at all: split, sparse
            raise _UnknownError
    return cached


def _tree_of(common: Path, commit: str) -> bytes | None:
    """The tree of a commit, or None if the commit is not a file of its own."""
    loose = common / "objects" / commit[:2] / commit[2:]
    if not loose.is_file():
        return None
    match = re.match(rb"commit \d+\0tree ([0-9a-f]+)\n", zlib.decompress(loose.read_bytes()))
    if match is None:
        raise _UnknownError
    return bytes.fromhex(match[1].decode())


def _tree(entries: list[_Entry], algorithm: Callable[..., Any]) -> bytes:
    """The hash of the tree that the entries of an index make."""
    return _subtree(iter([(entry.name.split(b"/"), entry) for entry in entries]), algorithm)


def _subtree(entries: Iterator[tuple[list[bytes], _Entry]], algorithm: Callable[..., Any]) -> bytes:
    files: dict[bytes, tuple[int, bytes]] = {}
    folders: dict[bytes, list[tuple[list[bytes], _Entry]]] = {}
    for parts, entry in entries:
        if len(parts) == 1:
            files[parts[0]] = (entry.mode, entry.identity)
        else:
            folders.setdefault(parts[0], []).append((parts[1:], entry))
    rows = [(name, b"%o %s\0%s" % (mode, name, identity)) for name, (mode, identity) in files.items()]
    for name, inner in folders.items():  # git sorts a folder as if its name ended in a slash
        rows.append((name + b"/", b"40000 %s\0%s" % (name, _subtree(iter(inner), algorithm))))
    content = b"".join(row for _, row in sorted(rows))
    return bytes(algorithm(b"tree %d\0" % len(content) + content).digest())
