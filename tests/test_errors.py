"""Bad input: one clear error that says what was given and what is allowed, before anything is trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import treadle

X, Y = torch.randn(10, 4), torch.arange(10) % 3


def model() -> nn.Module:
    return nn.Linear(4, 3)


def task(**options: Any) -> treadle.SupervisedTask:
    return treadle.SupervisedTask(model(), **{"loss": cross_entropy, "lr": 0.1} | options)


def fit(folder: Path, given: Any = None, train: Any = (X, Y), val: Any = None, **options: Any) -> None:
    settings: dict[str, Any] = {
        "max_epochs": 1,
        "seed": 0,
        "progress": False,
        "run_dir": folder / "run",
    } | options
    resume = settings.pop("resume", None)
    treadle.Trainer(**settings).fit(task() if given is None else given, train, val, resume=resume)


class Typo(treadle.Callback):
    def on_step_ends(self, state: treadle.State) -> None: ...


def foreign_optimizer(folder: Path) -> None:
    fit(folder, task(optimizer=torch.optim.SGD(model().parameters(), lr=0.1), lr=None))


def two_optimizers_one_schedule(folder: Path) -> None:
    class Two(treadle.SupervisedTask):
        def configure_optimizers(self) -> Any:
            return {name: torch.optim.SGD([p], 0.1) for name, p in self.model.named_parameters()}

    fit(folder, Two(model(), cross_entropy, scheduler=torch.optim.lr_scheduler.ConstantLR))


def frozen(folder: Path) -> None:
    fit(folder, treadle.SupervisedTask(model().requires_grad_(False), cross_entropy))


CASES: dict[str, tuple[Callable[[Path], Any], type[Exception], list[str]]] = {
    "a callback without a list": (
        lambda f: fit(f, callbacks=treadle.callbacks.EarlyStopping("train/loss")),
        TypeError,
        ["Trainer: callbacks is EarlyStopping; give a list"],
    ),
    "further data under a taken name": (
        lambda f: treadle.Trainer(max_epochs=1, run_dir=f / "run").fit(
            task(), (X, Y), also={"train": (X, Y)}
        ),
        ValueError,
        ["also names data 'train'", "other than train, val, test, predict"],
    ),
    "further data with a slash": (
        lambda f: treadle.Trainer(max_epochs=1, run_dir=f / "run").fit(task(), (X, Y), also={"a/b": (X, Y)}),
        ValueError,
        ["also names data 'a/b'"],
    ),
    "a number as text": (lambda f: fit(f, clip_norm="1"), ValueError, ["clip_norm is '1'"]),
    "a trial with a number": (lambda f: fit(f, trial=3), TypeError, ["trial is 3", "Trial(batches)"]),
    "half a checkpoint": (lambda f: treadle.Checkpoints(keep_last=1.5), ValueError, ["keep_last is 1.5"]),
    "yes to the best": (lambda f: treadle.Checkpoints(keep_best=True), ValueError, ["keep_best is True"]),
    "an interval as text": (
        lambda f: treadle.Every(epochs="3"),
        ValueError,
        ["epochs is '3'", "whole number"],
    ),
    "half an epoch": (lambda f: treadle.Every(epochs=1.5), ValueError, ["epochs is 1.5", "whole number"]),
    "LBFGS without closures": (
        lambda f: fit(f, task(optimizer=torch.optim.LBFGS)),
        TypeError,
        ["LBFGS", "SupervisedClosureTask"],
    ),
    "resume with yes": (lambda f: fit(f, resume=True), TypeError, ["resume is True", "'last'"]),
    "plateau between evaluations in steps": (
        lambda f: fit(
            f,
            task(scheduler=torch.optim.lr_scheduler.ReduceLROnPlateau),
            val=(X, Y),
            eval_every=treadle.Every(steps=3),
        ),
        ValueError,
        ["'val/loss' after epochs", "eval_every names steps only", "epochs=1"],
    ),
    "a typo in a hook": (
        lambda f: fit(f, callbacks=[Typo()]),
        ValueError,
        ["on_step_ends", "Did you mean 'on_step_end'", "on_fit_start"],
    ),
    "a typo in an event": (
        lambda f: treadle.Trainer(max_epochs=1).on("stepend"),
        ValueError,
        ["on_stepend", "on_step_end"],
    ),
    "a class for a callback": (lambda f: fit(f, callbacks=[Typo]), TypeError, ["Typo", "instance"]),
    "an unknown argument": (lambda f: fit(f, epochs=3), TypeError, ["epochs"]),
    "neither epochs nor steps": (lambda f: fit(f, max_epochs=None), ValueError, ["exactly one", "neither"]),
    "epochs and steps": (lambda f: fit(f, max_steps=3), ValueError, ["exactly one", "both"]),
    "a negative epoch": (lambda f: fit(f, max_epochs=-1), ValueError, ["max_epochs", "-1"]),
    "an epoch of a wrong type": (lambda f: fit(f, max_epochs="three"), TypeError, ["max_epochs", "'three'"]),
    "no accumulation": (lambda f: fit(f, accumulate=0), ValueError, ["accumulate", "0", "at least 1"]),
    "an unknown precision": (lambda f: fit(f, precision="fp12"), ValueError, ["fp12", "bf16"]),
    "an unknown device": (lambda f: fit(f, device="gpu0"), ValueError, ["gpu0"]),
    "a negative clip": (lambda f: fit(f, clip_norm=-1.0), ValueError, ["clip_norm", "-1.0"]),
    "a seed out of range": (lambda f: fit(f, seed=2**40), ValueError, ["seed", "4294967295"]),
    "an empty data set": (lambda f: fit(f, train=(X[:0], Y[:0])), ValueError, ["train", "0 samples"]),
    "lengths that differ": (lambda f: fit(f, train=(X, Y[:5])), ValueError, ["train", "10", "5"]),
    "a batch size of 0": (lambda f: treadle.Loader((X, Y), 0), ValueError, ["batch_size", "0"]),
    "data of no known kind": (lambda f: fit(f, train=3), TypeError, ["train", "int", "allowed"]),
    "validation data of no known kind": (lambda f: fit(f, val=3), TypeError, ["val", "int", "allowed"]),
    "a model for a task": (lambda f: fit(f, model()), TypeError, ["Linear", "SupervisedTask"]),
    "a class for a model": (
        lambda f: treadle.SupervisedTask(nn.Linear, cross_entropy),
        TypeError,
        ["Linear"],
    ),
    "a class for a loss": (
        lambda f: task(loss=nn.CrossEntropyLoss),
        TypeError,
        ["CrossEntropyLoss", "instance"],
    ),
    "a loss that is not a scalar": (
        lambda f: fit(f, task(loss=nn.CrossEntropyLoss(reduction="none"))),
        ValueError,
        ["(10,)", "scalar"],
    ),
    "no loss at all": (lambda f: fit(f, task(loss=None)), ValueError, ["no loss"]),
    "an optimizer of another model": (foreign_optimizer, ValueError, ["'optimizer'", "SGD", "another model"]),
    "nothing to train": (frozen, ValueError, ["requires a gradient"]),
    "an unknown class path": (
        lambda f: task(optimizer={"class_path": "torch.optim.Sdg"}),
        ValueError,
        ["torch.optim.Sdg"],
    ),
    "an unknown init argument": (
        lambda f: task(optimizer={"class_path": "torch.optim.SGD", "init_args": {"speed": 1}}),
        ValueError,
        ["speed", "momentum"],
    ),
    "a negative learning rate": (lambda f: task(lr=-0.1), ValueError, ["lr", "-0.1"]),
    "a learning rate given twice": (
        lambda f: task(optimizer={"class_path": "torch.optim.SGD", "init_args": {"lr": 0.2}}),
        ValueError,
        ["lr", "twice"],
    ),
    "a plateau without validation": (
        lambda f: fit(f, task(scheduler=torch.optim.lr_scheduler.ReduceLROnPlateau)),
        ValueError,
        ["val/loss", "validation"],
    ),
    "one schedule for two optimizers": (two_optimizers_one_schedule, ValueError, ["bias", "weight"]),
    "weights of no loss": (lambda f: task(loss_weights={"kl": 2.0}), ValueError, ["kl"]),
    "a metric named loss": (lambda f: task(metrics={"loss": cross_entropy}), ValueError, ["loss"]),
    "a metric of no known kind": (lambda f: task(metrics={"score": 3}), TypeError, ["score"]),
    "every nothing": (lambda f: treadle.Every(), ValueError, ["steps", "epochs", "seconds"]),
    "resume from nowhere": (lambda f: fit(f, resume=f / "nowhere"), ValueError, ["nowhere"]),
    "resume without a folder": (lambda f: fit(f, run_dir=None, resume="last"), ValueError, ["run_dir"]),
}

WHILE_TRAINING = ("a loss that is not a scalar", "no loss at all")


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_one_clear_error(case: str, tmp_path: Path) -> None:
    act, kind, words = CASES[case]
    with pytest.raises(kind) as caught:
        act(tmp_path)
    text = str(caught.value)
    assert [word for word in words if word not in text] == [], text
    if case in WHILE_TRAINING:  # only the first batch can tell; the weights have not moved
        assert treadle.Run.open(tmp_path / "run").status == "failed"
        assert not list((tmp_path / "run" / "checkpoints").iterdir())
    else:
        assert not list(tmp_path.iterdir())


def test_the_callers_arguments_are_not_changed(tmp_path: Path) -> None:
    optimizer = {"class_path": "torch.optim.SGD", "init_args": {"momentum": 0.9}}
    callbacks = [treadle.Callback()]
    metrics = {"accuracy": treadle.metrics.Accuracy()}
    kept = (str(optimizer), list(callbacks), dict(metrics))
    trainer = treadle.Trainer(max_epochs=1, run_dir=None, progress=False, callbacks=callbacks)
    trainer.on("step_end")(lambda state: None)
    trainer.fit(task(optimizer=optimizer, metrics=metrics), (X, Y))
    assert (str(optimizer), callbacks, metrics) == kept
    assert not metrics["accuracy"].compute() >= 0  # the templates counted nothing


def test_a_loss_named_loss_is_refused() -> None:
    """It would be logged together with the sum of all."""

    class Lightning(treadle.SupervisedTask):
        def compute_loss(self, batch: Any, state: treadle.State) -> Any:
            loss = super().compute_loss(batch, state)
            return {"loss": loss, "accuracy": loss.detach()}

    task = Lightning(nn.Linear(4, 3), cross_entropy)
    trainer = treadle.Trainer(max_epochs=1, run_dir=None, progress=False)
    with pytest.raises(ValueError, match=r"losses named 'loss', 'accuracy': all of them are trained on"):
        trainer.fit(task, (torch.randn(6, 4), torch.arange(6) % 3))
    with pytest.raises(ValueError, match="one of the named losses is 'loss'"):
        treadle.SupervisedTask(nn.Linear(4, 3), {"loss": cross_entropy})


def test_predictions_of_other_lengths_say_what_to_do() -> None:
    class Ragged(treadle.SupervisedTask):
        def predict_step(self, batch: Any, state: treadle.State) -> Any:
            return batch[0][:, : 2 + len(batch[0])]

    trainer = treadle.Trainer(run_dir=None, progress=False)
    with pytest.raises(
        ValueError, match=r"rows have the shapes \(4,\), \(6,\)\. Pad all.*or override Task.join"
    ):
        trainer.predict(
            Ragged(nn.Linear(8, 3), cross_entropy), treadle.Loader((torch.ones(6, 8), torch.ones(6)), 4)
        )
