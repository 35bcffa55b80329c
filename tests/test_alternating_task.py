"""C6: losses mapped to optimizers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import l1_loss, mse_loss

import treadle
from treadle.alternating_task import AlternatingTask

INPUTS = torch.linspace(-1, 1, 30).reshape(10, 3)
TARGETS = torch.stack([INPUTS.sum(1), INPUTS.prod(1)], dim=1)
LOSSES = ("near", "far")


class TwoHeads(nn.Module):
    """A trunk that both heads share."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Linear(3, 4)
        self.near, self.far = nn.Linear(4, 1), nn.Linear(4, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = torch.tanh(self.trunk(inputs))
        return torch.cat([self.near(hidden), self.far(hidden)], dim=1)


class Counted(treadle.metrics.Metric):
    """How many samples were counted."""

    count: int

    def __init__(self) -> None:
        super().__init__()
        self.accumulate("count", 0)

    def update(self, output: Tensor, target: Tensor) -> None:
        self.count += len(output)

    def compute(self) -> Tensor:
        return torch.tensor(float(self.count))


def near(output: Tensor, target: Tensor) -> Tensor:
    return mse_loss(output[:, 0], target[:, 0])


def far(output: Tensor, target: Tensor) -> Tensor:
    return l1_loss(output[:, 1], target[:, 1])


class Shared(AlternatingTask, treadle.SupervisedTask):
    """Each loss steps its head and the trunk, with an optimizer of its own."""

    def configure_optimizers(self) -> Any:
        trunk = list(self.model.trunk.parameters())
        return {
            "near": torch.optim.SGD([*trunk, *self.model.near.parameters()], lr=0.2, momentum=0.9),
            "far": torch.optim.Adam([*trunk, *self.model.far.parameters()], lr=0.05),
        }

    def configure_schedulers(self) -> Any:
        return {"far": treadle.schedules.LinearDecay()}


def make_task(kind: type[Any] = Shared, **options: Any) -> Any:
    torch.manual_seed(5)
    metrics = {"error": lambda output, target: (output - target).abs().mean()}
    return kind(TwoHeads(), {"near": near, "far": far}, metrics=metrics, loss_weights={"far": 0.5}, **options)


def trainer_for(**options: Any) -> treadle.Trainer:
    options = {"max_epochs": 3, "run_dir": None, "checkpoint": None, **options}
    return treadle.Trainer(progress=False, seed=0, log_every=1, **options)


def weights(module: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


def test_c6_each_loss_steps_its_optimizer_as_in_a_loop_written_by_hand() -> None:
    task = make_task()
    run = trainer_for().fit(task, treadle.Loader((INPUTS, TARGETS), 5))
    torch.manual_seed(5)
    model = TwoHeads()
    trunk = list(model.trunk.parameters())
    first = torch.optim.SGD([*trunk, *model.near.parameters()], lr=0.2, momentum=0.9)
    second = torch.optim.Adam([*trunk, *model.far.parameters()], lr=0.05, fused=True)
    seen: list[tuple[float, float]] = []
    for step in range(6):
        inputs, targets = INPUTS[5 * (step % 2) :][:5], TARGETS[5 * (step % 2) :][:5]
        one = near(model(inputs), targets)
        one.backward()
        first.step()
        model.zero_grad()
        second.param_groups[0]["lr"] = 0.05 * (1 - step / 6)
        other = far(model(inputs), targets)
        (other * 0.5).backward()
        second.step()
        model.zero_grad()
        seen.append((float(one.detach()), float(other.detach())))
    assert torch.equal(weights(task.model), weights(model))
    assert run.series("train/near").values.tolist() == [one for one, _ in seen]
    assert run.series("train/far").values.tolist() == [other for _, other in seen]
    total = [one + 0.5 * other for one, other in seen]
    assert run.series("train/loss").values.tolist() == pytest.approx(total, rel=1e-6)


def test_c6_a_loss_moves_nothing_but_its_optimizers_parameters() -> None:
    class Apart(Shared):
        def configure_optimizers(self) -> Any:
            return {name: torch.optim.SGD(getattr(self.model, name).parameters(), lr=0.1) for name in LOSSES}

        def configure_schedulers(self) -> None:
            return None

    task = make_task(Apart)
    trunk, heads = weights(task.model.trunk), [weights(task.model.near), weights(task.model.far)]
    trainer_for(max_epochs=1).fit(task, treadle.Loader((INPUTS, TARGETS), 10))
    assert torch.equal(weights(task.model.trunk), trunk)
    model = make_task(Apart).model
    output = model(INPUTS)
    gradients = torch.autograd.grad(near(output, TARGETS), list(model.near.parameters()), retain_graph=True)
    moved = heads[0] - 0.1 * torch.cat([gradient.flatten() for gradient in gradients])
    assert torch.allclose(weights(task.model.near), moved)
    assert not torch.equal(weights(task.model.far), heads[1])


@pytest.mark.parametrize("options", [{"accumulate": 3}, {"microbatch_size": 4}])
def test_c6_accumulation_is_the_big_batch(options: dict[str, int]) -> None:
    """Ten samples as 4, 4 and 2, gone through once for each optimizer."""
    big, small = make_task(), make_task()
    whole = trainer_for().fit(big, treadle.Loader((INPUTS, TARGETS), 10))
    size = 4 if "accumulate" in options else 10
    parts = trainer_for(**options).fit(small, treadle.Loader((INPUTS, TARGETS), size))
    assert torch.allclose(weights(big.model), weights(small.model), atol=1e-6)
    for name in ("train/loss", "train/near", "train/far", "train/error"):
        assert list(parts.history[name]) == pytest.approx(list(whole.history[name]), rel=1e-5)


def test_losses_and_metrics_mean_the_same_in_training_and_evaluation() -> None:
    """At a rate that changes nothing, all that is logged in training is what evaluation says."""

    class Still(Shared):
        turns: ClassVar[Any] = {"both": LOSSES}

        def configure_optimizers(self) -> Any:
            names = (*LOSSES, "both")
            return {name: torch.optim.SGD(self.model.parameters(), lr=1e-30) for name in names}

    task, data = make_task(Still), treadle.Loader((INPUTS, TARGETS), 4)
    task.metrics["counted"] = Counted()
    history = trainer_for(max_epochs=1).fit(task, data, data).history
    for name in ("loss", "near", "far", "error", "counted"):
        assert history[f"train/{name}"] == pytest.approx(list(history[f"val/{name}"]), rel=1e-6), name


def test_c6_an_optimizer_may_have_several_losses_and_a_loss_several_optimizers() -> None:
    class Trunk(Shared):
        turns: ClassVar[Any] = {"trunk": ("near", "far")}

        def configure_optimizers(self) -> Any:
            names = ("trunk", "near", "far")
            return {name: torch.optim.SGD(getattr(self.model, name).parameters(), lr=0.1) for name in names}

    task = make_task(Trunk)
    data = treadle.Loader((INPUTS, TARGETS), 10)
    history = trainer_for(max_epochs=30).fit(task, data, data).history
    assert history["val/loss"][-1] < history["val/loss"][0] < 1.5 * history["train/loss"][0]
    model = make_task(Trunk).model
    loss = near(model(INPUTS), TARGETS) + 0.5 * far(model(INPUTS), TARGETS)
    gradient = torch.autograd.grad(loss, model.trunk.weight)[0]
    once = make_task(Trunk)
    trainer_for(max_epochs=1).fit(once, data)
    assert torch.allclose(once.model.trunk.weight, model.trunk.weight - 0.1 * gradient)


def test_c6_resume_is_exact_at_every_step(tmp_path: Path) -> None:
    def run(folder: Path | None, resume: Any = None) -> treadle.Run:
        checkpoint = treadle.Checkpoints(every=treadle.Every(steps=1), keep_last=None) if folder else None
        trainer = trainer_for(run_dir=folder, checkpoint=checkpoint)
        return trainer.fit(make_task(), treadle.Loader((INPUTS, TARGETS), 5, shuffle=True), resume=resume)

    whole = run(tmp_path / "whole")
    for cut in range(1, 6):
        part = run(None, tmp_path / "whole" / "checkpoints" / f"step-{cut:08d}")
        assert part.weights_sha256 == whole.weights_sha256, cut


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_c6_in_reduced_precision(precision: str) -> None:
    task = make_task()
    history = trainer_for(max_epochs=20, precision=precision).fit(task, (INPUTS, TARGETS)).history
    assert history["train/loss"][-1] < history["train/loss"][0]


@pytest.mark.parametrize("turns", [{"near": ("near", "typo")}, {"far": ("near",)}])
def test_turns_and_losses_that_do_not_fit_are_said(turns: dict[str, tuple[str, ...]]) -> None:
    task = make_task()
    task.turns = turns
    with pytest.raises(ValueError, match=r"Shared: the turns are .* compute_loss gives \['far', 'near'\]"):
        trainer_for().fit(task, (INPUTS, TARGETS))
    task = Shared(TwoHeads(), mse_loss)
    with pytest.raises(ValueError, match="a single loss without a name"):
        trainer_for().fit(task, (INPUTS, TARGETS))
