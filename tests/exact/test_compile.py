"""Compiled models: they are compiled indeed, learn the same, and resume to the last bit."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import treadle

X = torch.randn(60, 8, generator=torch.Generator().manual_seed(4))
Y = torch.arange(60) % 3

# torch's own, on its way to the compiler
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Dropout(0.1))

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs + self.inner(inputs)  # type: ignore[no-any-return]


def sequential() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 3))


def with_a_class_of_ones_own() -> nn.Module:
    return nn.Sequential(Residual(), nn.Linear(8, 3))


class Backend:
    """Runs a graph as it is, and counts graphs and runs."""

    def __init__(self) -> None:
        self.graphs = self.calls = 0

    def __call__(self, graph: torch.fx.GraphModule, inputs: Any) -> Any:
        self.graphs += 1

        def run(*arguments: Any) -> Any:
            self.calls += 1
            return graph.forward(*arguments)

        return run


def fit(compile: Any, make: Any = sequential, resume: str | None = None, **options: Any) -> treadle.Run:
    torch._dynamo.reset()  # as a new process begins
    torch.manual_seed(0)
    task = treadle.SupervisedTask(make(), cross_entropy, torch.optim.AdamW, lr=0.01)
    settings = {"max_steps": 20, "seed": 0, "progress": False, "run_dir": None} | options
    trainer = treadle.Trainer(compile=compile, **settings)
    run = trainer.fit(task, treadle.Loader((X, Y), 8, shuffle=True), val=(X, Y), resume=resume)
    assert all("_orig_mod" not in name for name in task.state_dict())
    return run


@pytest.mark.parametrize("make", [sequential, with_a_class_of_ones_own, lambda: nn.Linear(8, 3)])
def test_every_forward_pass_is_compiled(make: Any) -> None:
    """Also of torch's own modules, for which `nn.Module.compile` does nothing."""
    backend = Backend()
    run = fit({"backend": backend}, make)
    assert backend.graphs == 3  # 8 and 4 samples to train on, 60 to evaluate
    assert backend.calls == 20 + 3
    plain = fit(False, make)
    assert run.fields["weights_sha256"] == plain.fields["weights_sha256"]
    assert run.history["val/loss"] == plain.history["val/loss"]


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # the compiler looks at inputs
def test_every_module_is_compiled_for_itself() -> None:
    """Torch gives up after a number of shapes, which one module must not use up for another."""

    class Several(treadle.SupervisedTask):
        def __init__(self) -> None:
            super().__init__(nn.Linear(20, 3), cross_entropy, torch.optim.SGD, lr=0.1)
            self.layers = nn.ModuleList([nn.Linear(width, width + 1) for width in range(8, 20)])

        def compile_modules(self) -> list[nn.Module]:
            return [self.model, *self.layers]

        def forward(self, inputs: Tensor) -> Tensor:
            for layer in self.layers:
                inputs = layer(inputs)
            return self.model(inputs)  # type: ignore[no-any-return]

    torch._dynamo.reset()
    backend = Backend()
    trainer = treadle.Trainer(max_epochs=1, run_dir=None, progress=False, compile={"backend": backend})
    trainer.fit(Several(), treadle.Loader((X, Y), 8))
    assert backend.calls == 13 * 8


@pytest.mark.parametrize("cut", [1, 8, 15])
def test_a_compiled_run_resumes_to_the_last_bit(cut: int, tmp_path: Path) -> None:
    compile = {"backend": "aot_eager"}
    whole = fit(compile)
    fit(compile, run_dir=tmp_path / "run", max_steps=cut)
    resumed = fit(compile, run_dir=tmp_path / "run", resume="last")
    assert resumed.fields["weights_sha256"] == whole.fields["weights_sha256"]


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch's compiler needs a C++ compiler on the CPU")
def test_with_torchs_own_compiler(tmp_path: Path) -> None:
    """Other kernels, other bits: near the plain run, and resumed to the last bit."""
    whole = fit("model")
    fit("model", run_dir=tmp_path / "run", max_steps=11)
    resumed = fit("model", run_dir=tmp_path / "run", resume="last")
    assert resumed.fields["weights_sha256"] == whole.fields["weights_sha256"]


@pytest.mark.parametrize("given", ["step", 1, None, ["model"]])
def test_anything_else_is_refused(given: Any) -> None:
    with pytest.raises(ValueError, match=r"compile is .*; give True or 'model', False, or a mapping"):
        treadle.Trainer(max_epochs=1, compile=given)


def test_a_model_is_compiled_while_its_trainer_runs_it_and_not_afterwards() -> None:
    torch._dynamo.reset()
    backend, model = Backend(), sequential()
    task = treadle.SupervisedTask(model, cross_entropy, torch.optim.SGD, lr=0.1)
    data = treadle.Loader((X, Y), 12)
    compiling = treadle.Trainer(max_epochs=1, run_dir=None, progress=False, compile={"backend": backend})
    compiling.fit(task, data)
    assert backend.calls == 5
    treadle.Trainer(max_epochs=1, run_dir=None, progress=False).fit(task, data)
    assert backend.calls == 5
    compiling.evaluate(task, data)
    compiling.predict(task, data)
    assert backend.calls == 15
    assert backend.graphs == 2  # with gradients and without: what was compiled is kept
    assert model._compiled_call_impl is None
