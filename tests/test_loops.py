"""The loops: what happens in which order, how scopes are cut short, and how deep a call goes."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

import treadle
from treadle.events import HOOK_NAMES
from treadle.precision import ScaledFloat16

X, Y = torch.arange(10.0).unsqueeze(1) / 10, torch.arange(10.0).unsqueeze(1) / 5


def make_task(**options: Any) -> treadle.SupervisedTask:
    torch.manual_seed(0)
    return treadle.SupervisedTask(
        nn.Linear(1, 1), mse_loss, **{"optimizer": torch.optim.SGD, "lr": 0.1} | options
    )


def make_trainer(*callbacks: treadle.Callback, **options: Any) -> treadle.Trainer:
    settings: dict[str, Any] = {"max_epochs": 1, "seed": 0, "run_dir": None, "progress": False} | options
    return treadle.Trainer(callbacks=callbacks, **settings)


def recorder(names: list[str], only: Callable[[str], bool] = lambda name: True) -> treadle.Callback:
    def method(name: str) -> Callable[[Any, treadle.State], None]:
        return lambda self, state: names.append(name.removeprefix("on_"))

    kind = type("Recorder", (treadle.Callback,), {name: method(name) for name in HOOK_NAMES if only(name)})
    return kind()  # type: ignore[no-any-return]


END = ["cleanup", "record_closed"]
STEP = [
    "step_start",
    "batch_start",
    "after_forward",
    "after_loss",
    "after_backward",
    "batch_end",
    "before_optimizer_step",
    "after_optimizer_step",
    "step_end",
]
EVALUATION = ["eval_start", "eval_batch_start", "after_forward", "eval_batch_end", "eval_end"]


def test_events_come_in_order() -> None:
    names: list[str] = []
    trainer = make_trainer(recorder(names, lambda name: name != "on_log"), max_epochs=2)
    trainer.fit(make_task(), treadle.Loader((X, Y), 5), (X, Y))
    epoch = ["epoch_start", *STEP, *STEP, *EVALUATION, "epoch_results", "epoch_end"]
    assert names == ["fit_start", *epoch, *epoch, "fit_end", *END]


def test_a_window_has_a_batch_for_each_micro_batch() -> None:
    names: list[str] = []
    make_trainer(recorder(names), accumulate=2, microbatch_size=2).fit(make_task(), treadle.Loader((X, Y), 5))
    assert names.count("batch_end") == 6
    assert names.count("step_end") == names.count("after_optimizer_step") == 1


def test_callbacks_run_by_order_and_then_as_given() -> None:
    said: list[str] = []

    class Named(treadle.Callback):
        def __init__(self, label: str, order: float) -> None:
            self.label, self.order = label, order

        def on_fit_start(self, state: treadle.State) -> None:
            said.append(self.label)

    given = [Named("late", 5), Named("first of two", 0), Named("second of two", 0), Named("early", -1)]
    trainer = make_trainer(*given)
    trainer.fit(make_task(), (X, Y))
    assert said == ["early", "first of two", "second of two", "late"]
    assert trainer.callbacks == given


def cancel_at(event: str, error: type[Exception], step: int = 2) -> treadle.Callback:
    def hook(self: Any, state: treadle.State) -> None:
        if state.current_step == step and state.mode == "train" and not self.done:
            self.done = True
            raise error("enough")

    return type("Cancel", (treadle.Callback,), {event: hook, "done": False})()  # type: ignore[no-any-return]


def fit_cancelled(event: str, error: type[Exception]) -> tuple[list[str], treadle.Run, treadle.Task]:
    names: list[str] = []
    task = make_task()
    trainer = make_trainer(cancel_at(event, error), recorder(names), max_epochs=2)
    run = trainer.fit(task, treadle.Loader((X, Y), 2), (X, Y))
    assert all(parameter.grad is None for parameter in task.parameters())
    assert names[-2:] == END
    return names, run, task


@pytest.mark.parametrize("event", ["on_batch_start", "on_after_forward", "on_after_loss"])
def test_cancelling_a_batch_skips_its_rest(event: str) -> None:
    names, run, _ = fit_cancelled(event, treadle.CancelBatch)
    assert names.count("batch_end") == 9
    assert names.count("step_end") == run.step == 10


@pytest.mark.parametrize(
    "event", ["on_step_start", "on_batch_start", "on_after_backward", "on_before_optimizer_step"]
)
def test_cancelling_a_step_leaves_the_weights_and_no_gradient(event: str) -> None:
    names, run, _ = fit_cancelled(event, treadle.CancelStep)
    assert names.count("step_end") == 9
    assert run.step == 10  # its data are used up, so it counts
    assert run.history["epoch"] == [1, 2]


@pytest.mark.parametrize("event", ["on_epoch_start", "on_step_start", "on_after_backward", "on_step_end"])
def test_cancelling_an_epoch_still_evaluates_it(event: str) -> None:
    names, run, _ = fit_cancelled(event, treadle.CancelEpoch)
    cut = event != "on_epoch_start"  # there step 2 is never the one under way, so nothing is cut
    assert names.count("eval_end") == 2
    assert names.count("epoch_end") == (1 if cut else 2)
    steps = run.series("train/loss").steps.tolist()
    assert steps == list(range(1, run.step + 1))
    assert len(run.history["val/loss"]) == 2


@pytest.mark.parametrize("event", ["on_step_start", "on_after_backward", "on_step_end", "on_epoch_end"])
def test_cancelling_the_fit_still_cleans_up(event: str) -> None:
    if event == "on_epoch_end":
        names: list[str] = []
        trainer = make_trainer(cancel_at(event, treadle.CancelFit, step=5), recorder(names), max_epochs=2)
        run = trainer.fit(make_task(), treadle.Loader((X, Y), 2))
    else:
        names, run, _ = fit_cancelled(event, treadle.CancelFit)
    assert run.status == "stopped"
    assert run.reason == "enough"
    assert "fit_end" not in names
    assert names[-2:] == END


def test_an_exception_is_raised_after_everybody_has_cleaned_up() -> None:
    names: list[str] = []

    class Broken(treadle.Callback):
        def on_cleanup(self, state: treadle.State) -> None:
            raise OSError("and this too")

    task = make_task()
    trainer = make_trainer(cancel_at("on_after_backward", ZeroDivisionError), Broken(), recorder(names))
    with pytest.raises(OSError, match="and this too") as caught:
        trainer.fit(task, treadle.Loader((X, Y), 2))
    assert isinstance(caught.value.__context__, ZeroDivisionError)
    assert names[-3:] == ["exception", *END]
    assert all(parameter.grad is None for parameter in task.parameters())


def test_request_stop_finishes_the_step_and_evaluates() -> None:
    names: list[str] = []
    trainer = make_trainer(recorder(names), max_epochs=5)

    @trainer.on("step_end")
    def stop(state: treadle.State) -> None:
        if state.progress.step == 3:
            state.request_stop("seen enough")

    run = trainer.fit(make_task(), treadle.Loader((X, Y), 2), (X, Y))
    assert (run.status, run.reason, run.step) == ("stopped", "seen enough", 3)
    assert names[-4:] == ["epoch_end", "fit_end", *END]
    assert names.count("eval_end") == 1


def test_every_filters_subscribed_functions() -> None:
    seen: dict[str, list[int]] = {"steps": [], "epochs": [], "all": []}
    trainer = make_trainer(max_epochs=4)
    trainer.on("step_end", treadle.Every(steps=3))(lambda state: seen["steps"].append(state.progress.step))
    trainer.on("epoch_end", treadle.Every(epochs=2))(
        lambda state: seen["epochs"].append(state.progress.epoch)
    )
    trainer.on("on_step_end")(lambda state: seen["all"].append(state.progress.step))
    trainer.fit(make_task(), treadle.Loader((X, Y), 5))
    assert seen == {"steps": [3, 6], "epochs": [2, 4], "all": list(range(1, 9))}


def test_at_most_seven_frames_from_fit_to_compute_loss() -> None:
    stacks: list[list[str]] = []

    class Shallow(treadle.SupervisedTask):
        def compute_loss(self, batch: Any, state: treadle.State) -> Any:
            stacks.append([frame.name for frame in traceback.extract_stack(sys._getframe())])
            return super().compute_loss(batch, state)

    make_trainer().fit(Shallow(nn.Linear(1, 1), mse_loss), (X, Y))
    frames = stacks[0][stacks[0].index("fit") :]
    assert len(frames) <= 7, frames
    assert frames[-1] == "compute_loss"


def test_a_plain_loop_gives_the_same_weights() -> None:
    """Bit for bit where the optimizer's kernel is the same."""
    model = nn.Linear(1, 1)
    model.load_state_dict(make_task().model.state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, foreach=False)
    for _ in range(3):
        for start in range(0, 10, 4):
            loss = mse_loss(model(X[start : start + 4]), Y[start : start + 4])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    task = make_task(
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, foreach=False), lr=None
    )
    make_trainer(max_epochs=3).fit(task, treadle.Loader((X, Y), 4))
    for ours, theirs in zip(task.model.parameters(), model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


class GAN(treadle.Task):
    """The design's own example of an overridden train_step."""

    def __init__(self) -> None:
        super().__init__()
        self.generator, self.discriminator = nn.Linear(2, 1), nn.Linear(1, 1)

    def configure_optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {
            "discriminator": torch.optim.Adam(self.discriminator.parameters(), 2e-2),
            "generator": torch.optim.Adam(self.generator.parameters(), 2e-2),
        }

    def discriminator_loss(self, batch: Any) -> Tensor:
        real, noise = batch
        fake = self.generator(noise).detach()
        return (
            self.discriminator(fake) - self.discriminator(real)
        ).mean() + self.discriminator.weight.square().sum()

    def generator_loss(self, batch: Any) -> Tensor:
        return -self.discriminator(self.generator(batch[1])).mean()

    def train_step(self, window: Any, state: treadle.State) -> None:
        engine = state.engine
        for name, loss_of in (("discriminator", self.discriminator_loss), ("generator", self.generator_loss)):
            for batch, share in engine.microbatches(window, self.items(window)):
                with engine.autocast():
                    loss = loss_of(batch)
                engine.backward(loss, share)
                state.log(f"{name}_loss", loss)
            engine.step(self.optimizers[name])


def test_a_gan_is_written_with_the_engines_verbs() -> None:
    """No gradient leaks from one loss into the other's step, and accumulation is the big batch."""

    def train(batch_size: int, accumulate: int) -> tuple[treadle.Run, GAN]:
        torch.manual_seed(0)
        task = GAN()
        data = (torch.randn(24, 1), torch.randn(24, 2))
        return make_trainer(max_epochs=2, accumulate=accumulate).fit(
            task, treadle.Loader(data, batch_size)
        ), task

    run, task = train(8, 1)
    _, accumulated = train(2, 4)
    torch.manual_seed(0)
    twin, data = GAN(), None
    data = (torch.randn(24, 1), torch.randn(24, 2))
    optimizers = twin.configure_optimizers()
    for _ in range(2):
        for start in range(0, 24, 8):
            batch = (data[0][start : start + 8], data[1][start : start + 8])
            for name, loss_of in (
                ("discriminator", twin.discriminator_loss),
                ("generator", twin.generator_loss),
            ):
                twin.zero_grad()
                loss_of(batch).backward()
                optimizers[name].step()
    for expected, ours, small in zip(
        twin.parameters(), task.parameters(), accumulated.parameters(), strict=True
    ):
        assert torch.allclose(ours, expected, atol=1e-6)
        assert torch.allclose(small, expected, atol=1e-5)
    assert len(run.series("train/generator_loss").values) == 6


def test_parts_frozen_in_eval_mode_stay_so_after_an_evaluation() -> None:
    class Frozen(treadle.Callback):
        def on_fit_start(self, state: treadle.State) -> None:
            state.task.model[1].eval()

        def on_fit_end(self, state: treadle.State) -> None:
            self.flags = [module.training for module in state.task.model]

    frozen = Frozen()
    torch.manual_seed(0)
    task = treadle.SupervisedTask(nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1)), mse_loss)
    make_trainer(frozen).fit(task, treadle.Loader((X, Y), 5), (X, Y))
    assert frozen.flags == [True, False]


