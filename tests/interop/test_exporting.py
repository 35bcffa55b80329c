"""Exported models compute what the model computes, and are checked before they stay."""

# ruff: noqa: N802 - the capital letter is the row of the list of results that the test shows

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

import treadle
from treadle.interop import formats
from treadle.interop.exporting import export
from treadle.interop.formats import ExportError, Format
from treadle.interop.predictor import Predictor
from treadle.loading import load_model

X = torch.randn(24, 3, generator=torch.Generator().manual_seed(0))
Y = X.sum(1, keepdim=True)


def make_model(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Dropout(0.5), nn.Tanh(), nn.Linear(5, 1))


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        return self.layer(left) - right, right.sum(1)


def needs_onnx() -> None:
    for name in ("onnx", "onnxscript"):
        pytest.importorskip(name, reason=f"{name} is not installed")


def trained(folder: Path) -> tuple[treadle.Run, treadle.SupervisedTask]:
    task = treadle.SupervisedTask(make_model(), mse_loss, torch.optim.SGD, lr=0.3)
    trainer = treadle.Trainer(max_epochs=4, progress=False, seed=0, run_dir=folder / "run")
    return trainer.fit(task, treadle.Loader((X, Y), 4), (X, Y)), task


@pytest.mark.parametrize("format", ["torch", "onnx"])
def test_the_best_checkpoint_as_a_program(tmp_path: Path, format: str) -> None:
    if format == "onnx":
        needs_onnx()
    run, task = trained(tmp_path)
    best = load_model(run, make_model(1)).eval()
    assert not torch.allclose(best(X), task.model.eval()(X))  # the best is not the last
    task.train()
    before = {name: value.clone() for name, value in task.state_dict().items()}
    path = export(task, X[:1].numpy(), tmp_path / f"model{formats.FORMATS[format].suffix}", run=run)
    assert task.training
    assert all(torch.equal(value, before[name]) for name, value in task.state_dict().items())
    predict = Predictor.load(path, batch_size=7, trusted=True)
    assert torch.allclose(predict(X), best(X).detach(), atol=1e-5)
    last = export(task, X[:2], path, run=run, checkpoint="last")
    assert torch.allclose(Predictor.load(last, trusted=True)(X), task.model.eval()(X).detach(), atol=1e-5)
    assert sorted(one.name for one in tmp_path.iterdir()) == [path.name, "run"]


