"""Runs to report, made without training."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from treadle.runs import Run

HOSTILE = (
    "</script><script>window.hacked=1</script><img src=x onerror=window.hacked=2>"
    "\"'`${hacked}&amp;\u2028\u202e"
)


def usual(folder: Path, name: str = "usual", lr: float = 0.1, epochs: int = 6, steps: int = 100) -> Run:
    """A run with everything: curves per step and epoch, gradients, speed, a resume, checkpoints."""
    config = {
        "seed": 3,
        "task": {"lr": lr, "optimizer": "torch.optim.SGD"},
        "trainer": {"max_epochs": epochs},
    }
    environment = {
        "python": "3.11",
        "seed": 3,
        "git": {"commit": "c0ffee", "dirty": True},
        "command": ["treadle", "fit"],
    }
    generator = np.random.default_rng(int(lr * 1000))
    with Run.create(folder, name=name, config=config, environment=environment) as run:
        assert run.path is not None
        for epoch in range(epochs):
            at = np.arange(epoch * steps, (epoch + 1) * steps) + 1
            loss = 2.3 * np.exp(-at * lr / 20) + 0.05 + 0.02 * generator.random(steps)
            points = [("train/loss", int(step), float(value)) for step, value in zip(at, loss, strict=True)]
            points += [("gradient/norm", int(step), 3.0 / step) for step in at]
            points += [("time/samples_per_second", int(step), 900.0 + step % 7) for step in at[::10]]
            run.append_steps(points)
            values = {"train/loss": float(loss.mean()), "val/loss": float(loss.mean()) + 0.03}
            values |= {"val/accuracy": 1 - float(loss.mean()) / 3, "learning_rate": lr * 0.8**epoch}
            values |= {
                "time/start": run.created + epoch,
                "time/end": run.created + epoch + 0.9,
                "time/epoch": 0.7,
            }
            run.append_epoch(epoch + 1, int(at[-1]), values)
            (run.path / "checkpoints" / f"step-{at[-1]:08d}").mkdir()
            if epoch == 2:
                run.event("resumed", int(at[-1]), changes={"torch": ["2.1", "2.2"]}, skipped=[])
        run.event("stopped", epochs * steps, reason="val/loss did not get better for 3 epochs", seconds=5.0)
        run.update(
            status="stopped",
            reason="val/loss did not get better for 3 epochs",
            step=epochs * steps,
            epoch=epochs,
            weights_sha256="ab" * 32,
        )
    return run


def hostile(folder: Path) -> Run:
    """A run whose every name, value and event tries to be something else; numbers of all kinds."""
    config: dict[str, Any] = {HOSTILE: HOSTILE, "long": "x" * 100_000, "huge": 10**400, "nan": math.nan}
    with Run.create(folder, name=HOSTILE * 3, config=config, environment={HOSTILE: HOSTILE}) as run:
        values = [1.0, math.nan, math.inf, -math.inf, 1.7976931348623157e308, -1e308, 5e-324, -0.0, 2.0, 3.0]
        run.append_steps([(f"train/{HOSTILE}", step, value) for step, value in enumerate(values)])
        run.append_steps([("train/empty", step, math.nan) for step in range(5)])
        run.append_steps([("flat", 2**62, 1.0), ("train/loss", 1, 0.5)])
        run.append_epoch(1, 9, {f"val/{HOSTILE}": 1.0, "val/nan": math.nan})
        run.event(HOSTILE, 3, **{HOSTILE: HOSTILE})
        run.update(status="failed", reason=HOSTILE, step=9, epoch=1)
    return run


def empty(folder: Path) -> Run:
    """A run that has just begun."""
    return Run.create(folder, name="empty")
