"""Predictions in storage made for all of them, or in files: the same as a list joined."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader, TensorDataset

import treadle
from treadle.data import concatenate, map_tree
from treadle.output_blocks import OutputBlocks, outputs_of
from treadle.outputs import StoredOutputs
from treadle.parallel.batches import Present
from treadle.parallel.gathering import SharedGathering

X = torch.randn(23, 4, generator=torch.Generator().manual_seed(2))


class Pair(NamedTuple):
    scores: Tensor
    rest: Any


class Shaped(treadle.SupervisedTask):
    """Predicts whatever a function makes of a batch of rows and the number of the batch."""

    def __init__(self, make: Callable[[Tensor, int], Any]) -> None:
        super().__init__(nn.Linear(4, 3), mse_loss)
        self.make = make
        self.batches = 0

    def predict_step(self, batch: Any, state: treadle.State) -> Any:
        self.batches += 1
        return self.make(batch[0] if isinstance(batch, (tuple, list)) else batch, self.batches)


TREES: dict[str, Callable[[Tensor, int], Any]] = {
    "a tensor": lambda x, n: x[:, :2] * 2,
    "its input": lambda x, n: x,
    "numbers of another kind": lambda x, n: (x > 0).long().argmax(1),
    "half": lambda x, n: x.bfloat16(),
    "a tree": lambda x, n: {"b": x, "a": Pair(x[:, 0], [x.double(), None, (x > 0)])},
    "rows that are not samples": lambda x, n: x.sum(0, keepdim=True),
    "more rows than samples": lambda x, n: x.repeat(3, 1),
    "scalars": lambda x, n: {"mean": x.mean()},
    "strings beside tensors": lambda x, n: {"x": x, "name": [f"{v:.1f}" for v in x[:, 0].tolist()]},
    "another type later": lambda x, n: x if n < 3 else x.double(),
    "other names later": lambda x, n: {"a": x, "b": x + 1} if n < 3 else {"b": x + 1, "a": x},
    "no rows at times": lambda x, n: x if n != 2 else x[:0],
    "of different lengths": lambda x, n: {"x": x, "first": x[:1]},
    "nothing": lambda x, n: (x, None),
}


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return type(other) is Tensor and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, (tuple, list)):
        return type(one) is type(other) and len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other)


def plain(make: Callable[[Tensor, int], Any], size: int) -> Any:
    return concatenate([make(rows, number + 1) for number, rows in enumerate(X.split(size))])


def make_trainer() -> treadle.Trainer:
    return treadle.Trainer(run_dir=None, progress=False, device="cpu")


@pytest.mark.parametrize("name", TREES)
@pytest.mark.parametrize("kind", ["loader", "DataLoader", "stream", "ready"])
def test_stored_predictions_are_those_of_a_list_joined(name: str, kind: str) -> None:
    make = TREES[name]
    data = {
        "loader": lambda: treadle.Loader(X, 5),
        "DataLoader": lambda: DataLoader(TensorDataset(X), 5),
        "stream": lambda: treadle.Loader(lambda: iter(X), 5),
        "ready": lambda: treadle.data.Source(list(X.split(5))),
    }[kind]()
    assert equal(make_trainer().predict(Shaped(make), data), plain(make, 5))


@pytest.mark.parametrize(
    "name", ["a tensor", "a tree", "its input", "half", "nothing", "scalars", "rows that are not samples"]
)
def test_predictions_in_files_are_those_in_memory(name: str, tmp_path: Path) -> None:
    make = TREES[name]
    expected = make_trainer().predict(Shaped(make), treadle.Loader(X, 5))
    found = make_trainer().predict(Shaped(make), treadle.Loader(X, 5), out=tmp_path / "all")
    widened = map_tree(
        lambda leaf: leaf.float() if leaf is not None and leaf.dtype == torch.bfloat16 else leaf, expected
    )
    as_tensors = map_tree(lambda leaf: None if leaf is None else torch.from_numpy(np.array(leaf)), found)
    assert equal(as_tensors, widened)
    files = {
        "a tree": ["a.rest.0.npy", "a.rest.2.npy", "a.scores.npy", "b.npy"],
        "nothing": ["0.npy"],
        "scalars": ["mean.npy"],
    }
    assert sorted(path.name for path in (tmp_path / "all").iterdir()) == files.get(name, ["prediction.npy"])
    assert [path.name for path in tmp_path.iterdir()] == ["all"]


def test_one_tensor_goes_into_one_file(tmp_path: Path) -> None:
    task = Shaped(TREES["a tensor"])
    for _ in range(2):  # a file of this name is replaced
        found = make_trainer().predict(task, X, out=str(tmp_path / "all.npy"))
        assert isinstance(found, np.memmap)
        assert not found.flags.writeable
        np.testing.assert_array_equal(np.load(tmp_path / "all.npy"), (X[:, :2] * 2).numpy())
    assert [path.name for path in tmp_path.iterdir()] == ["all.npy"]


def test_a_task_that_joins_itself_is_asked_with_files_too(tmp_path: Path) -> None:
    class Padded(Shaped):
        def join(self, batches: list[Any]) -> Any:
            return torch.nn.utils.rnn.pad_sequence([row for batch in batches for row in batch], True)

    def ragged(x: Tensor, n: int) -> Any:
        return torch.ones(len(x), n)

    expected = make_trainer().predict(Padded(ragged), treadle.Loader(X, 5))
    assert expected.shape == (23, 5)
    found = make_trainer().predict(Padded(ragged), treadle.Loader(X, 5), out=tmp_path / "all.npy")
    np.testing.assert_array_equal(found, expected.numpy())


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda x, n: x if n < 3 else 1 / 0, ZeroDivisionError, "division"),
        (
            lambda x, n: x if n < 3 else x[:, :2],
            ValueError,
            r"rows of float32 \(4,\) in one batch and .*\(2,\)",
        ),
        (lambda x, n: {"a": x} if n < 3 else {"b": x}, ValueError, r"one batch has \['a'\], another \['b'\]"),
        (lambda x, n: (x, x if n < 3 else None), TypeError, "NoneType"),
        (lambda x, n: (x, None if n < 3 else x), ValueError, "1 is None in some batches only"),
        (lambda x, n: ["word"], TypeError, "prediction 0 is str"),
        (lambda x, n: {"a/b": x, "a b": x, "a_b": x}, ValueError, "the same name"),
    ],
)
def test_a_failure_leaves_nothing_under_the_final_name(
    make: Any, error: Any, said: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=said):
        make_trainer().predict(Shaped(make), treadle.Loader(X, 5), out=tmp_path / "all")
    assert list(tmp_path.iterdir()) == []


def test_several_tensors_do_not_fit_into_one_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"all.npy holds one array; the predictions are 0, 1: name a folder"):
        make_trainer().predict(Shaped(lambda x, n: (x, x)), X, out=tmp_path / "all.npy")
    assert list(tmp_path.iterdir()) == []


def test_a_target_that_cannot_be_is_said_before_anything_is_computed(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    (tmp_path / "file").touch()
    (tmp_path / "folder.npy").mkdir()
    (tmp_path / "empty").mkdir()
    task = Shaped(TREES["a tensor"])
    for out, said in {
        tmp_path / "none" / "all.npy": "there is no folder",
        tmp_path / "none" / "all": "there is no folder",
        tmp_path / "full": "has files in it",
        tmp_path / "file": "name it .npy",
        tmp_path / "folder.npy": "which is a folder",
        3: "out is 3",
    }.items():
        with pytest.raises(ValueError, match=said):
            make_trainer().predict(task, X, out=out)  # type: ignore[arg-type]
    assert task.batches == 0
    make_trainer().predict(task, X, out=tmp_path / "empty")
    assert (tmp_path / "empty" / "prediction.npy").is_file()


def test_a_model_may_return_a_buffer_that_it_uses_again() -> None:
    buffer = torch.zeros(23, 4)

    def reused(x: Tensor, n: int) -> Tensor:
        return buffer[: len(x)].copy_(x)

    assert torch.equal(make_trainer().predict(Shaped(reused), treadle.Loader(X, 5)), X)


def test_storage_is_as_large_as_what_is_in_it() -> None:
    outputs = StoredOutputs(concatenate, rows=1000)
    outputs.add(torch.ones(5, 2))
    assert outputs.result().untyped_storage().nbytes() == 5 * 2 * 4


PROGRAM = """
import sys, torch, treadle
from torch import nn
from torch.nn.functional import mse_loss

