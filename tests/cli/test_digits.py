from __future__ import annotations

from pathlib import Path

from treadle.cli.main import main
from treadle.runs import Run

EXAMPLE = Path(__file__).parents[2] / "examples" / "digits.yaml"


def test_the_example_reaches_97_percent(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["fit", str(EXAMPLE), "--set", "trainer.progress=false"]) == 0
    run = Run.open("runs/digits")
    assert run.history["val/accuracy"][-1] >= 0.97
    assert "treadle evaluate runs/digits --data val" in capsys.readouterr().out
    assert main(["evaluate", "runs/digits", "--checkpoint", "best"]) == 0
