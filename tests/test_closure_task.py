"""Optimizers that evaluate the loss several times a step."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

import treadle
from treadle.closure_task import ClosureTask, SupervisedClosureTask

SAMPLES = 12
INPUTS = torch.randn(SAMPLES, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
TARGETS = INPUTS @ torch.tensor([[1.0], [-2.0], [0.5]], dtype=torch.float64) + 0.3
DATA = (INPUTS, TARGETS)
LBFGS = partial(torch.optim.LBFGS, lr=1.0, max_iter=5, history_size=4, line_search_fn="strong_wolfe")


def make_model(hidden: int = 0) -> nn.Module:
    torch.manual_seed(3)
    layers = [nn.Linear(3, hidden), nn.Tanh(), nn.Linear(hidden, 1)] if hidden else [nn.Linear(3, 1)]
    return nn.Sequential(*layers).double()


def make_task(optimizer: Any = LBFGS, hidden: int = 0, **options: Any) -> SupervisedClosureTask:
    metrics = {"error": lambda output, target: (output - target).abs().mean()}
    return SupervisedClosureTask(make_model(hidden), mse_loss, optimizer, metrics=metrics, **options)


def trainer_for(**options: Any) -> treadle.Trainer:
    if "max_steps" not in options:
        options["max_epochs"] = 4
    options = {"run_dir": None, "checkpoint": None, **options}
    return treadle.Trainer(progress=False, seed=0, log_every=1, **options)


def weights(module: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


def test_lbfgs_reaches_the_optimum_of_a_convex_problem_in_a_few_steps() -> None:
    task = make_task()
    trainer_for(max_steps=6).fit(task, treadle.Loader(DATA, SAMPLES))
    design = torch.cat([INPUTS, torch.ones(SAMPLES, 1, dtype=torch.float64)], dim=1)
    optimum = torch.linalg.lstsq(design, TARGETS).solution.flatten()
    assert torch.allclose(weights(task.model), optimum, atol=1e-6)


def test_it_is_bitwise_the_loop_written_by_hand() -> None:
    task = make_task(hidden=6)
    run = trainer_for().fit(task, treadle.Loader(DATA, 5))
    model = make_model(hidden=6)
    optimizer = LBFGS(model.parameters())
    losses = []
    for _ in range(4):
        for start in range(0, SAMPLES, 5):
            inputs, targets = INPUTS[start : start + 5], TARGETS[start : start + 5]

            def closure(inputs: Tensor = inputs, targets: Tensor = targets) -> Tensor:
                optimizer.zero_grad()
                loss = mse_loss(model(inputs), targets)
                loss.backward()
                return loss

            losses.append(float(optimizer.step(closure).detach()))
    assert torch.equal(weights(task.model), weights(model))
    assert run.series("train/loss").values.tolist() == losses


@pytest.mark.parametrize("options", [{"accumulate": 3}, {"microbatch_size": 5}])
def test_accumulation_is_the_big_batch(options: dict[str, int]) -> None:
    """Twelve samples as 5, 5 and 2: every evaluation goes through all of them, weighted by their number."""
    big, small = make_task(hidden=6), make_task(hidden=6)
    whole = trainer_for(max_steps=4).fit(big, treadle.Loader(DATA, SAMPLES))
    size = 5 if "accumulate" in options else SAMPLES
    parts = trainer_for(max_steps=4, **options).fit(small, treadle.Loader(DATA, size))
    assert torch.allclose(weights(big.model), weights(small.model), rtol=1e-6)
    for name in ("train/loss", "train/error"):
        assert list(parts.history[name]) == pytest.approx(list(whole.history[name]), rel=1e-6)


def test_the_first_evaluation_is_logged_and_heard_and_no_other() -> None:
    """Nor is it made twice: the optimizer's first question is answered by it."""
    heard: list[str] = []
    norms: list[float] = []

    class Listener(treadle.Callback):
        def on_after_loss(self, state: treadle.State) -> None:
            heard.append("loss")

        def on_after_forward(self, state: treadle.State) -> None:
            heard.append("forward")

        def on_before_optimizer_step(self, state: treadle.State) -> None:
            norms.append(float(treadle.gradient_norm(state.task)))

    evaluations: list[int] = []

    class Counting(SupervisedClosureTask):
        def forward(self, inputs: Any) -> Any:
            evaluations.append(1)
            return super().forward(inputs)

    task = Counting(make_model(), mse_loss, partial(torch.optim.LBFGS, max_iter=3, tolerance_change=0.0))
    run = trainer_for(max_steps=2, callbacks=[Listener()]).fit(task, treadle.Loader(DATA, SAMPLES))
    assert heard == ["forward", "loss"] * 2
    assert len(evaluations) == 2 * 3
    assert len(run.series("train/loss").values) == 2
    model = make_model()
    mse_loss(model(INPUTS), TARGETS).backward()
    assert norms[0] == float(treadle.gradient_norm(model))
    assert all(parameter.grad is None for parameter in task.parameters())