class Wide(treadle.SupervisedTask):
    def predict_step(self, batch, state):
        return batch.expand(-1, 100_000).contiguous()

def peak():  # not ru_maxrss, which begins with that of the process that started this one
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024

torch.set_num_threads(1)
task = Wide(nn.Linear(1, 1), mse_loss)
trainer = treadle.Trainer(run_dir=None, progress=False, device="cpu")
trainer.predict(task, torch.ones(16, 1), out=sys.argv[1] + "/warm.npy")
before = peak()
out = sys.argv[1] + "/all.npy" if sys.argv[2] == "file" else None
found = trainer.predict(task, treadle.Loader(torch.arange(640.0).unsqueeze(1), 16), out=out)
assert found.shape == (640, 100_000) and found[639, 7] == 639
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak from Linux's /proc")
@pytest.mark.parametrize(("kind", "least", "most"), [("memory", 150, 380), ("file", 0, 120)])
def test_peak_memory(kind: str, least: float, most: float, tmp_path: Path) -> None:
    """244 MiB of predictions in batches of 6: once in memory, and hardly at all where they go to a file."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path), kind], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert least <= float(done.stdout) <= most


class Counted:
    """A sink that counts what it is given."""

    def __init__(self, sink: Any) -> None:
        self.sink = sink
        self.count = 0

    def add(self, output: Any) -> None:
        self.count += 1
        self.sink.add(output)

    def result(self) -> Any:
        return self.sink.result()


@pytest.mark.parametrize("size", [1, 70, 200, 10**6])
@pytest.mark.parametrize("name", TREES)
def test_blocks_from_a_device_are_those_of_a_list_joined(name: str, size: int) -> None:
    make = TREES[name]
    blocks = OutputBlocks(StoredOutputs(concatenate, rows=None), torch.device("cpu"), size=size)
    for number, rows in enumerate(X.split(5)):
        blocks.add(make(rows, number + 1))
    assert equal(blocks.result(), plain(make, 5))


def test_a_device_is_waited_for_once_a_block() -> None:
    """What a model writes over its last output does not change what is in a block."""
    sink = Counted(StoredOutputs(concatenate, rows=1000))
    blocks = OutputBlocks(sink, torch.device("cpu"), size=250 * 4 * 4)
    buffer, rows = torch.empty(10, 4), torch.randn(1000, 4)
    for part in rows.split(10):
        blocks.add(buffer.copy_(part))
    assert torch.equal(blocks.result(), rows)
    assert sink.count == 4


@pytest.mark.parametrize("own", [False, True])
def test_a_device_hands_over_blocks_in_memory_and_in_files(
    own: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is not the CPU is a device; this one's numbers lie on the CPU all the same."""

    class Joins(Shaped):
        def join(self, batches: list[Any]) -> Any:
            assert len(batches) == 5
            return concatenate(batches) + 1

    blocks: list[OutputBlocks] = []
    initialize = OutputBlocks.__init__

    def remembered(self: OutputBlocks, *arguments: Any) -> None:
        blocks.append(self)
        initialize(self, *arguments)

    def outputs(task: Any, batches: Any, engine: Any, files: Any = None) -> Any:
        elsewhere = SimpleNamespace(device=SimpleNamespace(type="elsewhere"), strategy=engine.strategy)
        made = outputs_of(task, batches, elsewhere, files)  # type: ignore[arg-type]
        if isinstance(made, OutputBlocks):
            made._device = torch.device("cpu")
        return made

    monkeypatch.setattr(OutputBlocks, "__init__", remembered)
    monkeypatch.setattr("treadle.trainer.outputs_of", outputs)
    task = (Joins if own else Shaped)(TREES["a tensor"])
    expected = X[:, :2] * 2 + own
    for out in (None, tmp_path / "all.npy"):
        found = make_trainer().predict(task, treadle.Loader(X, 5), out=out)
        rows = found if isinstance(found, Tensor) else torch.from_numpy(np.array(found))
        assert torch.equal(rows, expected)
    assert len(blocks) == (0 if own else 2)


