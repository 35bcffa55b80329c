"""Hugging Face datasets read from their Arrow tables: what the library itself reads, without its detours."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from treadle.data.arrow import ArrowColumn, arrow_column
from treadle.data.huggingface import HuggingFaceRows, _tensor

datasets = pytest.importorskip("datasets")
pa = pytest.importorskip("pyarrow")

ROWS = 23
RNG = np.random.default_rng(3)
COLUMNS: dict[str, Any] = {
    "image": RNG.integers(0, 256, (ROWS, 4, 3), dtype=np.uint8),
    "embedding": RNG.normal(size=(ROWS, 5)).astype(np.float32),
    "label": np.arange(ROWS) * 7,
    "weight": np.where(np.arange(ROWS) == 5, np.nan, np.arange(ROWS) / 3),
    "flag": np.arange(ROWS) % 3 == 0,
    "text": [f"row {number}" for number in range(ROWS)],
    "ragged": [list(range(number)) for number in range(ROWS)],
    "missing": [None if number == 4 else number for number in range(ROWS)],
}
READ_FROM_TABLE = {"image", "embedding", "label", "weight"}


def memory() -> Any:
    return datasets.Dataset.from_dict(COLUMNS)


def in_chunks() -> Any:
    parts = [memory().select(range(start, min(start + 6, ROWS))) for start in range(0, ROWS, 6)]
    return datasets.concatenate_datasets(parts)


def on_disk(tmp_path: Path) -> Any:
    in_chunks().save_to_disk(str(tmp_path / "saved"))
    return datasets.load_from_disk(str(tmp_path / "saved"))


def typed() -> Any:
    return memory().cast_column("image", datasets.Array2D((4, 3), "uint8"))


def fixed() -> Any:
    return memory().cast_column("embedding", datasets.List(datasets.Value("float32"), length=5))


def the_librarys(dataset: Any, indices: list[int]) -> dict[str, Any]:
    names = dataset.format["columns"]
    read = dataset.with_format("numpy", columns=names, dtype=None)[indices]
    return {name: _tensor(read[name]) for name in names}


def assert_same(one: Any, other: Any, name: str) -> None:
    assert type(one) is type(other), name
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype, name
        assert one.shape == other.shape, name
        assert one.numpy().tobytes() == other.numpy().tobytes(), name
    else:
        assert str(one) == str(other), name


@pytest.fixture(params=["memory", "chunks", "disk", "typed", "fixed", "chosen columns", "selected"])
def dataset(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    return {
        "memory": memory,
        "chunks": in_chunks,
        "disk": lambda: on_disk(tmp_path),
        "typed": typed,
        "fixed": fixed,
        "chosen columns": lambda: memory().with_format("torch", columns=["label", "image"]),
        "selected": lambda: in_chunks().shuffle(seed=1).select(range(3, 17)),
    }[request.param]()


def test_batches_are_those_of_the_library(dataset: Any) -> None:
    rows, count = HuggingFaceRows(dataset), len(dataset)
    shuffled = np.random.default_rng(0).permutation(count)
    for indices in (shuffled, np.arange(2, 9), np.array([count - 1]), np.array([7, 7, 0, 7]), shuffled[:0]):
        batch = rows.gather(indices, 0)
        assert list(batch) == list(dataset.format["columns"])
        if len(indices):
            for name, values in the_librarys(dataset, indices.tolist()).items():
                assert_same(batch[name], values, name)


def test_numbers_of_one_shape_are_read_from_the_table(tmp_path: Path, monkeypatch: Any) -> None:
    for made in (memory(), in_chunks(), on_disk(tmp_path), typed(), fixed()):
        rows = HuggingFaceRows(made.select_columns(sorted(READ_FROM_TABLE)))
        with monkeypatch.context() as patched:
            patched.setattr(datasets.Dataset, "__getitem__", None)  # nothing is asked of the library
            batch = rows.gather(np.array([20, 1, 13]), 0)
        assert set(batch) == READ_FROM_TABLE
        assert batch["label"].tolist() == [140, 7, 91]


def test_a_batch_shares_no_memory_with_the_table() -> None:
    rows = HuggingFaceRows(memory())
    rows.gather(np.arange(4), 0)["image"].zero_()
    assert rows.gather(np.arange(4), 0)["image"].sum() == COLUMNS["image"][:4].sum()


def test_what_is_mapped_from_a_file_stays_there(tmp_path: Path) -> None:
    """Opening copies nothing, and what goes to another process is the way to the file."""
    values = np.arange(2_000_000, dtype=np.float64).reshape(-1, 100)
    datasets.Dataset.from_dict({"x": values}).save_to_disk(str(tmp_path / "saved"))
    before = pa.total_allocated_bytes()
    rows = HuggingFaceRows(datasets.load_from_disk(str(tmp_path / "saved")))
    assert pa.total_allocated_bytes() - before < 100_000
    assert len(pickle.dumps(rows)) < 100_000
    again = pickle.loads(pickle.dumps(rows))
    assert torch.equal(again.gather(np.array([7]), 0)["x"], torch.from_numpy(values[[7]]))


@pytest.mark.parametrize(
    "array",
    [
        pa.array(["a", "b"]),
        pa.array([True, False]),
        pa.array([1, None]),
        pa.array([[1, 2], [3]]),
        pa.array([[1, 2], None]),
        pa.array([[1, None], [2, 3]]),
        pa.array([[[1], [2]], [[3], [4, 5]]]),
        pa.array([[], []], pa.list_(pa.list_(pa.int64()))),
        pa.array([{"a": 1}, {"a": 2}]),
        pa.array([1, 2], pa.timestamp("s")),
        pa.array([], pa.int64()),
        pa.chunked_array([[[1, 2]], [[3]]]),
    ],
    ids=str,
)
def test_what_has_no_one_shape_is_left_to_the_library(array: Any) -> None:
    assert arrow_column(array if isinstance(array, pa.ChunkedArray) else pa.chunked_array([array])) is None


def test_slices_of_arrays_are_seen_as_slices() -> None:
    whole = pa.array([[n, 10 * n] for n in range(6)])
    column = arrow_column(pa.chunked_array([whole.slice(1, 2), whole.slice(4, 1), whole.slice(0, 0)]))
    assert isinstance(column, ArrowColumn)
    assert len(column) == 3
    assert column.gather(np.array([2, 0])).tolist() == [[4, 40], [1, 10]]
    assert column.run(1, 3).tolist() == [[2, 20], [4, 40]]
