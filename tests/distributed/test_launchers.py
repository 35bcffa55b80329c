"""`treadle fit --devices`, srun's variables, and a launcher for notebooks."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tests.distributed import sharding
from tests.distributed.launching import FULL, LIMIT, MARKS, ONLY_FULL, bounded, environment

import treadle
from treadle.checkpoint import list_checkpoints
from treadle.cli.main import main
from treadle.parallel import place_of
from treadle.parallel.environment import Place, first_node

pytestmark = MARKS

CONFIG = """
task:
  class_path: treadle.SupervisedTask
  init_args:
    model: {class_path: torch.nn.Linear, init_args: {in_features: 64, out_features: 10}}
    loss: torch.nn.functional.cross_entropy
    lr: 1e-2
data:
  train:
    class_path: treadle.Loader
    init_args: {dataset: {class_path: treadle.data.Digits}, batch_size: 128, shuffle: true}
trainer: {max_epochs: 2, run_dir: runs/small, progress: false}
"""
TREADLE = [sys.executable, "-m", "treadle.cli"]
AGREEMENT = 1e-5


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(CONFIG)
    return tmp_path / "small.yaml"


def weights(run: Path) -> torch.Tensor:
    return treadle.load_model(run, torch.nn.Linear(64, 10), "last").weight.detach()


@ONLY_FULL
def test_fit_and_resume_on_two_devices(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No seed is given: one is drawn for all. The weights are those of one process with that seed."""
    code, output, _ = bounded([*TREADLE, "fit", str(config), "--devices", "2"])
    assert code == 0, output
    assert output.count("weights_sha256") == 1  # rank 0 alone says how it ended
    run = treadle.Run.open("runs/small")
    assert main(["fit", str(config), "--set", f"seed={run.config['seed']}", "--run-dir", "runs/alone"]) == 0
    assert (weights(Path("runs/small")) - weights(Path("runs/alone"))).abs().max() < AGREEMENT

    longer = ["--set", "trainer.max_epochs=3"]
    code, output, _ = bounded([*TREADLE, "resume", "runs/small", "--devices", "2", *longer])
    assert code == 0, output
    assert main(["resume", "runs/alone", *longer]) == 0
    assert treadle.Run.open("runs/small").epoch == 3
    assert (weights(Path("runs/small")) - weights(Path("runs/alone"))).abs().max() < AGREEMENT


@ONLY_FULL
def test_sigterm_to_the_launcher_saves_and_leaves_with_75(config: Path) -> None:
    command = [*TREADLE, "fit", str(config), "--devices", "2", "--set", "trainer.max_epochs=100000"]
    process = subprocess.Popen(command, env=environment(), start_new_session=True)
    try:
        deadline = time.monotonic() + LIMIT
        while not list_checkpoints("runs/small/checkpoints") and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT) == 75
    finally:
        if process.poll() is None:
            os.killpg(process.pid, 9)
            process.wait()
    run = treadle.Run.open("runs/small")
    assert run.status == "interrupted"
    assert list_checkpoints("runs/small/checkpoints")[-1].step == run.step