@pytest.mark.parametrize("seed", range(30))
def test_shares_of_several_processes_come_in_data_order(seed: int) -> None:
    """Processes that have other numbers of batches, or none; in threads that meet at a barrier."""
    draw = random.Random(seed)
    ranks, count, every = draw.randrange(1, 5), draw.randrange(0, 40), draw.randrange(1, 6)
    shares = [sorted(draw.sample(range(count), draw.randrange(0, count + 1))) for _ in range(ranks)]
    expected = sorted((position, rank) for rank in range(ranks) for position in shares[rank])
    values: list[Any] = [None] * ranks
    barrier = threading.Barrier(ranks, timeout=20)
    most_held = [0] * ranks

    def run(rank: int) -> list[Any]:
        def gather(value: Any) -> list[Any]:
            values[rank] = value
            barrier.wait()
            seen = list(values)
            barrier.wait()
            return seen

        batches = Present(treadle.data.Batches([]))
        found: list[Any] = []
        gathering = SharedGathering(found.append, gather, batches, every)
        for position in shares[rank]:
            batches.positions.append(position)
            gathering.add((position, rank))
            most_held[rank] = max(most_held[rank], len(gathering._own))
        gathering.finish()
        return found

    with ThreadPoolExecutor(ranks) as pool:
        found = list(pool.map(run, range(ranks)))
    assert found == [expected] * ranks
    assert max(most_held) < every
