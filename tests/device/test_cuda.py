"""The same on a CUDA device, where torch itself says who waits; skipped where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.device import scenes

import treadle

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


class Refuse(treadle.Callback):
    """Whoever waits for the device within a step fails there."""

    order = 1e6

    def on_step_start(self, state: treadle.State) -> None:
        torch.cuda.set_sync_debug_mode("error")

    def on_after_optimizer_step(self, state: treadle.State) -> None:
        torch.cuda.set_sync_debug_mode("default")

    def on_cleanup(self, state: treadle.State) -> None:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("name", scenes.STEPS)
def test_no_step_waits_for_the_device(name: str) -> None:
    make, options = scenes.RUNS[name]
    settings = {"max_epochs": 2, "run_dir": None, "progress": False, "log_every": 10**6, "device": "cuda"}
    own = options.get("callbacks", [])
    trainer = treadle.Trainer(**settings | options | {"callbacks": [*own, Refuse()]})
    trainer.fit(make(), scenes.data(name)[0])


def test_a_read_in_a_step_would_fail() -> None:
    class Look(treadle.Callback):
        def on_after_loss(self, state: treadle.State) -> None:
            float(state.loss)  # type: ignore[arg-type]

    trainer = treadle.Trainer(max_steps=2, run_dir=None, progress=False, callbacks=[Refuse(), Look()])
    with pytest.raises(RuntimeError, match="synchronizing"):
        trainer.fit(scenes.classifier(), scenes.data("plain")[0])


@pytest.mark.parametrize("cut", [1, 4, 8, 11])
def test_a_run_resumes_to_the_last_bit(cut: int, tmp_path: Path) -> None:
    def fit(folder: str, steps: int, resume: str | None = None) -> str:
        settings = {"max_steps": steps, "seed": 5, "run_dir": tmp_path / folder, "progress": False}
        trainer = treadle.Trainer(device="cuda", deterministic=True, **settings)
        train, val = scenes.data("plain")
        return str(trainer.fit(scenes.classifier(), train, val=val, resume=resume).fields["weights_sha256"])

    whole = fit("whole", 16)
    fit("cut", cut)
    assert fit("cut", 16, "last") == whole
