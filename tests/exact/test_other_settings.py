"""What a resume says of settings that have changed: what counts, or why it cannot go on."""

from __future__ import annotations

import re
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from tests import short_runs
from tests.short_runs import X, Y, fit
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, TensorDataset

import treadle
from treadle.checkpoint import Writer, newest, read


def go_on(folder: Path, first: dict[str, Any], second: dict[str, Any]) -> tuple[treadle.Run, list[str]]:
    """A run, and the same gone on with other arguments; what was said then."""
    fit(folder, **first)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run = fit(folder, resume="last", **{**first, "max_steps": 12, **second})
    assert all(one.filename == short_runs.__file__ for one in caught)  # it points at the line that called fit
    return run, [str(one.message) for one in caught]


Changes = dict[str, Any]
ADAM = torch.optim.Adam
STEPS = partial(lr_scheduler.StepLR, step_size=1)
MOMENTUM = partial(torch.optim.SGD, momentum=0.9)


def halving(epoch: int) -> float:
    return float(0.5**epoch)


FREE = {
    "microbatch_size": 3,
    "log_every": 2,
    "eval_every": None,
    "checkpoint": treadle.Checkpoints(keep_last=1),
    "callbacks": [treadle.callbacks.Fingerprints()],
}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({}, {}),
        ({}, FREE),
        ({"scheduler": STEPS, "optimizer": MOMENTUM}, {}),
        ({"scheduler": partial(lr_scheduler.OneCycleLR, max_lr=0.5, total_steps=90), "optimizer": ADAM}, {}),
        ({"scheduler": treadle.schedules.OneCycle(), "optimizer": MOMENTUM}, {}),
        ({"scheduler": partial(lr_scheduler.ReduceLROnPlateau, patience=0)}, {}),
        ({"scheduler": partial(lr_scheduler.CosineAnnealingWarmRestarts, T_0=2)}, {}),
        ({"precision": "bf16"}, {}),
        ({"train": treadle.Loader((X, Y), 8, weights=Y + 1, samples=24)}, {}),
        ({"optimizer": partial(torch.optim.AdamW, betas=(0.8, 0.9))}, {}),
        ({"max_steps": 5}, {"val": None}),
    ],
)  # fmt: skip
def test_nothing_is_said_where_nothing_changed_that_counts(
    tmp_path: Path, first: Changes, second: Changes
) -> None:
    run, said = go_on(tmp_path / "run", first, second)
    assert (said, run.step) == ([], 12)
    (resumed,) = [event for event in run.events if event.kind == "resumed"]
    assert resumed.details["changes"] == {}
    assert run.setup["trainer"]["max_steps"] == 12  # as it went on


@pytest.mark.parametrize(
    ("first", "second", "said", "counts"),
    [
        ({}, {"lr": 0.001}, r"groups\[0\]\.lr stays 0\.1 \(0\.001 is given\).*treadle\.load_model", 0.1),
        ({"lr": 0.1}, {"optimizer": MOMENTUM}, r"momentum stays 0 \(0\.9 is given\)", 0.1),
        ({"scheduler": STEPS, "max_steps": 4}, {"scheduler": partial(lr_scheduler.StepLR, step_size=2)},
         r"schedules\.optimizer\.step_size stays 1 \(2 is given\)", None),
        ({"scheduler": STEPS}, {"scheduler": STEPS, "lr": 0.7}, r"lr stays 0\.1 \(0\.7 is given\)", None),
        ({}, {"accumulate": 2, "clip_norm": 1.0},
         r"accumulate was 1 and is 2 from here on, .*clip_norm was None and is 1\.0 from here.*exact", None),
        ({}, {"loss": nn.CrossEntropyLoss()}, r"task\.loss.* is .*CrossEntropyLoss from here on", None),
        ({"scheduler": partial(lr_scheduler.LambdaLR, lr_lambda=halving)},
         {"scheduler": partial(lr_scheduler.LambdaLR, lr_lambda=lambda epoch: 1.0)},
         r"lr_lambdas\[0\] was halving and is <lambda> from here on", None),
        ({"max_steps": 5}, {"batch_size": 4}, r"data\.batch_size was 8 and is 4 from here on", None),
        ({"samples": 24, "max_steps": 6}, {"samples": 40}, r"samples was 24 and is 40 from here on", None),
        ({"scheduler": treadle.schedules.CosineDecay()}, {"scheduler": treadle.schedules.CosineDecay(3)},
         r"warmup\.count was 0 and is 3 from here on", None),
        ({}, {"precision": "bf16"}, r"exact only where nothing .*: precision was fp32 and is bf16", None),
    ],
)  # fmt: skip
def test_what_changed_is_said_once_with_what_counts(
    tmp_path: Path, first: Changes, second: Changes, said: str, counts: float | None
) -> None:
    run, heard = go_on(tmp_path / "run", first, second)
    assert [bool(re.search(said, one)) for one in heard] == [True], heard
    (resumed,) = [event for event in run.events if event.kind == "resumed"]
    assert resumed.details["changes"]
    if counts is not None:
        assert run.history["learning_rate"][-1] == counts
        assert (
            run.setup["optimizers"]["optimizer"]["groups"][0]["lr"] == counts
        )  # what counts, not what was given


