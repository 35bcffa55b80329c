"""Two processes, here threads, write one checkpoint: all of it or none."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from treadle.checkpoint import CheckpointError, Shard, ShardedWriter, list_checkpoints, read, sharded_writer

WHOLE = torch.arange(15.0).reshape(5, 3)


def contents(rank: int) -> dict[str, Any]:
    rows = Shard(WHOLE.chunk(2)[rank].clone())
    few = Shard(WHOLE[0, :1].clone() if rank == 0 else torch.empty(0))  # no row for the second
    return {
        "model": {"weight": rows, "tied": rows, "few": few, "scale": torch.tensor(3.0)},
        "optimizers": {"moment": Shard(2 * rows.rows), "step": torch.tensor(7)},
        "model.weight": 1,
    }


def save(folder: Path, step: int = 1) -> list[Exception | None]:
    """What `save` raises on each of two ranks."""
    barrier, told = threading.Barrier(2, timeout=10), {}
    raised: list[Exception | None] = [None, None]

    def gather_of(rank: int) -> Callable[[Any], list[Any]]:
        def gather(value: Any) -> list[Any]:
            told[rank] = value
            barrier.wait()
            values = [told[0], told[1]]
            barrier.wait()
            return values

        return gather

    def process(rank: int) -> None:
        try:
            with ShardedWriter(folder, gather_of(rank), rank, 2) as writer:
                writer.save(step, contents(rank), score=0.5)
        except CheckpointError as error:
            raised[rank] = error

    threads = [threading.Thread(target=process, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    return raised


def test_rows_come_back_as_whole_tensors(tmp_path: Path) -> None:
    assert save(tmp_path) == [None, None]
    (entry,) = list_checkpoints(tmp_path)
    assert (entry.step, entry.score) == (1, 0.5)
    found = read(entry.path)
    assert torch.equal(found["model"]["weight"], WHOLE)
    assert found["model"]["tied"] is found["model"]["weight"]
    assert torch.equal(found["model"]["few"], WHOLE[0, :1])
    assert torch.equal(found["optimizers"]["moment"], 2 * WHOLE)
    assert (found["model"]["scale"], found["optimizers"]["step"], found["model.weight"]) == (3, 7, 1)


@pytest.mark.parametrize("name", ["write_shards", "write_parts"])
def test_what_fails_on_one_fails_on_all_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    assert save(tmp_path) == [None, None]
    real = getattr(sharded_writer, name)

    def failing(folder: Path, parts: Any, rank_or_step: int, *rest: Any) -> Any:
        if name == "write_parts" or rank_or_step == 1:
            raise OSError("no space left on device")
        return real(folder, parts, rank_or_step, *rest)

    monkeypatch.setattr(sharded_writer, name, failing)
    raised = save(tmp_path, 2)
    assert all("no space left on device" in str(error) for error in raised)
    assert [entry.step for entry in list_checkpoints(tmp_path)] == [1]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".step")] == []
    monkeypatch.undo()
    assert save(tmp_path, 2) == [None, None]
    assert [entry.step for entry in list_checkpoints(tmp_path)] == [1, 2]


def test_what_has_no_room_is_said_by_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("treadle.checkpoint.files.free_bytes", lambda path: 100)
    assert all("100 are free" in str(error) for error in save(tmp_path))
