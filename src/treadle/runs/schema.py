"""Tables of metrics.sqlite, and how the file is opened for writing and for reading."""

from __future__ import annotations

import os
import shutil
import sqlite3
import struct
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from treadle.runs.errors import RunError

VERSION = 1
_BUSY_SECONDS = 30.0

# Values are packed little-endian doubles in BLOBs: SQLite would turn a NaN in a REAL column into NULL.
# The packed points lie apart from the headers, so that a curve is drawn without paging through them.
TABLES = """
CREATE TABLE series (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE tail (
    series INTEGER NOT NULL, position INTEGER NOT NULL, last INTEGER NOT NULL, steps BLOB NOT NULL,
    numbers BLOB NOT NULL, PRIMARY KEY (series, position)
) WITHOUT ROWID;
CREATE TABLE chunk (
    series INTEGER NOT NULL, position INTEGER NOT NULL, count INTEGER NOT NULL, first INTEGER NOT NULL,
    last INTEGER NOT NULL, header BLOB NOT NULL, block INTEGER NOT NULL, PRIMARY KEY (series, position)
) WITHOUT ROWID;
CREATE TABLE block (id INTEGER PRIMARY KEY, steps BLOB, numbers BLOB NOT NULL);
CREATE TABLE epoch (
    epoch INTEGER PRIMARY KEY, step INTEGER NOT NULL, names TEXT NOT NULL, numbers BLOB NOT NULL
);
CREATE TABLE event (
    id INTEGER PRIMARY KEY, kind TEXT NOT NULL, step INTEGER NOT NULL, time REAL NOT NULL,
    details TEXT NOT NULL
);
CREATE TABLE clock (
    id INTEGER PRIMARY KEY, step INTEGER NOT NULL, epoch INTEGER NOT NULL, time REAL NOT NULL
);
"""

# WAL lives on memory shared between the processes of one machine. On these it may be accepted and still
# show readers on other machines torn data, so it is not even tried.
_NETWORK = {
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "9p",
    "afs",
    "ceph",
    "lustre",
    "gpfs",
    "beegfs",
    "fuse.sshfs",
}


def create(connection: sqlite3.Connection) -> None:
    """Make the tables in an empty database."""
    connection.executescript(f"BEGIN; {TABLES} PRAGMA user_version = {VERSION}; COMMIT;")


def connect(path: Path | str) -> sqlite3.Connection:
    """Open for writing, in autocommit mode, for any thread (the caller locks)."""
    return sqlite3.connect(
        path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=256
    )


def choose_journal(connection: sqlite3.Connection, path: Path) -> bool:
    """Use a write-ahead log where it works, else a rollback journal; True for the former.

    With a write-ahead log readers and the writer never wait for each other, and a commit is one write
    to the page cache (synchronous=NORMAL): killing the process loses nothing, a power cut may lose the
    commits since the last sync but never damages the file. A rollback journal gives neither for free,
    so every commit is synced there.
    """
    if _file_system(path) not in _NETWORK and _wal_works(connection):
        connection.execute("PRAGMA synchronous = NORMAL")
        return True
    connection.execute("PRAGMA journal_mode = TRUNCATE")
    connection.execute("PRAGMA synchronous = FULL")
    return False


def leave_journal(connection: sqlite3.Connection) -> None:
    """Fold the log into the file, so that a closed run is one file that a read-only folder can hold."""
    try:
        connection.execute("PRAGMA busy_timeout = 200")
        connection.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.OperationalError:
        pass  # somebody is reading: the log stays beside the file, which is as good


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that sees one moment of the file and changes neither it nor its folder.

    Raises:
        RunError: the file is missing, damaged, or of a newer format.
    """
    if not path.is_file():
        raise RunError(path, "is missing")
    with readable(path), ExitStack() as stack:
        # A log without its index (somebody copied the folder) would make SQLite create the index, and
        # a journal that a killed writer left would make it roll back: that is done on a copy.
        connection = _connect_to_read(_copy(path, stack) if _has_lost_index(path) else path, stack)
        try:
            check_version(connection, path)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_READONLY_ROLLBACK:
                raise
            connection = _connect_to_read(_copy(path, stack), stack)
            check_version(connection, path)
        connection.execute("BEGIN")
        yield connection


@contextmanager
def readable(path: Path | str) -> Iterator[None]:
    """Whatever a damaged file makes of reading it in here is a RunError that names it."""
    try:
        yield
    except RunError:
        raise
    except (sqlite3.Error, TypeError, ValueError, IndexError, OverflowError, struct.error) as error:
        raise RunError(path, f"cannot be read: {error}") from error


def check_version(connection: sqlite3.Connection, path: Path | str) -> None:
    """Refuse a file that a later version of Treadle has written, or that is no metric store."""
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > VERSION:
        raise RunError(
            path, f"has format {version}, newer than {VERSION}, which this version of Treadle reads"
        )
    if version < 1:
        raise RunError(path, "is not a metric store")


def _connect_to_read(path: Path, stack: ExitStack) -> sqlite3.Connection:
    place = f"file:{quote(os.fspath(path))}?mode=ro"
    connection = sqlite3.connect(place, uri=True, timeout=_BUSY_SECONDS, isolation_level=None)
    return stack.enter_context(closing(connection))


def _has_lost_index(path: Path) -> bool:
    log, index = path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")
    return log.exists() and log.stat().st_size > 0 and not index.exists()


def _copy(path: Path, stack: ExitStack) -> Path:
    """A copy beside nothing else, recovered."""
    scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    for end in ("", "-wal", "-journal"):
        source = path.with_name(path.name + end)
        if source.exists():
            shutil.copyfile(source, scratch / source.name)
    with closing(sqlite3.connect(scratch / path.name, isolation_level=None)) as connection:
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    return scratch / path.name


def _wal_works(connection: sqlite3.Connection) -> bool:
    try:
        mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        connection.execute(f"PRAGMA user_version = {VERSION}")  # a write, to see that it goes through
    except sqlite3.OperationalError:
        return False
    return bool(mode == "wal")


def _file_system(path: Path) -> str:
    try:
        mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    except OSError:
        return ""
    folder = os.path.realpath(path.parent)
    points = [(len(point), kind) for _, point, kind, *_ in mounts if _holds(point, folder)]
    return max(points, default=(0, ""))[1]


def _holds(point: str, folder: str) -> bool:
    return folder == point or folder.startswith(point.rstrip("/") + "/")