@pytest.mark.parametrize(
    ("options", "variables", "message"),
    [
        (["--devices", "0"], {}, "give a whole number from 1 on"),
        (["--devices", "2"], {"RANK": "0", "WORLD_SIZE": "1"}, "torchrun has started this process already"),
        (["--devices", "2", "--set", "trainer.strategy=single"], {}, "with trainer.strategy 'single'"),
    ],
)
def test_devices_that_cannot_be_are_refused(
    config: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    variables: dict[str, str],
    message: str,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert main(["fit", str(config), *options]) == 2
    assert message in capsys.readouterr().err
    assert not Path("runs").exists()


@ONLY_FULL
def test_as_two_tasks_of_srun(config: Path) -> None:
    """Started by hand, with the variables that srun sets."""
    variables = {
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_JOB_ID": str(os.getpid()),
    }
    command = [*TREADLE, "fit", str(config), "--set", "seed=5"]
    tasks = [
        subprocess.Popen(
            command,
            env=environment() | variables | {"SLURM_PROCID": rank, "SLURM_LOCALID": rank},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in "01"
    ]
    try:
        outputs = [task.communicate(timeout=LIMIT)[0] for task in tasks]
    finally:
        for task in tasks:
            task.kill()
    assert [task.returncode for task in tasks] == [0, 0], outputs
    assert [path.name for path in Path("runs").iterdir()] == ["small"]
    assert main([*command[3:], "--run-dir", "runs/alone"]) == 0
    assert (weights(Path("runs/small")) - weights(Path("runs/alone"))).abs().max() < AGREEMENT


def test_places_in_the_environment() -> None:
    assert place_of({}) == Place()
    torchrun = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "MASTER_ADDR": "a", "MASTER_PORT": "7"}
    assert place_of(torchrun) == Place(5, 8, 1, "a", 7)
    slurm = {
        "SLURM_PROCID": "3",
        "SLURM_STEP_NUM_TASKS": "4",
        "SLURM_LOCALID": "1",
        "SLURM_STEP_NODELIST": "gpu[003-007,011],login",
        "SLURM_JOB_ID": "20001",
    }
    assert place_of(slurm) == Place(3, 4, 1, "gpu003", 15001)
    assert place_of({"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}) == Place()  # the batch script itself
    assert place_of(torchrun | slurm) == Place(5, 8, 1, "a", 7)
    assert [first_node(nodes) for nodes in ("a", "a1,a2", "n[7,9]", "n[08-10]")] == ["a", "a1", "n7", "n08"]
    for wrong in ({"RANK": "4", "WORLD_SIZE": "4"}, {"RANK": "x", "WORLD_SIZE": "4"}):
        with pytest.raises(ValueError, match="RANK"):
            place_of(wrong)


@pytest.mark.parametrize("strategy", ["auto", "ddp", "fsdp2", treadle.FSDP2()] if FULL else ["auto"])
def test_launch_hands_back_history_and_weights(tmp_path: Path, strategy: str | treadle.Strategy) -> None:
    def made(name: str) -> tuple[treadle.Trainer, treadle.Task]:
        how = strategy if name == "two" else "auto"
        trainer = treadle.Trainer(max_epochs=2, seed=3, run_dir=tmp_path / name, progress=False, strategy=how)
        return trainer, sharding.make_task()

    trainer, task = made("two")
    run = treadle.launch(trainer, task, sharding.loader(), sharding.samples(10), processes=2)
    alone, expected = made("one")
    other = alone.fit(expected, sharding.loader(), sharding.samples(10))
    assert (run.status, run.path) == ("finished", tmp_path / "two")
    assert run.history["val/loss"] == pytest.approx(other.history["val/loss"], abs=AGREEMENT)
    for name, value in expected.state_dict().items():
        assert (task.state_dict()[name] - value).abs().max() < AGREEMENT
    assert trainer.evaluate(task, sharding.samples(10))["test/loss"] == pytest.approx(
        run.history["val/loss"][-1], abs=AGREEMENT
    )


class Failing(treadle.Callback):
    def on_step_end(self, state: treadle.State) -> None:
        if state.engine.strategy.rank == 1:
            raise ArithmeticError("the very first cause")


@ONLY_FULL
def test_launch_says_what_failed_where(tmp_path: Path) -> None:
    trainer = treadle.Trainer(max_epochs=2, run_dir=tmp_path / "run", progress=False, callbacks=[Failing()])
    with pytest.raises(Exception, match=r"first cause\s+treadle: raised on rank 1 in step 1, batch 1"):
        treadle.launch(trainer, sharding.make_task(), sharding.loader(), processes=2)


def test_launch_refuses_what_cannot_come_back(tmp_path: Path) -> None:
    trainer = treadle.Trainer(max_epochs=2, run_dir=None)
    with pytest.raises(ValueError, match="run_dir=None"):
        treadle.launch(trainer, sharding.make_task(), sharding.loader(), processes=2)
    with pytest.raises(ValueError, match=re.escape("processes is 0")):
        treadle.launch(trainer, sharding.make_task(), sharding.loader(), processes=0)
