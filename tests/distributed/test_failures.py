"""What ends one process ends all, soon, and with its cause said last; torchrun's restarts go on exactly."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from tests.distributed.failing import CAUSE
from tests.distributed.launching import FULL, MARKS, ONLY_FULL, torchrun

from treadle.events import HOOK_NAMES
from treadle.runs import Run

pytestmark = MARKS
PROGRAM = Path(__file__).with_name("failing.py")
SOON = 10  # seconds
HOOKS = [hook for hook in HOOK_NAMES if hook not in ("on_exception", "on_media")]  # nothing is drawn

WHERE = (
    dict.fromkeys(HOOKS, (9, 2, 1))  # where a window is under way
    | dict.fromkeys(("on_log", "on_step_end"), (8, 2, 1))
    | {hook: (12, 0, 2) for hook in HOOKS if "epoch" in hook or "eval" in hook}
    | {hook: (1, 0, 0) for hook in HOOKS if "predict" in hook or hook == "on_fit_start"}
    | dict.fromkeys(("on_fit_end", "on_cleanup", "on_record_closed"), (18, 0, 3))
)
"""Step, batch and epoch of the trouble that `failing.py` makes at a hook."""

FEW = [("fsdp2", "kill", "on_after_forward", 0)]
EVERY = [("all_reduce", kind, hook, rank) for kind in ("error", "kill") for hook in HOOKS for rank in (0, 1)]
SHARDED = [
    (strategy, kind, hook, 1)
    for strategy in ("ddp", "fsdp2")
    for kind in ("error", "kill")
    for hook in ("on_after_forward", "on_after_backward", "on_step_end", "on_eval_batch_end", "on_cleanup")
]
RESTARTED = [
    (strategy, kind, hook, rank)
    for strategy, hook in (
        ("all_reduce", "on_before_optimizer_step"),
        ("all_reduce", "on_fit_start"),
        ("ddp", "on_after_backward"),
        ("ddp", "on_eval_batch_end"),
        ("fsdp2", "on_step_end"),
    )
    for kind in ("error", "kill")
    for rank in (0, 1)
]


@pytest.mark.parametrize(("strategy", "kind", "hook", "rank"), [*FEW, *EVERY, *SHARDED] if FULL else FEW)
def test_at_every_hook(tmp_path: Path, strategy: str, kind: str, hook: str, rank: int) -> None:
    code, output, ended = torchrun(2, PROGRAM, str(tmp_path / "run"), strategy, kind, hook, str(rank))
    assert code != 0
    began = re.search(r"trouble at ([\d.]+)", output)
    assert began is not None, output[-4000:]
    assert ended - float(began[1]) < SOON
    how = {
        "error": rf"{CAUSE}\s+treadle: raised",
        "kill": rf"rank +: {rank} .*\s+exitcode +: -9 [^=]*traceback : treadle: died",
    }
    step, batch, epoch = WHERE[hook]
    place = rf"on rank {rank} in step {step}, batch {batch} of epoch {epoch}"
    assert re.search(rf"{how[kind]} {place}\s+=+\s*$", output), output[-4000:]
    if kind == "error" and rank == 0 and "predict" not in hook and hook != "on_record_closed":
        assert Run.open(tmp_path / "run").status == "failed"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The weights at the end of an uninterrupted run, by strategy."""
    ends = {}
    for strategy in {case[0] for case in RESTARTED}:
        folder = tmp_path_factory.mktemp(strategy) / "run"
        code, output, _ = torchrun(2, PROGRAM, str(folder), strategy, "none", "", "0")
        assert code == 0, output[-4000:]
        ends[strategy] = json.loads((folder / "end.json").read_text())
    return ends


@ONLY_FULL
@pytest.mark.parametrize(("strategy", "kind", "hook", "rank"), RESTARTED)
def test_a_restart_goes_on_bit_for_bit(
    tmp_path: Path, whole: dict[str, str], strategy: str, kind: str, hook: str, rank: int
) -> None:
    folder = tmp_path / "run"
    code, output, _ = torchrun(
        2, PROGRAM, str(folder), strategy, kind, hook, str(rank), options=("--max-restarts=1",)
    )
    assert code == 0, output[-4000:]
    assert "trouble" in output
    assert json.loads((folder / "end.json").read_text()) == whole[strategy]
    kinds = [event.kind for event in Run.open(folder).events]
    assert "resumed" in kinds or hook == "on_fit_start"  # then there may be no record yet
    assert kinds[-1] == "finished"