def test_what_counts_is_what_the_next_resume_compares(tmp_path: Path) -> None:
    _, said = go_on(tmp_path / "run", {}, {"lr": 0.001, "accumulate": 2})
    assert len(said) == 1
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(tmp_path / "run", resume="last", max_steps=14, accumulate=2)
    assert not caught  # accumulate is what it was, and lr what it always counted as


def test_where_a_program_keeps_its_functions_is_no_difference(tmp_path: Path) -> None:
    def given() -> dict[str, Any]:
        """As a program and as a module of it have them."""
        names: dict[str, Any] = {"cross_entropy": cross_entropy, "torch": torch, "__name__": next(modules)}
        exec("def loss(output, target): return cross_entropy(output, target)", names)
        exec("def halved(epoch): return 0.5 ** epoch", names)
        exec("class Own(torch.optim.SGD): pass", names)
        scheduler = partial(lr_scheduler.LambdaLR, lr_lambda=names["halved"])
        return {"loss": names["loss"], "optimizer": names["Own"], "scheduler": scheduler}

    modules = iter(("__main__", "package.training"))
    fit(tmp_path / "run", **given())
    run = fit(tmp_path / "run", resume="last", **{**given(), "max_steps": 12})  # silently
    assert run.setup["optimizers"]["optimizer"]["class"] == "__main__.Own"


def test_what_the_run_itself_has_changed_is_no_change(tmp_path: Path) -> None:
    class Halving(treadle.Callback):
        def on_epoch_end(self, state: treadle.State) -> None:
            state.optimizers["optimizer"].param_groups[0]["lr"] *= 0.5

    torch.manual_seed(1)
    task = treadle.SupervisedTask(nn.Linear(3, 2), cross_entropy, torch.optim.SGD, lr=0.1)
    fit(tmp_path / "run", task=task, callbacks=[Halving()])
    run = fit(tmp_path / "run", task=task, callbacks=[Halving()], max_steps=15, resume="last")  # silently
    assert run.setup["optimizers"]["optimizer"]["groups"][0]["lr"] == 0.1
    task.optimizers["optimizer"].param_groups[0]["lr"] = 0.7
    with pytest.warns(UserWarning, match=r"lr stays 0\.1 \(0\.7 is given\)"):
        fit(tmp_path / "run", task=task, callbacks=[Halving()], max_steps=20, resume="last")


def test_what_is_set_as_the_fit_starts_counts(tmp_path: Path) -> None:
    class Setting(treadle.Callback):
        def on_fit_start(self, state: treadle.State) -> None:
            state.optimizers["optimizer"].param_groups[0]["lr"] = 0.25

    fit(tmp_path / "run")
    run = fit(tmp_path / "run", resume="last", max_steps=12, callbacks=[Setting()])  # silently
    assert run.history["learning_rate"][-1] == 0.25


def test_a_run_without_a_checkpoint_begins_again_as_it_is_given(tmp_path: Path) -> None:
    class Failing(treadle.Callback):
        def on_step_start(self, state: treadle.State) -> None:
            raise RuntimeError("as meant")

    with pytest.raises(RuntimeError, match="as meant"):
        fit(tmp_path / "run", callbacks=[Failing()])
    run = fit(tmp_path / "run", resume="last", lr=0.3, batch_size=4)  # silently: nothing was trained
    assert run.path == tmp_path / "run"
    assert run.setup["optimizers"]["optimizer"]["groups"][0]["lr"] == 0.3
    assert treadle.Run.open(run.path).setup["data"]["train"]["batch_size"] == 4