def test_predictions_come_in_data_order() -> None:
    task = make_task()
    predicted = make_trainer().predict(task, treadle.Loader((X, Y), 3))
    assert torch.equal(predicted, task.model(X).detach())
    assert torch.equal(make_trainer().predict(task, X), predicted)


def test_an_optimizer_keeps_its_state_between_fits() -> None:
    """Two fits of one epoch are one fit of two, momentum included."""

    def task_with_momentum() -> treadle.SupervisedTask:
        return make_task(
            optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.01, momentum=0.9), lr=None
        )

    once, twice = task_with_momentum(), task_with_momentum()
    make_trainer(max_epochs=2).fit(once, treadle.Loader((X, Y), 5))
    trainer = make_trainer(max_epochs=1)
    trainer.fit(twice, treadle.Loader((X, Y), 5))
    trainer.fit(twice, treadle.Loader((X, Y), 5))
    for one, other in zip(once.parameters(), twice.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.usefixtures("values_stay_on_the_device")
def test_nothing_is_read_from_the_device_between_log_boundaries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted on the CPU: no item(), tolist() or the like, however many steps there are."""
    reads: list[str] = []

    def counting(name: str) -> Any:
        original = getattr(Tensor, name)

        def method(self: Tensor, *args: Any, **kwargs: Any) -> Any:
            reads.append(name)
            return original(self, *args, **kwargs)

        return method

    for name in ("item", "tolist", "cpu", "numpy", "__bool__", "__float__", "__int__"):
        monkeypatch.setattr(Tensor, name, counting(name))

    def reads_of(samples: int) -> int:
        reads.clear()
        inputs = torch.zeros(samples, 1)
        task = make_task(metrics={"error": treadle.metrics.MeanSquaredError()})
        trainer = make_trainer(log_every=10**6, checkpoint=None)
        trainer_state: list[int] = []
        trainer.on("step_end")(lambda state: trainer_state.append(len(reads)))
        trainer.fit(task, treadle.Loader((inputs, inputs), 2), (X, Y))
        return trainer_state[-1] - trainer_state[0]

    assert reads_of(20) == reads_of(80) == 0


def test_a_hook_can_replace_the_batch() -> None:
    class Zero(treadle.Callback):
        def on_batch_start(self, state: treadle.State) -> None:
            state.batch = (torch.zeros_like(state.batch[0]), torch.zeros_like(state.batch[1]))

    task = treadle.SupervisedTask(nn.Linear(1, 1, bias=False), mse_loss, torch.optim.SGD, lr=0.1)
    run = make_trainer(Zero()).fit(task, (X, Y))
    assert run.history["train/loss"] == [0.0]


def test_gradients_from_before_do_not_belong_to_the_first_step() -> None:
    clean, stained = make_task(), make_task()
    stained.model.weight.grad = torch.full((1, 1), 100.0)
    for task in (clean, stained):
        make_trainer().fit(task, (X, Y))
    assert torch.equal(clean.model.weight, stained.model.weight)


def test_a_step_given_up_in_reduced_precision_leaves_the_next_one_right() -> None:
    """Gradients that were unscaled already must not count as unscaled in the next step."""
    largest: list[float] = []

    class Largest(treadle.Callback):
        def on_before_optimizer_step(self, state: treadle.State) -> None:
            if state.current_step == 2:
                raise treadle.CancelStep

        def on_after_optimizer_step(self, state: treadle.State) -> None:
            largest.append(float(state.task.model.weight.grad.abs().max()))

    make_trainer(Largest(), precision=ScaledFloat16("cpu", initial_scale=64.0), max_epochs=3).fit(
        make_task(), treadle.Loader((X, Y), 5)
    )
    assert len(largest) == 5
    assert max(largest) < 10


def test_a_parameter_may_get_its_first_gradient_late() -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.early, self.late, self.calls = nn.Linear(1, 1), nn.Linear(1, 1), 0

        def forward(self, inputs: Tensor) -> Tensor:
            self.calls += 1
            output: Tensor = self.early(inputs)
            return output + self.late(inputs) if self.calls > 2 else output

    for kind in (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.Adagrad):
        options = {"momentum": 0.9} if kind is torch.optim.SGD else {}
        task = treadle.SupervisedTask(Branches(), mse_loss, lambda p, k=kind, o=options: k(p, lr=0.1, **o))
        make_trainer(max_epochs=3).fit(task, treadle.Loader((X, Y), 5))
