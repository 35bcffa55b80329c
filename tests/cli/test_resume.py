from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from treadle.cli.main import main
from treadle.runs import Run

KILLS = """
import os, signal
from pathlib import Path
import treadle

class Kills(treadle.Callback):
    def __init__(self, steps: list[int]):
        self.steps = steps
    def on_step_end(self, state):
        mark = Path(f"killed-{state.progress.step}")
        if state.progress.step in self.steps and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
"""


def command(*words: str) -> subprocess.CompletedProcess[str]:
    code = "import sys, torch; torch.set_num_threads(1); from treadle.cli.main import main; sys.exit(main())"
    return subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=120)


def weights(folder: str) -> str:
    sha = Run.open(folder).weights_sha256
    assert sha is not None
    return sha


def test_a_killed_run_ends_as_if_it_had_not_been(small: Path, monkeypatch) -> None:
    (small.parent / "own_resume.py").write_text(KILLS)
    monkeypatch.setattr(sys, "path", list(sys.path))
    # Six steps an epoch: one kill before the first checkpoint, one in the middle of the second epoch.
    kills = "trainer.callbacks=[{class_path: own_resume.Kills, init_args: {steps: [3, 9]}}]"
    allow = ["--allow", "own_resume"]
    assert main(["fit", str(small), "--run-dir", "runs/whole"]) == 0
    assert command("fit", str(small), "--set", kills, *allow).returncode == -9
    assert Run.open("runs/small").status == "interrupted"
    assert command("resume", "runs/small", *allow).returncode == -9
    done = command("resume", "small", *allow)
    assert done.returncode == 0, done.stderr
    assert f"weights_sha256  {weights('runs/whole')}" in done.stdout
    whole, killed = Run.open("runs/whole"), Run.open("runs/small")
    assert list(killed.history["val/loss"]) == list(whole.history["val/loss"])
    assert killed.series("train/loss").values.tolist() == whole.series("train/loss").values.tolist()


def test_a_finished_run_stays_as_it_is_and_a_longer_one_goes_on(fitted: Path, capsys) -> None:
    before = weights("runs/small")
    assert main(["resume", "runs/small"]) == 0
    assert weights("runs/small") == before
    assert main(["resume", "runs/small", "--set", "trainer.max_epochs=3"]) == 0
    assert Run.open(fitted).epoch == 3
    capsys.readouterr()  # what was asked for then still counts
    assert main(["resume", "runs/small"]) == 0
    assert "max_epochs=3 reached" in capsys.readouterr().out
    assert main(["fit", "small.yaml", "--run-dir", "runs/three", "--set", "trainer.max_epochs=3"]) == 0
    assert weights("runs/three") == weights("runs/small")


@pytest.mark.parametrize("change", ["data.train.init_args.workers=0", "trainer.microbatch_size=100"])
def test_how_a_run_is_carried_out_may_change(change: str, fitted: Path) -> None:
    assert main(["resume", "runs/small", "--set", change]) == 0


@pytest.mark.parametrize(
    "change", ["task.init_args.lr=1", "seed=2", "data.train.init_args.batch_size=1", "trainer.accumulate=2"]
)
def test_what_a_run_computes_may_not(change: str, fitted: Path, capsys) -> None:
    assert main(["resume", "runs/small", "--set", change]) == 2
    assert "would make it another run" in capsys.readouterr().err
    assert Run.open(fitted).status == "finished"


def test_a_change_that_does_not_fit_is_not_kept(fitted: Path, capsys) -> None:
    assert main(["resume", "runs/small", "--set", "trainer.max_epochs=many"]) == 2
    assert "trainer.max_epochs: 'many' (str)" in capsys.readouterr().err
    assert main(["resume", "runs/small"]) == 0


def test_runs_that_are_not_there_or_have_no_configuration(fitted: Path, capsys) -> None:
    assert main(["resume", "runs/nothing"]) == 2
    assert "there is no run 'runs/nothing'; there are" in capsys.readouterr().err
    Run.create("runs/python", name="python", config={}, environment={}).close()
    assert main(["resume", "runs/python"]) == 2
    assert "was started from Python" in capsys.readouterr().err
    (fitted / "run.json").write_text("{")
    assert main(["resume", "runs/small"]) == 2
    assert "run.json" in capsys.readouterr().err


def test_a_record_cannot_name_what_is_not_allowed(fitted: Path, capsys) -> None:
    config = fitted / "config.json"
    config.write_text(config.read_text().replace("torch.nn.functional.cross_entropy", "os.system"))
    for words in (["resume"], ["evaluate"]):
        assert main([*words, "runs/small"]) == 2
        assert "'os.system' is not allowed" in capsys.readouterr().err
