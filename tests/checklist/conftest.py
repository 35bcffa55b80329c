"""A small problem that the rows of the checklist are tried on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import treadle

Data = tuple[Tensor, Tensor]
MakeTask = Callable[..., treadle.SupervisedTask]
MakeTrainer = Callable[..., treadle.Trainer]


@pytest.fixture
def data() -> Data:
    """Twenty-six samples of three classes that can be told apart; batches of 8 end on a short one."""
    generator = torch.Generator().manual_seed(4)
    classes = torch.arange(26) % 3
    return torch.randn(26, 4, generator=generator) + 2 * torch.eye(4)[classes], classes


@pytest.fixture
def make_model() -> Callable[[], nn.Module]:
    """The same small model every time."""

    def make(dropout: float = 0.0) -> nn.Module:
        torch.manual_seed(3)
        return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Dropout(dropout), nn.Linear(6, 3))

    return make


@pytest.fixture
def make_task(make_model: Callable[..., nn.Module]) -> MakeTask:
    """A classifier; everything can be given otherwise."""

    def make(kind: Any = treadle.SupervisedTask, model: Any = None, **options: Any) -> Any:
        settings = {"loss": cross_entropy, "optimizer": torch.optim.SGD, "lr": 0.1} | options
        return kind(make_model() if model is None else model, **settings)

    return make


@pytest.fixture
def make_trainer() -> MakeTrainer:
    """Two epochs, no display, nothing on disk, unless said otherwise."""

    def make(**options: Any) -> treadle.Trainer:
        settings: dict[str, Any] = {"seed": 0, "run_dir": None, "progress": False, "device": "cpu"} | options
        if "max_steps" not in settings:
            settings.setdefault("max_epochs", 2)
        return treadle.Trainer(**settings)

    return make
