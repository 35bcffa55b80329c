from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from treadle.cli.main import main
from treadle.runs import Run


def results(*words: str, capsys: pytest.CaptureFixture[str]) -> dict[str, float]:
    assert main(["evaluate", "runs/small", "--json", *words]) == 0
    found: dict[str, float] = json.loads(capsys.readouterr().out)["results"]
    return found


def test_the_numbers_are_those_of_the_run(fitted: Path, capsys) -> None:
    run = Run.open(fitted)
    assert main(["evaluate", "runs/small"]) == 0
    shown = capsys.readouterr()
    assert "val data, weights of runs/small/checkpoints/step-00000012" in shown.err
    assert shown.out.splitlines()[0].split() == ["metric", "value"]
    assert f"{run.history['val/accuracy'][-1]:.6g}" in shown.out
    found = results(capsys=capsys)
    assert found == {name: pytest.approx(run.history[name][-1]) for name in ("val/loss", "val/accuracy")}


def test_other_data_and_other_checkpoints(fitted: Path, capsys) -> None:
    history = Run.open(fitted).history
    assert set(results("--data", "train", capsys=capsys)) == {"train/loss", "train/accuracy"}
    first = results("--checkpoint", "step-00000006", capsys=capsys)
    assert first["val/loss"] == pytest.approx(history["val/loss"][0])
    assert first == results("--checkpoint", str(fitted / "checkpoints" / "step-00000006"), capsys=capsys)
    best = results("--checkpoint", "best", capsys=capsys)
    assert best["val/accuracy"] == pytest.approx(max(history["val/accuracy"]))


def test_looking_at_a_run_changes_nothing(fitted: Path, capsys) -> None:
    def contents() -> dict[str, bytes]:
        return {str(p): p.read_bytes() for p in fitted.rglob("*") if p.is_file() and "sqlite" not in p.name}

    before = contents()
    results(capsys=capsys)
    assert contents() == before
    assert sorted(path.name for path in Path("runs").iterdir() if not path.name.startswith(".")) == ["small"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--data", "test"], "data: there is no test; there is train, val"),
        (["--checkpoint", "step-00000007"], "there are step-00000006, step-00000012, and 'best' and 'last'"),
    ],
)
def test_what_is_not_there(words: list[str], said: str, fitted: Path, capsys) -> None:
    assert main(["evaluate", "runs/small", *words]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.filterwarnings("always:skipped the checkpoint")
def test_damaged_and_missing_checkpoints(fitted: Path, capsys) -> None:
    newest = fitted / "checkpoints" / "step-00000012" / "model.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1] + b"x")
    assert main(["evaluate", "runs/small"]) == 0
    err = capsys.readouterr().err
    assert "treadle: warning: skipped the checkpoint" in err
    assert "step-00000006" in err
    assert main(["evaluate", "runs/small", "--checkpoint", "step-00000012"]) == 2
    assert "SHA-256" in capsys.readouterr().err
    shutil.rmtree(fitted / "checkpoints")
    assert main(["evaluate", "runs/small"]) == 2
    assert "has no checkpoint" in capsys.readouterr().err
    assert main(["evaluate", "runs/small", "--checkpoint", "best"]) == 2
    assert "has no checkpoint" in capsys.readouterr().err


def test_weights_of_another_model(fitted: Path, capsys) -> None:
    config = fitted / "config.json"
    config.write_text(
        config.read_text().replace('"out_features": 16', '"out_features": 8').replace("16}", "8}")
    )
    if "16" in json.dumps(json.loads(config.read_text())["task"]):
        document = json.loads(config.read_text())
        model = document["task"]["init_args"]["model"]["args"]
        model[0]["init_args"]["out_features"] = model[2]["init_args"]["in_features"] = 8
        config.write_text(json.dumps(document))
    assert main(["evaluate", "runs/small"]) == 2
    assert "is of another model" in capsys.readouterr().err
