"""What every test starts from: one thread, seeded generators, an interrupt that interrupts."""

import signal

import pytest
import torch

from treadle import rng

torch.set_num_threads(1)
# A shell starts what it runs in the background with interrupts ignored, and what we start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def seeded() -> None:
    rng.seed_all(0)
