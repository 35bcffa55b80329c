"""The search for the largest micro-batch that fits into memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader, TensorDataset

import treadle
from treadle.finders import find_batch_size
from treadle.finders.batch_size import is_out_of_memory

SAMPLES = 37


class Limited(nn.Module):
    """Runs out of memory above so many samples, like a device would."""

    def __init__(self, limit: int, error: Exception | None = None) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1)
        self.limit = limit
        self.error = error or torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    def forward(self, inputs: Tensor) -> Tensor:
        sizes.append(len(inputs))
        if len(inputs) > self.limit:
            raise self.error
        return self.layer(inputs)


sizes: list[int] = []


def data() -> TensorDataset:
    inputs = torch.arange(2.0 * SAMPLES).reshape(SAMPLES, 2)
    return TensorDataset(inputs, inputs.sum(1, keepdim=True))


def search(limit: int, train: Any = None, error: Exception | None = None, **options: Any) -> int:
    sizes.clear()
    task = treadle.SupervisedTask(Limited(limit, error), mse_loss, torch.optim.Adam, lr=0.1)
    trainer = treadle.Trainer(max_epochs=1, seed=0, run_dir=None, progress=False, microbatch_size=3)
    return find_batch_size(trainer, task, data() if train is None else train, **options)


@pytest.mark.parametrize("limit", [1, 5, 36, 50])
def test_it_is_the_largest_that_fits(limit: int) -> None:
    assert search(limit) == min(limit, SAMPLES)
    assert search(limit, start=7, most=13) == min(limit, 13)
    assert search(limit, start=100) == min(limit, SAMPLES)


def test_it_doubles_then_bisects_with_two_steps_of_two() -> None:
    assert search(11) == 11
    tried = list(dict.fromkeys(sizes))
    assert tried == [2, 4, 8, 16, 12, 10, 11]
    assert sizes.count(8) == 4
    assert sizes.count(16) == 1


@pytest.mark.parametrize(
    "train",
    [
        lambda: DataLoader(data(), 4, shuffle=True),
        lambda: DataLoader(data(), 4, drop_last=True),
        lambda: treadle.Loader(data(), 10, drop_last=True),
        lambda: treadle.Loader(lambda: iter(data()), 10),
        lambda: treadle.Source([(torch.ones(5, 2), torch.ones(5, 1))] * 6),
    ],
)
def test_whatever_the_data_come_in(train: Any) -> None:
    """Batches of a loader that cannot make larger ones are joined."""
    assert search(23, train()) == 23


def test_a_single_sample_that_does_not_fit_is_said() -> None:
    with pytest.raises(torch.OutOfMemoryError, match="a single sample runs out of memory"):
        search(0)


def test_what_libraries_say_counts_and_nothing_else_does() -> None:
    for message in ("DefaultCPUAllocator: can't allocate memory", "cuBLAS: CUBLAS_STATUS_ALLOC_FAILED"):
        assert search(5, error=RuntimeError(message)) == 5
    assert is_out_of_memory(MemoryError())
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        search(5, error=RuntimeError("shapes cannot be multiplied"))


@pytest.mark.parametrize("options", [{"start": 0}, {"most": 0}, {"start": True}, {"most": 2.5}])
def test_wrong_arguments_are_said(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be a whole number from 1"):
        search(5, **options)
