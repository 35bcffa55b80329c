"""A small problem to try callbacks on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import treadle
from treadle.checkpoint import read

SAMPLES, FEATURES, CLASSES = 26, 5, 3  # at batch 8: four steps an epoch, the last of two samples


class Fitted(NamedTuple):
    run: treadle.Run
    task: treadle.SupervisedTask


def small_data(samples: int = SAMPLES) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(4)
    return torch.randn(samples, FEATURES, generator=generator), torch.arange(samples) % CLASSES


def small_model(dropout: float = 0.2) -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Linear(FEATURES, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(dropout), nn.Linear(6, CLASSES)
    )


def small_task(model: nn.Module | None = None, **changes: Any) -> treadle.SupervisedTask:
    options = {"lr": 0.1, "metrics": {"accuracy": treadle.metrics.Accuracy()}, **changes}
    return treadle.SupervisedTask(
        small_model() if model is None else model,
        options.pop("loss", cross_entropy),
        options.pop("optimizer", partial(torch.optim.SGD, momentum=0.9)),
        **options,
    )


@pytest.fixture
def fit(tmp_path: Path) -> Callable[..., Fitted]:
    """Train a small task for three epochs of four steps, with a checkpoint after every step."""

    def fit(
        callbacks: Iterable[treadle.Callback] = (),
        folder: str | None = None,
        resume: Any = None,
        task: treadle.Task | None = None,
        train: Any = None,
        val: Any = "same",
        **options: Any,
    ) -> Fitted:
        task = small_task() if task is None else task
        options = {"seed": 5, "progress": False, "device": "cpu", **options}
        if "max_steps" not in options:
            options.setdefault("max_epochs", 3)
        if folder is not None:
            options.setdefault(
                "checkpoint", treadle.Checkpoints(every=treadle.Every(steps=1), keep_last=None)
            )
        trainer = treadle.Trainer(
            run_dir=None if folder is None else tmp_path / folder, callbacks=callbacks, **options
        )
        train = treadle.Loader(small_data(), 8, shuffle=True) if train is None else train
        val = treadle.Loader(small_data(13), 5) if val == "same" else val
        return Fitted(trainer.fit(task, train, val, resume=resume), task)

    return fit


@pytest.fixture
def resumes_exactly(fit: Callable[..., Fitted]) -> Callable[..., Fitted]:
    """Check that a run with a callback, cut at any step, ends like the whole one; returns the whole one."""

    def check(
        make: Callable[[], list[treadle.Callback]], cuts: Iterable[int] = (4, 6), **options: Any
    ) -> Fitted:
        whole = fit(make(), "whole", **fresh(options))
        states = final_states(whole.run)
        assert whole.run.path is not None
        at_end = treadle.Checkpoints(every=treadle.Every(steps=1000))
        for cut in cuts:
            found = whole.run.path / "checkpoints" / f"step-{cut:08d}"
            rest = fit(make(), f"cut-{cut}", resume=found, checkpoint=at_end, **fresh(options))
            assert rest.run.weights_sha256 == whole.run.weights_sha256, cut
            assert rest.run.reason == whole.run.reason, cut
            assert rest.run.step == whole.run.step, cut
            assert_tree_equal(final_states(rest.run), states)
            for name in rest.run.names():
                if not name.startswith("time/"):
                    steps, values = whole.run.series(name)
                    later = steps > cut
                    assert rest.run.series(name).steps.tolist() == steps[later].tolist(), (name, cut)
                    assert rest.run.series(name).values.tolist() == values[later].tolist(), (name, cut)
        return whole

    return check


def fresh(options: dict[str, Any]) -> dict[str, Any]:
    """A task of its own for every run, where the options have a function that makes one."""
    return {name: value() if name == "task" else value for name, value in options.items()}


def final_states(run: treadle.Run) -> dict[str, Any]:
    contents = read(run.checkpoints[-1])
    assert contents["progress"]["step"] == run.step
    return {"callbacks": contents["callbacks"], "model": contents["model"], "rng": contents["rng"]}


def assert_tree_equal(one: Any, other: Any, path: str = "") -> None:
    if isinstance(one, Tensor):
        assert torch.equal(one, other), path
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), path
        for key in one:
            assert_tree_equal(one[key], other[key], f"{path}.{key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), path
        for position, (left, right) in enumerate(zip(one, other, strict=True)):
            assert_tree_equal(left, right, f"{path}[{position}]")
    else:
        assert one == other or (one != one and other != other), path
