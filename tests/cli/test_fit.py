from __future__ import annotations

import os
import signal
import sys
import warnings
from pathlib import Path

import pytest

from treadle.cli.main import main
from treadle.runs import Run

OWN = """
import os, signal, warnings
import torch, treadle

class BadModel(torch.nn.Linear):
    def forward(self, inputs):
        raise RuntimeError("the model is broken")

class BadSetup(treadle.SupervisedTask):
    def configure_optimizers(self):
        raise KeyError("no such group")

class OtherModel(treadle.SupervisedTask):
    def configure_optimizers(self):
        return torch.optim.SGD(torch.nn.Linear(2, 2).parameters(), lr=1)

def unreduced(output, target):
    return torch.nn.functional.cross_entropy(output, target, reduction="none")

class Signals(treadle.Callback):
    def __init__(self, number: int, times: int = 1):
        self.number, self.times = number, times
    def on_step_end(self, state):
        if state.progress.step == 3:
            for _ in range(self.times):
                os.kill(os.getpid(), self.number)

class Warns(treadle.Callback):
    def on_fit_start(self, state):
        warnings.warn("two\\nlines", stacklevel=1)

class Typo(treadle.Callback):
    def on_step_ended(self, state):
        pass
"""


@pytest.fixture
def own(small: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    (small.parent / "own_fit.py").write_text(OWN)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "own_fit", raising=False)
    return ["fit", str(small), "--allow", "own_fit"]


def test_fit_trains_and_says_what_to_type_next(small: Path, capsys) -> None:
    assert main(["fit", str(small), "--set", "trainer.max_epochs=1", "--run-dir", "runs/other one"]) == 0
    out = capsys.readouterr().out
    run = Run.open("runs/other one")
    assert run.status == "finished"
    assert run.epoch == 1
    assert f"weights_sha256  {run.weights_sha256}" in out
    assert "status          finished (max_epochs=1 reached)" in out
    assert f"(id {run.id})" in out
    assert "treadle resume 'runs/other one' --set trainer.max_epochs=2" in out
    assert "treadle evaluate 'runs/other one' --data val" in out
    assert "treadle predict 'runs/other one' INPUT.npy -o OUTPUT.npy" in out
    assert run.config["trainer"]["max_epochs"] == 1
    assert run.config["seed"] == 1


def test_a_run_in_memory_and_one_without_checkpoints(small: Path, capsys) -> None:
    assert main(["fit", str(small), "--set", "trainer.run_dir=null", "--set", "trainer.max_epochs=0"]) == 0
    assert "in memory only" in capsys.readouterr().out
    assert main(["fit", str(small), "--set", "trainer.checkpoint=null"]) == 0
    assert "next" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("trainer.max_epochs=-1", "max_epochs is -1"),
        ("trainer.max_epochs=three", "--set trainer.max_epochs=three: trainer.max_epochs: 'three' (str)"),
        ("trainer.max_epochs=null", "give exactly one of max_epochs and max_steps"),
        ("trainer.max_steps=3", "give exactly one of max_epochs and max_steps"),
        ("trainer.max_epoch=3", 'Did you mean "max_epochs"?'),
        ("task.class_path=treadle.NoTask", "treadle has no 'NoTask'"),
        ("task.class_path=os.system", "is not allowed"),
        ("data.train.init_args.batch_size=0", "batch_size is 0"),
        ("data.train.init_args.dataset=[]", "Loader"),
        ("data.train.init_args.dataset.class_path=treadle.data.FashionMNIST", "FashionMNIST: there is"),
        ("trainer.precision=fp8", "fp8"),
    ],
)
def test_a_wrong_configuration_is_one_line_and_code_2(
    change: str, said: str, small: Path, capsys, monkeypatch
) -> None:
    monkeypatch.setenv("TREADLE_FASHION_MNIST", "/nowhere")
    words = ["fit", str(small), "--set", change]
    code = main(words)
    err = capsys.readouterr().err
    assert code == 2
    assert said in err
    lines = [line for line in err.splitlines() if not line.startswith("treadle: --set")]
    assert len(lines) == 1
    assert lines[0].startswith("treadle: error: ")
    assert not Path("runs").exists()


def test_files_that_are_not_there_or_not_yaml(small: Path, capsys) -> None:
    assert main(["fit", "none.yaml"]) == 2
    assert capsys.readouterr().err == "treadle: error: none.yaml: cannot be read: there is no such file\n"
    small.write_text(small.read_text() + "seed: 2\n")
    assert main(["fit", "small.yaml"]) == 2
    assert (
        "small.yaml: line 27, column 1: not valid YAML: the key 'seed' is given twice"
        in capsys.readouterr().err
    )


