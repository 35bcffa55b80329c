"""What every test starts from: one thread, seeded generators, an interrupt that interrupts."""

import signal

import pytest
import torch

from treadle import rng
from treadle.engine import Engine
from treadle.pending import DevicePending

torch.set_num_threads(1)
# A shell starts what it runs in the background with interrupts ignored, and what we start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def seeded() -> None:
    rng.seed_all(0)


@pytest.fixture
def values_stay_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Log as on an accelerator, where a value is not read before a log boundary."""
    monkeypatch.setattr(Engine, "new_pending", lambda _: DevicePending())