@pytest.mark.parametrize(
    ("second", "said"),
    [
        ({"batch_size": 4}, "batch_size was 8 and is 4"),
        ({"samples": 24}, "samples was 40 and is 24"),
        ({"train": treadle.Loader((X, Y), 8, shuffle=False)}, "shuffle was True and is False"),
        ({"train": treadle.Loader((X, Y), 8, shuffle=True, seed=4)}, "seed was None and is 4"),
        ({"train": treadle.Loader((torch.cat([X, X]), Y.repeat(2)), 8, shuffle=True)}, "was 40 and is 80"),
        ({"train": DataLoader(TensorDataset(X, Y), 8, shuffle=True)}, "class was .*Loader and is .*Data"),
        ({"train": treadle.Loader((X, Y), 8, weights=Y + 1)}, "weights was None and is 40 numbers"),
        ({"train": treadle.Loader((X, Y), 8, shuffle=True, lengths=Y)}, "lengths was None and is 40 numbers"),
        ({"seed": 9}, "the seed was 0 and is 9"),
    ],
)  # fmt: skip
def test_another_order_in_the_middle_of_an_epoch_is_refused_before_anything_happens(
    tmp_path: Path, second: Changes, said: str
) -> None:
    run = fit(tmp_path / "run")
    assert run.path is not None
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=f"inside epoch 2, after 2 of its batches.*{said}"):
        fit(tmp_path / "run", resume="last", **{"max_steps": 12, **second})
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before
    checkpoint = run.path / "checkpoints" / "step-00000005"  # between two epochs any data may follow
    if "seed" not in second:
        with pytest.warns(UserWarning, match="from here on"):
            fit(tmp_path / "fork", resume=checkpoint, **{"max_steps": 12, **second})


def without_setup(run: treadle.Run) -> None:
    """Make of a run's newest checkpoint one from before the setup was recorded."""
    assert run.path is not None
    folder = run.path / "checkpoints"
    found = newest(folder)
    assert found is not None
    contents = {name: value for name, value in read(found.path).items() if name != "setup"}
    with Writer(folder) as writer:
        writer.save(contents["progress"]["step"] + 1, contents)


def test_a_checkpoint_from_before_is_gone_on_with_in_silence(tmp_path: Path) -> None:
    without_setup(fit(tmp_path / "run"))
    run = fit(tmp_path / "run", resume="last", lr=0.5, max_steps=12)  # warnings are errors here
    assert run.step == 12


class Adding(treadle.Callback):
    """A group more from the second epoch on."""

    def on_epoch_start(self, state: treadle.State) -> None:
        if state.progress.epoch == 1 and state.progress.batch == 0:
            state.optimizers["optimizer"].add_param_group({"params": [nn.Parameter(torch.ones(2))]})


def other_groups(parameters: Any, lr: float) -> torch.optim.Optimizer:
    first, *others = parameters
    return torch.optim.SGD([{"params": others}, {"params": [first]}], lr)


@pytest.mark.parametrize("recorded", [True, False])
@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ({"optimizer": ADAM}, {"optimizer": torch.optim.SGD}, "the task's is torch.optim.sgd.SGD"),
        ({}, {"optimizer": ADAM}, "'optimizer' is .*, the task's is torch.optim.adam.Adam: resume with"),
        ({"optimizer": ADAM}, {"optimizer": torch.optim.RMSprop}, "the task's is .*rmsprop.RMSprop"),
        ({}, {"precision": "fp16"}, "no loss scale to go on with; precision is 'fp16'"),
        ({"callbacks": [Adding()]}, {"callbacks": []}, "2 parameter groups, the task's has 1: .*Freezing"),
        ({"optimizer": other_groups}, {"optimizer": partial(other_groups)}, ""),
    ],
)  # fmt: skip
def test_what_cannot_go_on_is_said_in_a_sentence_before_anything_happens(
    tmp_path: Path, first: Changes, second: Changes, said: str, recorded: bool
) -> None:
    run = fit(tmp_path / "run", **first)
    if not recorded:
        without_setup(run)
    if not said:
        assert fit(tmp_path / "run", resume="last", **{"max_steps": 12, **second}).step == 12
        return
    with pytest.raises(ValueError, match=said):
        fit(tmp_path / "run", resume="last", **{"max_steps": 12, **second})
    assert [event.kind for event in run.events][-1] == "finished"


def test_one_optimizer_for_another_of_the_same_settings_is_seen(tmp_path: Path) -> None:
    fit(tmp_path / "run", optimizer=torch.optim.Adam)
    with pytest.raises(
        ValueError, match=r"is torch\.optim\.adam\.Adam, the task's is torch\.optim\.adamw\.AdamW"
    ):
        fit(tmp_path / "run", resume="last", max_steps=12, optimizer=torch.optim.AdamW)


def test_another_schedule_cannot_take_the_state_of_one(tmp_path: Path) -> None:
    fit(tmp_path / "run", scheduler=STEPS)
    with pytest.raises(ValueError, match="was StepLR and is ExponentialLR"):
        fit(
            tmp_path / "run",
            resume="last",
            max_steps=12,
            scheduler=partial(lr_scheduler.ExponentialLR, gamma=0.5),
        )
