"""Evaluation and prediction: every sample once, in order, and not a trace left behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss
from torch.utils.data import DataLoader, TensorDataset

import treadle

X, Y = torch.randn(23, 4, generator=torch.Generator().manual_seed(2)), torch.arange(23) % 3


class Named(treadle.SupervisedTask):
    def metadata(self, batch: Any) -> dict[str, Any]:
        return {"row": batch[0][:, 0], "name": [f"sample {int(label)}" for label in batch[1]]}

    def load_sample(self, path: str) -> Any:
        return torch.tensor([float(word) for word in Path(path).read_text().split()])

    def store_result(self, result: Any, path: str) -> None:
        Path(path).write_text(" ".join(f"{value:.4f}" for value in result.tolist()))


def make_task(kind: Any = Named) -> treadle.SupervisedTask:
    torch.manual_seed(0)
    metrics = {"accuracy": treadle.metrics.Accuracy()}
    task: treadle.SupervisedTask = kind(
        nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5)),
        cross_entropy,
        torch.optim.SGD,
        lr=0.1,
        metrics=metrics,
    )
    return task


def make_trainer(**options: Any) -> treadle.Trainer:
    return treadle.Trainer(**{"max_epochs": 2, "seed": 0, "run_dir": None, "progress": False} | options)


def test_results_hold_every_sample_in_data_order() -> None:
    task, trainer = make_task(), make_trainer()
    shuffled = treadle.Loader((X, Y), 5, shuffle=True, drop_last=True)  # as the training has it
    results = trainer.results(task, shuffled)
    expected = task.eval()(X).detach()
    assert torch.allclose(results.outputs, expected, atol=1e-6)  # other batches, other association
    assert torch.equal(results.predictions, expected.argmax(dim=1))
    assert torch.equal(results.targets, Y)
    assert torch.equal(results.metadata["row"], X[:, 0])
    assert results.metadata["name"][4] == "sample 1"
    assert results.values == pytest.approx(trainer.evaluate(task, (X, Y)), abs=1e-6)
    assert results.seconds > 0


def test_the_cache_knows_when_a_weight_has_changed() -> None:
    task, trainer = make_task(), make_trainer()
    data = treadle.Loader((X, Y), 5)
    first = trainer.results(task, data)
    assert trainer.results(task, data) is first
    assert trainer.results(task, data, refresh=True) is not first
    with torch.no_grad():
        task.model[0].weight.data[0, 0] += 1e-3  # past autograd's version counter
    changed = trainer.results(task, data)
    assert not torch.equal(changed.outputs, first.outputs)
    assert trainer.results(task, treadle.Loader((X, Y), 5)) is not changed  # other data


def test_the_cache_knows_tasks_metrics_and_what_was_refreshed() -> None:
    task, trainer, x = make_task(), make_trainer(), X.clone()
    data = (x, Y)
    first = trainer.results(task, data)
    other = treadle.SupervisedTask(task.model, lambda output, target: output.square().mean())
    assert trainer.results(other, data).values != first.values  # the same weights, another loss
    assert trainer.results(task, data) is first
    task.metrics = {"accuracy": treadle.metrics.Accuracy()}
    assert "test/accuracy" in trainer.results(task, data).values
    x.zero_()
    refreshed = trainer.results(task, data, refresh=True)
    assert trainer.results(task, data) is refreshed


@pytest.mark.parametrize(
    ("outputs", "targets", "expected"),
    [
        (torch.tensor([[0.2], [-0.4]]), torch.tensor([[1.5], [2.5]]), torch.tensor([[0.2], [-0.4]])),
        (torch.tensor([[0.2], [-0.4]]), torch.tensor([1, 0]), torch.tensor([1, 0])),
        (torch.tensor([0.2, -0.4]), torch.tensor([1, 0]), torch.tensor([1, 0])),
        (torch.tensor([[0.2, 0.1], [-0.4, 3.0]]), torch.tensor([1, 0]), torch.tensor([0, 1])),
        (torch.tensor([[0.2, -0.1]]), torch.tensor([[1, 1]]), torch.tensor([[1, 0]])),
    ],
)
def test_decisions(outputs: Tensor, targets: Tensor, expected: Tensor) -> None:
    """A regression's output of shape (N, 1) is a value, not class 0."""
    assert torch.equal(make_task().decide(outputs, targets), expected)


def test_one_sample_live_and_from_path_to_path(tmp_path: Path) -> None:
    task, trainer = make_task(), make_trainer()
    expected = task.eval()(X[:1])[0].detach()
    assert torch.equal(trainer.predict_sample(task, X[0]), expected)
    (tmp_path / "in.txt").write_text(" ".join(str(value) for value in X[0].tolist()))
    assert torch.allclose(trainer.predict_file(task, tmp_path / "in.txt", tmp_path / "out.txt"), expected)
    assert (tmp_path / "out.txt").read_text() == " ".join(f"{value:.4f}" for value in expected.tolist())


def test_a_missing_method_is_named() -> None:
    task, trainer = make_task(treadle.SupervisedTask), make_trainer()
    with pytest.raises(NotImplementedError, match="SupervisedTask must define load_sample"):
        trainer.predict_file(task, "x")


def test_looking_at_the_training_data_does_not_change_the_training() -> None:
    """Not even through the very DataLoader, or the stateful stream, that the training reads."""

    def weights(look: bool, train: Any) -> Tensor:
        task, trainer = make_task(), make_trainer()
        if look:

            @trainer.on("step_end")
            def peek(state: treadle.State) -> None:
                make_trainer().evaluate(task, train)
                make_trainer().predict(task, train)

        trainer.fit(task, train, also={"train_full": train} if look else None)
        return torch.cat([parameter.detach().flatten() for parameter in task.parameters()])

    def given() -> Any:
        return DataLoader(TensorDataset(X, Y), 5, shuffle=True, generator=torch.Generator().manual_seed(1))

    assert torch.equal(weights(True, given()), weights(False, given()))
    loader = treadle.Loader((X, Y), 5, shuffle=True)
    assert torch.equal(weights(True, loader), weights(False, loader))


def test_data_evaluated_along_and_after() -> None:
    task = make_task()
    run = make_trainer().fit(task, (X, Y), (X[:9], Y[:9]), also={"train_full": (X, Y)}, test=(X[9:], Y[9:]))
    assert len(run.history["train_full/loss"]) == len(run.history["val/accuracy"]) == 2
    assert run.history["train_full/loss"][-1] == make_trainer().evaluate(task, (X, Y))["test/loss"]
    assert run.series("test/loss").values.tolist() == [
        make_trainer().evaluate(task, (X[9:], Y[9:]))["test/loss"]
    ]


def test_several_named_losses_with_weights() -> None:
    task = treadle.SupervisedTask(
        nn.Linear(4, 4),
        {"fit": mse_loss, "size": lambda output, target: output.abs().mean()},
        torch.optim.SGD,
        lr=0.1,
        loss_weights={"size": 0.5},
    )
    run = make_trainer().fit(task, (X, X), (X, X))
    for mode in ("train", "val"):
        total, fit, size = (run.history[f"{mode}/{name}"][0] for name in ("loss", "fit", "size"))
        assert total == pytest.approx(fit + 0.5 * size, abs=1e-6)
