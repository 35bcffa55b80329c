from __future__ import annotations

import sys

import pytest
import torch

import treadle
from treadle.config import ConfigError, Guard


@pytest.mark.parametrize(
    "path",
    [
        "treadle.SupervisedTask",
        "treadle.Loader",
        "treadle.data.Digits",
        "treadle.metrics.Accuracy",
        "treadle.Every",
        "treadle.Checkpoints",
        "treadle.Schedule",
        "torch.nn.Linear",
        "torch.nn.Sequential",
        "torch.nn.functional.cross_entropy",
        "torch.nn.functional.gelu",
        "torch.nn.functional.max_pool2d",
        "torch.optim.AdamW",
        "torch.optim.lr_scheduler.StepLR",
        "torch.optim.swa_utils.AveragedModel",
        "torch.utils.data.TensorDataset",
        "torch.utils.data.default_collate",
        "torchmetrics.MeanMetric",
        "torchmetrics.classification.MulticlassAccuracy",
        "torchmetrics.functional.accuracy",
        pytest.param(
            "torcheval.metrics.MulticlassAccuracy",
            marks=pytest.mark.filterwarnings("ignore::DeprecationWarning"),
        ),
    ],
)
def test_what_a_configuration_has_a_use_for_is_let_through(path: str) -> None:
    assert callable(Guard().find(path, "x"))


@pytest.mark.parametrize(
    "path",
    [
        "os.system",
        "builtins.eval",
        "subprocess.run",
        "importlib.import_module",
        "posix.system",
        "pickle.loads",
        "torchvision_evil.Thing",
        "treadle_evil.Thing",
    ],
)
def test_other_modules_are_refused_before_they_are_imported(path: str, monkeypatch) -> None:
    def imported(*_: object) -> None:
        raise AssertionError("something was imported")

    monkeypatch.setattr("importlib.import_module", imported)
    with pytest.raises(ConfigError, match=r"is not allowed: module .* add --allow"):
        Guard().find(path, "x")


@pytest.mark.parametrize("path", ["torch.__builtins__.eval", "torch._C._nn.gelu", "torch.nn.Linear.__init__"])
def test_private_names_are_refused(path: str) -> None:
    with pytest.raises(ConfigError, match="private name"):
        Guard().find(path, "x")


@pytest.mark.parametrize(
    "path",
    [
        "torch.os.system",
        "torch.load",
        "torch.save",
        "torch.hub.load",
        "torch.hub.download_url_to_file",
        "torch.from_file",
        "torch.jit.load",
        "torch.package.PackageImporter",
        "torch.utils.cpp_extension.load",
        "torch.utils.data.datapipes.iter.FileOpener",
        "torch.nn.functional.handle_torch_function",
        "torch.nn.functional.importlib.import_module",
        "torch.nn.functional.warnings.warn",
        "torch.nn.Module.load_state_dict",
        "torch.classes.load_library",
        "treadle.checkpoint.read",
        "treadle.checkpoint.Writer",
        "treadle.checkpoint.files.remove_tree",
        "treadle.runs.Run",
        "treadle.Trainer",
        "treadle.fit",
        "treadle.seed_all",
        "treadle.checkpoint.files.os.system",
        "torchmetrics.text.BERTScore",
    ],
)
def test_of_the_modules_that_are_always_there_nothing_else_is_let_through(path: str) -> None:
    with pytest.raises(ConfigError, match=r"allowed|neither a class nor|there is no|has no|failed"):
        Guard().find(path, "x")


def test_a_module_that_the_user_allows_may_be_named_and_called(tmp_path, monkeypatch) -> None:
    (tmp_path / "trusted_guard.py").write_text(
        "import os\nfrom os import system\nfrom json import loads\nfrom torch import load\n"
        "class Thing: pass\ndef make(): return Thing()\nclass _Hidden: pass\nvalue = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    guard = Guard(["trusted_guard"])
    assert guard.find("trusted_guard.Thing", "x").__name__ == "Thing"
    assert guard.may_call(guard.find("trusted_guard.make", "x"), "trusted_guard.make")
    for name in ("os.system", "system", "loads", "load", "_Hidden", "value", "missing"):
        with pytest.raises(ConfigError) as caught:
            guard.find(f"trusted_guard.{name}", "x")
        assert name not in ("system", "loads") or "which is not allowed" in str(caught.value)
    with pytest.raises(ConfigError, match="add --allow trusted_guard"):
        Guard().find("trusted_guard.Thing", "x")
    del sys.modules["trusted_guard"]


def test_the_current_folder_is_searched_last() -> None:
    before = list(sys.path)
    try:
        Guard(["some_module"])
        assert sys.path[: len(before)] == before
    finally:
        sys.path[:] = before


@pytest.mark.parametrize("name", ["os", "builtins", "subprocess", "my.module", "", "a-b"])
def test_only_names_of_modules_outside_the_standard_library_can_be_allowed(name: str) -> None:
    with pytest.raises(ConfigError, match=f"--allow {name}"):
        Guard([name])


def test_an_error_has_a_suggestion() -> None:
    with pytest.raises(ConfigError, match='Did you mean "treadle"'):
        Guard().find("treddle.Loader", "task.class_path")


def test_what_is_found_is_the_thing_itself() -> None:
    assert Guard().find("torch.nn.Linear", "x") is torch.nn.Linear
    assert Guard().find("treadle.Loader", "x") is treadle.Loader
