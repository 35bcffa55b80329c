"""A killed process of the launcher for notebooks leaves behind where it was."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from tests.distributed import sharding
from tests.distributed.launching import MARKS, ONLY_FULL

import treadle

pytestmark = MARKS


class Killed(treadle.Callback):
    def on_before_optimizer_step(self, state: treadle.State) -> None:
        if state.engine.strategy.rank == 1 and state.current_step == 3:
            os.kill(os.getpid(), signal.SIGKILL)


@ONLY_FULL
def test_launch_says_where_a_process_was_killed(tmp_path: Path) -> None:
    trainer = treadle.Trainer(max_epochs=2, run_dir=tmp_path / "run", progress=False, callbacks=[Killed()])
    with pytest.raises(Exception, match="SIGKILL") as caught:
        treadle.launch(trainer, sharding.make_task(), sharding.loader(), processes=2)
    assert caught.value.__notes__ == ["treadle: died on rank 1 in step 3, batch 2 of epoch 0"]
