"""What every test starts from: one thread, seeded generators."""

import pytest
import torch

from treadle import rng

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seeded() -> None:
    rng.seed_all(0)
