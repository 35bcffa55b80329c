"""`treadle export`: the weights of a run, for programs that do not know Treadle."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
from torch import nn

from treadle.cli.main import main
from treadle.loading import load_model
from treadle.runs import Run


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 16), nn.Dropout(), nn.Linear(16, 10))


def test_the_library_reads_what_the_model_has(fitted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(fitted), "-o", "weights.safetensors", "--checkpoint", "last"]) == 0
    assert "weights.safetensors" in capsys.readouterr().out
    state = safetensors.torch.load_file("weights.safetensors")
    model = network()
    model.load_state_dict(state)
    expected = load_model(fitted, network(), "last").state_dict()
    assert all((state[name] == expected[name]).all() for name in expected)


def test_best_is_the_default_and_nothing_is_replaced_unasked(
    fitted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(fitted)]) == 0
    assert (fitted / "model.safetensors").is_file()
    best = load_model(fitted, network(), "best").state_dict()
    state = safetensors.torch.load_file(fitted / "model.safetensors")
    assert all((state[name] == best[name]).all() for name in best)
    Run.open(fitted)
    assert main(["export", str(fitted)]) == 2
    assert "--force" in capsys.readouterr().err
    assert main(["export", str(fitted), "--force"]) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-o", "weights.bin"], "must end in .safetensors"),
        (["--checkpoint", "step-00000099"], "has no checkpoint 'step-00000099'"),
    ],
)
def test_what_cannot_be_is_said(
    fitted: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert main(["export", str(fitted), *options]) == 2
    assert message in capsys.readouterr().err
