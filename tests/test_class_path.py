from __future__ import annotations

import sys

import pytest
import torch

from treadle import class_path
from treadle.class_path import ClassPathError


def test_a_class_a_nested_name_and_a_function_are_found() -> None:
    assert class_path.locate("torch.optim.AdamW", "optimizer") is torch.optim.AdamW
    assert class_path.locate("torch.nn.functional.cross_entropy", "loss") is torch.nn.functional.cross_entropy
    assert class_path.locate("torch.nn.Module.forward", "x") is torch.nn.Module.forward


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("AdamW", "must be a dotted name"),
        ("torch.optim.", "must be a dotted name"),
        ("torch optim.AdamW", "must be a dotted name"),
        (3, "must be a dotted name"),
        ("torch.__builtins__.eval", "private name"),
        ("torch.optim.AdamX", "torch.optim has no 'AdamX'"),
        ("torch.optim.AdmW", 'Did you mean "torch.optim.AdamW"?'),
        ("no_such_module.Thing", "there is no module 'no_such_module'"),
    ],
)
def test_a_name_that_leads_nowhere_is_said_with_its_place(path: str, said: str) -> None:
    with pytest.raises(ClassPathError, match=r"^optimizer: ") as caught:
        class_path.locate(path, "optimizer")
    assert said in str(caught.value)


def test_a_module_that_misses_one_of_its_own_says_so_itself(tmp_path, monkeypatch) -> None:
    (tmp_path / "needs_more_class_path.py").write_text("import not_installed_anywhere\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="not_installed_anywhere"):
        class_path.locate("needs_more_class_path.Thing", "task")
    sys.modules.pop("needs_more_class_path", None)


def test_a_factory_builds_and_leaves_the_specification_as_it_was() -> None:
    specification = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.5}}
    optimizer = class_path.factory(specification, "optimizer")([torch.nn.Parameter(torch.zeros(1))])
    assert isinstance(optimizer, torch.optim.SGD)
    assert optimizer.param_groups[0]["lr"] == 0.5
    assert specification == {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.5}}


def test_arguments_that_a_class_does_not_take_are_refused_before_it_is_built() -> None:
    with pytest.raises(ClassPathError, match=r"takes no \['learning_rate'\]; it takes params, lr"):
        class_path.factory({"class_path": "torch.optim.SGD", "init_args": {"learning_rate": 1}}, "optimizer")
    with pytest.raises(ClassPathError, match=r"unknown keys \['args'\]"):
        class_path.factory({"class_path": "torch.optim.SGD", "args": []}, "optimizer")
    with pytest.raises(ClassPathError, match="not a class"):
        class_path.factory({"class_path": "torch.pi"}, "loss")