def test_weights_alone(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch", reason="safetensors is not installed")
    run, task = trained(tmp_path)
    path = export(task, X[:2], tmp_path / "model.safetensors", run=run)
    best = load_model(run, make_model(1))
    assert all(
        torch.equal(value, best.state_dict()[name])
        for name, value in safetensors.load(path.read_bytes()).items()
    )
    for model in (make_model(2), treadle.SupervisedTask(make_model(2), mse_loss)):
        loaded = load_model(path, model)
        assert torch.equal(Predictor(getattr(loaded, "model", loaded))(X), Predictor(best)(X))


def test_several_arguments_and_outputs(tmp_path: Path) -> None:
    model, right = Two(), torch.randn(24, 2)
    by_position = export(model, (X[:3], right[:3]), tmp_path / "a.pt2")
    by_name = export(model, {"left": X[:3], "right": right[:3]}, tmp_path / "b.pt2")
    for path, data in ((by_position, (X, right)), (by_name, {"left": X, "right": right})):
        found = Predictor.load(path, 5, trusted=True)(data)
        for one, other in zip(found, model(X, right), strict=True):
            assert torch.allclose(one, other, atol=1e-6)


def test_several_arguments_and_outputs_in_onnx(tmp_path: Path) -> None:
    needs_onnx()
    model, right = Two(), torch.randn(24, 2)
    for data in ((X, right), {"left": X, "right": right}):
        path = export(model, data, tmp_path / "a.onnx")
        for one, other in zip(Predictor.load(path, 5)(data), model(X, right), strict=True):
            assert torch.allclose(one, other, atol=1e-6)


def test_a_task_of_ones_own_is_exported_by_its_forward(tmp_path: Path) -> None:
    class Doubled(treadle.Task):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return 2 * self.layer(x)  # type: ignore[no-any-return]

    task = Doubled()
    path = export(task, X, tmp_path / "a.pt2")
    assert torch.allclose(Predictor.load(path, trusted=True)(X), task(X), atol=1e-6)


def test_an_exported_program_has_no_pickle_inside(tmp_path: Path) -> None:
    path = export(make_model(), X[:2], tmp_path / "model.pt2")
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    assert contents
    for name, data in contents.items():
        assert not data.startswith(b"PK"), name  # torch.save
        assert not data.startswith(b"\x80"), name  # a bare pickle
        assert b'"use_pickle": true' not in data, name


def test_a_pt2_file_must_be_trusted(tmp_path: Path) -> None:
    path = export(make_model(), X[:2], tmp_path / "model.pt2")
    with pytest.raises(ValueError, match="torch may run code"):
        Predictor.load(path)


def test_a_file_that_computes_something_else_does_not_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Wrong(Format):
        def run(self, path: Path, call: Any) -> list[Tensor]:
            return [value + 1e-3 for value in super().run(path, call)]

    monkeypatch.setitem(formats.FORMATS, "safetensors", Wrong())
    target = tmp_path / "model.safetensors"
    target.write_text("what was there")
    with pytest.raises(ExportError, match="output 0 of the file"):
        export(nn.Linear(3, 1), X, target)
    assert target.read_text() == "what was there"
    assert list(tmp_path.iterdir()) == [target]


class Fixed(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.arange(2.0).reshape(2, 1)  # for two samples only


def test_a_model_for_one_size_of_batch(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="dynamic_batch=False"):
        export(Fixed(), X[:2], tmp_path / "model.pt2")
    path = export(Fixed(), X[:2], tmp_path / "model.pt2", dynamic_batch=False)
    assert torch.equal(Predictor.load(path, 2, trusted=True)(X[:2]), Fixed()(X[:2]))


def test_what_does_not_fit_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"allowed are 'torch' \(\.pt2\), 'onnx' \(\.onnx\), 'safetensors'"):
        export(make_model(), X, tmp_path / "model.bin")
    with pytest.raises(ValueError, match="there is no folder"):
        export(make_model(), X, tmp_path / "nowhere" / "model.pt2")
    with pytest.raises(ValueError, match="number without dimensions"):
        export(make_model(), 3.0, tmp_path / "model.pt2")
    with pytest.raises(ValueError, match="has no sample"):
        export(make_model(), X[:0], tmp_path / "model.pt2")
    with pytest.raises(ValueError, match="nothing"):
        export(make_model(), X, tmp_path / "model.pt2", run=tmp_path / "nothing")
    with pytest.raises(TypeError, match="must be a module or a task"):
        export(X, X, tmp_path / "model.pt2")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"neither \.onnx nor \.pt2"):
        Predictor.load(tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="no such file"):
        Predictor.load(tmp_path / "model.onnx")


def test_a_part_of_a_task_with_the_weights_of_its_run(tmp_path: Path) -> None:
    class Pair(treadle.Task):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = make_model(1), make_model(2)

        def compute_loss(self, batch: Any, state: treadle.State) -> Tensor:
            return mse_loss(self.second(batch[0]) + self.first(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    task = Pair()
    run = treadle.Trainer(max_epochs=1, progress=False, run_dir=tmp_path / "run").fit(task, (X, Y))
    options: dict[str, Any] = {"run": run, "checkpoint": "last", "part": "second"}
    path = export(make_model(3), X, tmp_path / "a.pt2", **options)
    assert torch.allclose(Predictor.load(path, trusted=True)(X), task.second.eval()(X), atol=1e-6)
    with pytest.raises(TypeError, match="Pair defines no forward; export a part"):
        export(task, X, tmp_path / "b.pt2")


def test_recurrent_networks(tmp_path: Path) -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.LSTM(3, 4, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x)[0][:, -1]  # type: ignore[no-any-return]

    model, data = Last(), X.reshape(4, 6, 3)
    path = export(model, data[:2], tmp_path / "a.pt2")
    assert torch.allclose(Predictor.load(path, trusted=True)(data), model(data), atol=1e-6)


def test_missing_onnx_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"pip install 'treadle\[export\]'"):
        export(make_model(), X, tmp_path / "model.onnx")


def test_C9_a_standalone_predictor_over_a_saved_model(tmp_path: Path) -> None:
    run, task = trained(tmp_path)
    predictor = Predictor(load_model(run, make_model(1), "last"), batch_size=5)
    expected = treadle.Trainer(run_dir=None, progress=False).predict(task, (X, Y))
    assert torch.allclose(predictor(X), expected, atol=1e-6)
    assert torch.allclose(predictor({"input": X.numpy()}), expected, atol=1e-6)
    with pytest.raises(TypeError, match="must be a module or a function"):
        Predictor("model.onnx")  # type: ignore[arg-type]
