"""The table of layers: counted by hand, and printed without running anything for its sake."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pack_sequence

import treadle
from treadle.callbacks import Summary, parameter_table
from treadle.callbacks.layer_table import Calls
from treadle.callbacks.summary import table_lines


def macs(module: nn.Module, *inputs: Any, **named: Any) -> int | None:
    calls = Calls(module)
    module(*inputs, **named)
    calls.remove()
    found = [row.macs for row in parameter_table(module, calls=calls) if row.macs is not None]
    return sum(found) if found else None


class Tied(nn.Module):
    """Two layers with one weight, and one module used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, 4)
        self.middle = nn.Linear(4, 4)
        self.again = self.middle
        self.head = nn.Linear(4, 10, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.head(self.again(self.middle(self.embedding(tokens))))
        return output


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize(
    ("module", "inputs", "wanted"),
    [
        (nn.Linear(6, 5), (torch.ones(3, 6),), 3 * 6 * 5),
        (nn.Linear(6, 5), (torch.ones(3, 7, 6),), 3 * 7 * 6 * 5),
        (nn.Bilinear(2, 3, 4), (torch.ones(5, 2), torch.ones(5, 3)), 5 * 4 * (2 * 3 + 2)),
        (nn.Conv1d(2, 4, 3), (torch.ones(1, 2, 10),), 8 * 4 * 2 * 3),
        (nn.Conv2d(4, 6, 3, padding=1, groups=2), (torch.ones(2, 4, 5, 5),), 2 * 25 * 6 * 2 * 9),
        (nn.Conv3d(1, 2, 2), (torch.ones(1, 1, 3, 3, 3),), 8 * 2 * 8),
        (nn.ConvTranspose2d(4, 6, 2, stride=2), (torch.ones(1, 4, 5, 5),), 25 * 4 * 6 * 4),
        (nn.GRU(5, 4, num_layers=2), (torch.ones(7, 3, 5),), 21 * 3 * (4 * (5 + 4) + 4 * (4 + 4))),
        (nn.LSTM(5, 4, bidirectional=True), (torch.ones(7, 3, 5),), 21 * 2 * 4 * 4 * (5 + 4)),
        (nn.LSTM(5, 4, proj_size=2), (torch.ones(7, 3, 5),), 21 * (4 * 4 * (5 + 2) + 4 * 2)),
        (nn.RNN(5, 4), (pack_sequence([torch.ones(3, 5), torch.ones(2, 5)]),), 5 * 4 * (5 + 4)),
        (nn.LSTMCell(5, 4), (torch.ones(3, 5),), 3 * 4 * 4 * (5 + 4)),
        (nn.Embedding(10, 4), (torch.ones(3, dtype=torch.long),), 0),
        (nn.LayerNorm(4), (torch.ones(3, 4),), 0),
        (nn.BatchNorm1d(4), (torch.ones(3, 4),), 0),
        (nn.ReLU(), (torch.ones(3, 4),), None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_macs_are_those_counted_by_hand(
    module: nn.Module, inputs: tuple[Any, ...], wanted: int | None
) -> None:
    assert macs(module, *inputs) == wanted


def test_attention_counts_projections_scores_and_sums() -> None:
    width, batch, queries, keys = 8, 2, 5, 7
    module = nn.MultiheadAttention(width, 2, kdim=6, vdim=4, batch_first=True)
    query, key, value = torch.ones(batch, queries, 8), torch.ones(batch, keys, 6), torch.ones(batch, keys, 4)
    per_sample = 2 * queries * width * width + keys * width * (6 + 4) + 2 * queries * keys * width
    assert macs(module, query, key, value) == batch * per_sample
    assert macs(module, query=query, key=key, value=value) == batch * per_sample
    rows = parameter_table(module)
    assert len(rows) == 1, "its output projection is a child that is never called"
    assert rows[0].parameters == sum(p.numel() for p in module.parameters())


def test_shared_modules_and_parameters_count_once() -> None:
    rows = {row.name: row for row in parameter_table(Tied())}
    assert list(rows) == ["embedding", "middle", "head"]
    assert rows["embedding"].parameters == 40
    assert (rows["head"].parameters, rows["head"].shared) == (0, 40)
    assert sum(row.parameters or 0 for row in rows.values()) == sum(p.numel() for p in Tied().parameters())
    assert macs(Tied(), torch.ones(3, dtype=torch.long)) == 3 * (2 * 16 + 40)
    assert any("shared" in line for line in table_lines(list(rows.values())))


def test_parameters_of_modules_with_children_have_a_row() -> None:
    class Shifted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shift = nn.Parameter(torch.zeros(3))
            self.layer = nn.Linear(2, 3)

    rows = parameter_table(nn.Sequential(Shifted()))
    assert [(row.name, row.parameters) for row in rows] == [("0", 3), ("0.layer", 9)]
    assert [row.name for row in parameter_table(nn.Linear(2, 3))] == ["(itself)"]


def test_frozen_parameters_are_said() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    model[0].requires_grad_(False)
    rows = parameter_table(model)
    assert [(row.parameters, row.trainable) for row in rows] == [(16, 0), (10, 10)]
    lines = table_lines(rows)
    assert "trainable" in lines[0]
    assert "26 parameters; 10 trainable, 16 frozen" in lines
    assert "trainable" not in table_lines(parameter_table(nn.Linear(3, 4)))[0]


def test_lazy_layers_are_counted_once_they_know_their_shape() -> None:
    model = nn.Sequential(nn.LazyLinear(4), nn.Linear(4, 2))
    assert parameter_table(model)[0].parameters is None
    assert any("lazy" in line for line in table_lines(parameter_table(model)))
    assert macs(model, torch.ones(5, 3)) == 5 * (12 + 8)
    assert parameter_table(model)[0].parameters == 16


def test_deep_models_are_folded() -> None:
    blocks = [nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.ReLU(), nn.Linear(4, 4))) for _ in range(30)]
    model = nn.Sequential(nn.Sequential(*blocks), nn.Linear(4, 2))
    rows = parameter_table(model)
    assert [row.name for row in rows] == [*(f"0.{i}" for i in range(30)), "1"]
    assert {row.kind for row in rows[:30]} == {"Sequential"}
    assert sum(row.parameters or 0 for row in rows) == sum(p.numel() for p in model.parameters())
    assert [row.name for row in parameter_table(model, max_depth=1)] == ["0", "1"]
    assert len(parameter_table(model, max_rows=1000)) == 91
    assert macs(model, torch.ones(2, 4)) == 2 * (60 * 16 + 8)


def test_the_table_fits_its_width() -> None:
    model: nn.Module = nn.Linear(2, 2)
    for _ in range(12):
        model = nn.ModuleDict({"a_rather_long_name": model})
    lines = table_lines(parameter_table(model), width=80)
    assert max(map(len, lines)) <= 80
    assert lines[1].startswith("…")


class Counting(nn.Module):
    """A model that counts its calls and draws random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.dropout = nn.Dropout(0.5)
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        output: torch.Tensor = self.layer(self.dropout(x))
        return output


def fit(*callbacks: treadle.Callback, model: nn.Module | None = None, steps: int = 3) -> nn.Module:
    torch.manual_seed(1)
    model = Counting() if model is None else model
    torch.manual_seed(2)
    data = (torch.randn(12, 4), torch.randint(0, 3, (12,)))
    trainer = treadle.Trainer(
        max_steps=steps, run_dir=None, checkpoint=None, progress=False, seed=0, callbacks=callbacks
    )
    trainer.fit(treadle.SupervisedTask(model, loss=cross_entropy, lr=0.1), treadle.Loader(data, batch_size=4))
    return model


def hooks_left(model: nn.Module) -> int:
    return sum(len(part._forward_hooks) for part in model.modules())


def test_the_table_is_printed_once_without_a_forward_pass_of_its_own() -> None:
    stream = io.StringIO()
    watched = fit(Summary(console=Console(file=stream, width=80)))
    alone = fit()
    assert watched.calls == alone.calls == 3
    assert torch.equal(watched.layer.weight, alone.layer.weight)  # type: ignore[union-attr, arg-type]
    assert stream.getvalue().splitlines() == [
        "layer          class    output shape  parameters  MACs/sample",
        "model.layer    Linear   4x3                   15           12",
        "model.dropout  Dropout  4x4                    0            -",
        "15 parameters; 12 MACs a sample",
        "",
    ]
    assert hooks_left(watched) == 0


def test_no_hook_is_left_when_the_first_forward_pass_fails() -> None:
    model = nn.Sequential(nn.Linear(5, 3))
    with pytest.raises(RuntimeError):
        fit(Summary(console=Console(file=io.StringIO())), model=model)
    assert hooks_left(model) == 0


def test_without_shapes_no_hook_is_ever_there() -> None:
    stream = io.StringIO()
    model = Counting()
    seen: list[int] = []

    class Look(treadle.Callback):
        def on_after_forward(self, state: treadle.State) -> None:
            seen.append(hooks_left(model))

    fit(Summary(shapes=False, console=Console(file=stream, width=80)), Look(), model=model)
    assert set(seen) == {0}
    assert "output shape" not in stream.getvalue()
    assert "15 parameters" in stream.getvalue()


def test_a_task_with_a_step_of_its_own_gets_its_table_after_the_first_step() -> None:
    class Own(treadle.Task):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 1)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

        def train_step(self, window: Any, state: treadle.State) -> None:
            for batch, share in state.engine.microbatches(window, self.items(window)):
                loss = self.layer(batch[0]).mean()
                state.engine.backward(loss, share)
            state.engine.step(*self.optimizers.values())

    stream = io.StringIO()
    task = Own()
    trainer = treadle.Trainer(
        max_steps=2,
        run_dir=None,
        checkpoint=None,
        progress=False,
        seed=0,
        callbacks=[Summary(console=Console(file=stream, width=80))],
    )
    trainer.fit(task, treadle.Loader((torch.randn(8, 4), torch.zeros(8)), batch_size=4))
    assert stream.getvalue().count("layer  ") == 2
    assert "5 parameters; 16 MACs in the first step" in stream.getvalue()
    assert hooks_left(task) == 0


@pytest.mark.parametrize("settings", [{"max_rows": 0}, {"max_depth": 0}])
def test_summary_settings_are_checked(settings: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be at least 1"):
        Summary(**settings)  # type: ignore[arg-type]
