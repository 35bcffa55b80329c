"""What is saved, how it is laid out, and how it is committed."""

from treadle.checkpoint.commit import rewind, write
from treadle.checkpoint.errors import CheckpointError
from treadle.checkpoint.finding import Entry, Found, list_checkpoints, newest
from treadle.checkpoint.fingerprint import weights_sha256
from treadle.checkpoint.layout import read
from treadle.checkpoint.names import name_of
from treadle.checkpoint.shard import Shard
from treadle.checkpoint.sharded_writer import ShardedWriter
from treadle.checkpoint.snapshot import Snapshot, snapshot
from treadle.checkpoint.writer import BackgroundWriter, Commit, Writer

__all__ = [
    "BackgroundWriter",
    "CheckpointError",
    "Commit",
    "Entry",
    "Found",
    "Shard",
    "ShardedWriter",
    "Snapshot",
    "Writer",
    "list_checkpoints",
    "name_of",
    "newest",
    "read",
    "rewind",
    "snapshot",
    "weights_sha256",
    "write",
]