def test_an_error_in_the_users_model_shows_their_lines_and_the_run(own: list[str], capsys) -> None:
    model = "{class_path: own_fit.BadModel, init_args: {in_features: 64, out_features: 10}}"
    assert main([*own, "--set", f"task.init_args.model={model}"]) == 1
    err = capsys.readouterr().err
    assert 'own_fit.py", line 7, in forward' in err
    assert "training failed in step 1: RuntimeError: the model is broken" in err
    assert "treadle: the run is in runs/small" in err
    assert err.count('File "') == 1
    assert Run.open("runs/small").status == "failed"
    assert main([*own, "--set", f"task.init_args.model={model}", "--traceback"]) == 1
    assert "trainer.py" in capsys.readouterr().err


def test_an_error_in_the_users_setup_is_theirs(own: list[str], capsys) -> None:
    assert (
        main([*own, "--set", "task={class_path: own_fit.BadSetup, init_args: {model: torch.nn.ReLU}}"]) == 1
    )
    err = capsys.readouterr().err
    assert "in configure_optimizers" in err
    assert "KeyError: 'no such group'" in err
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        ("task.class_path=own_fit.OtherModel", 2, "holds parameters that are not the task's"),
        ("task.init_args.loss=own_fit.unreduced", 1, "must be a scalar"),
        (
            "trainer.callbacks=[{class_path: own_fit.Typo}]",
            2,
            "there is no hook 'on_step_ended'. Did you mean",
        ),
    ],
)
def test_the_users_own_parts_are_checked_too(
    change: str, code: int, said: str, own: list[str], capsys
) -> None:
    model = "{class_path: torch.nn.Linear, init_args: {in_features: 64, out_features: 10}}"
    changes = ["--set", change]
    if change.startswith("task.class_path"):
        changes += ["--set", f"task.init_args.model={model}"]
    found = main([*own, *changes])
    err = capsys.readouterr().err
    assert said in err
    assert "Traceback" not in err
    assert found in (code, 2)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_with_75_and_how_to_resume(number: int, own: list[str], capsys) -> None:
    spec = f"[{{class_path: own_fit.Signals, init_args: {{number: {int(number)}}}}}]"
    assert main([*own, "--set", f"trainer.callbacks={spec}"]) == 75
    err = capsys.readouterr().err
    assert "interrupted at step 3: go on with\n  treadle resume runs/small --allow own_fit" in err
    assert Run.open("runs/small").status == "interrupted"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert main(["resume", "runs/small", "--allow", "own_fit"]) == 0
    assert main(["resume", "runs/small"]) == 2
    assert "add --allow own_fit" in capsys.readouterr().err


def test_a_second_signal_stops_at_once(own: list[str], capsys) -> None:
    spec = f"[{{class_path: own_fit.Signals, init_args: {{number: {int(signal.SIGINT)}, times: 2}}}}]"
    assert main([*own, "--set", f"trainer.callbacks={spec}"]) == 75
    assert "stopped at once: go on with" in capsys.readouterr().err


def test_warnings_are_one_line(own: list[str], capsys) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert main([*own, "--set", "trainer.callbacks=[{class_path: own_fit.Warns}]"]) == 0
    assert "treadle: warning: two lines\n" in capsys.readouterr().err


def test_dropped_arguments_are_said(small: Path, capsys) -> None:
    change = "data.val.init_args.dataset.class_path=treadle.data.FashionMNIST"
    main(["fit", str(small), "--set", change, "--set", "trainer.max_epochs=-1"])
    assert f"treadle: --set {change}: drops split of treadle.data.Digits" in capsys.readouterr().err


def test_nobody_reading_the_output_is_no_traceback(small: Path) -> None:
    import subprocess

    words = [sys.executable, "-m", "treadle.cli", "fit", str(small), "--set", "trainer.max_epochs=0"]
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(words, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=120)
    finally:
        os.close(writing)
    assert done.returncode == 1
    assert done.stderr == ""


def test_the_seed_is_drawn_and_recorded(small: Path, capsys) -> None:
    assert main(["fit", str(small), "--set", "seed=null", "--set", "trainer.max_epochs=1"]) == 0
    run = Run.open("runs/small")
    assert run.config["seed"] == run.environment["seed"]
    assert (
        main(["fit", str(small), "--set", f"seed={run.config['seed']}", "--set", "trainer.max_epochs=1"]) == 0
    )
    assert Run.open("runs/small-2").weights_sha256 == run.weights_sha256
