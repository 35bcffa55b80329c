from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import treadle

NEED_SKLEARN = {"TreadleClassifier", "TreadleRegressor"}
"""Public too, but not for `from treadle import *`."""


def test_type_checkers_and_python_are_told_the_same() -> None:
    tree = ast.parse(Path(treadle.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    told = {
        alias.name: (node.module or "").removeprefix("treadle").lstrip(".")
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert {*told, "__version__"} == {*treadle.__all__, *NEED_SKLEARN}
    if importlib.util.find_spec("sklearn") is None:
        told = {name: home for name, home in told.items() if name not in NEED_SKLEARN}
    for name, home in told.items():
        thing = getattr(treadle, name)
        if home:
            assert thing is getattr(sys.modules[f"treadle.{home}"], name)
    assert set(treadle.__all__) <= set(dir(treadle))


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'treadle' has no attribute 'Trainr'"):
        _ = treadle.Trainr


def test_importing_treadle_imports_nothing_else() -> None:
    code = "import sys, treadle; print([n for n in ('torch', 'numpy', 'rich', 'yaml') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_all_of_treadle_imports_nothing_optional_and_starts_nothing(tmp_path: Path) -> None:
    code = """
import os, sys, threading, treadle
from treadle import *
import treadle.trainer, treadle.cli.main
optional = "sklearn torchmetrics torcheval datasets transformers matplotlib pandas IPython onnx wandb mlflow"
print([name for name in optional.split() if name in sys.modules], threading.active_count(), os.listdir("."))
"""
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.stdout.strip() == "[] 1 []", done.stderr