class SharpnessAware(torch.optim.SGD):
    """Steps with the gradient a little uphill (Foret et al. 2021): it moves before it asks."""

    def __init__(self, parameters: Any, lr: float = 0.1, how: str = "in place") -> None:
        super().__init__(parameters, lr=lr)
        self.how = how

    def step(self, closure: Any = None) -> Any:
        parameters = [p for group in self.param_groups for p in group["params"]]
        with torch.no_grad():
            uphill = [0.05 * p.grad for p in parameters]
            for p, move in zip(parameters, uphill, strict=True):
                (p if self.how == "in place" else p.data).add_(move)
        loss = closure()
        with torch.no_grad():
            for p, move in zip(parameters, uphill, strict=True):
                p.sub_(move)
        super().step()
        return loss


@pytest.mark.parametrize("how", ["in place", "data"])
def test_an_optimizer_that_moves_before_it_asks_gets_the_loss_where_it_is(how: str) -> None:
    torch.optim.SGD([torch.zeros(1)])  # from now on its step, too, looks for hooks
    task = make_task(partial(SharpnessAware, how=how))
    trainer_for(max_steps=3).fit(task, treadle.Loader(DATA, SAMPLES))
    model = make_model()
    for _ in range(3):
        gradients = torch.autograd.grad(mse_loss(model(INPUTS), TARGETS), list(model.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                parameter += 0.05 * gradient
        uphill = torch.autograd.grad(mse_loss(model(INPUTS), TARGETS), list(model.parameters()))
        with torch.no_grad():
            for parameter, first, second in zip(model.parameters(), gradients, uphill, strict=True):
                parameter -= 0.05 * first + 0.1 * second
    assert torch.allclose(weights(task.model), weights(model), rtol=1e-12)


def test_resume_is_exact_at_every_step(tmp_path: Path) -> None:
    def run(folder: Path | None, resume: Any = None) -> treadle.Run:
        checkpoint = treadle.Checkpoints(every=treadle.Every(steps=1), keep_last=None) if folder else None
        scheduler = treadle.schedules.LinearDecay()
        return trainer_for(run_dir=folder, checkpoint=checkpoint).fit(
            make_task(hidden=6, scheduler=scheduler), treadle.Loader(DATA, 5, shuffle=True), resume=resume
        )

    whole = run(tmp_path / "whole")
    assert whole.step == 12
    for cut in range(1, 12):
        part = run(None, tmp_path / "whole" / "checkpoints" / f"step-{cut:08d}")
        assert part.weights_sha256 == whole.weights_sha256, cut


def test_several_optimizers_with_a_closure_each() -> None:
    class Two(SupervisedClosureTask):
        def configure_optimizers(self) -> Any:
            layer = self.model[0]
            return {name: LBFGS([getattr(layer, name)]) for name in ("weight", "bias")}

    task = Two(make_model(), mse_loss)
    trainer_for(max_steps=4).fit(task, treadle.Loader(DATA, SAMPLES))
    model = make_model()
    optimizers = [LBFGS([model[0].weight]), LBFGS([model[0].bias])]

    def closure() -> Tensor:
        model.zero_grad()
        loss = mse_loss(model(INPUTS), TARGETS)
        loss.backward()
        return loss

    for _ in range(4):
        for optimizer in optimizers:
            optimizer.step(closure)
    assert torch.equal(weights(task.model), weights(model))


def test_a_cancelled_batch_cancels_the_step() -> None:
    class Cancel(treadle.Callback):
        def on_batch_start(self, state: treadle.State) -> None:
            raise treadle.CancelBatch

    task = make_task()
    before = weights(task.model)
    run = trainer_for(max_steps=2, callbacks=[Cancel()]).fit(task, treadle.Loader(DATA, SAMPLES))
    assert run.step == 2
    assert torch.equal(weights(task.model), before)


def test_a_scaled_loss_is_refused_and_bf16_is_not() -> None:
    with pytest.raises(ValueError, match="precision 'fp16' scales the loss"):
        trainer_for(precision="fp16").fit(make_task(), DATA)
    trainer_for(precision="bf16", max_steps=1).fit(make_task(), DATA)


def test_ordinary_tasks_can_be_given_a_closure_too() -> None:
    class Own(ClosureTask):
        def __init__(self) -> None:
            super().__init__()
            self.point = nn.Parameter(torch.zeros(2))

        def configure_optimizers(self) -> Any:
            return torch.optim.LBFGS(self.parameters(), line_search_fn="strong_wolfe", max_iter=50)

        def compute_loss(self, batch: Any, state: treadle.State) -> Any:
            x, y = self.point
            return {"valley": 100 * (y - x**2) ** 2, "slope": (1 - x) ** 2}

    task = Own()
    run = trainer_for(max_steps=2).fit(task, treadle.Source([torch.zeros(1)]))
    assert task.point.tolist() == pytest.approx([1.0, 1.0], abs=1e-4)
    assert run.series("train/slope").values[0] == 1.0
