"""From a notebook or a program of one process: a fit on several, whose run and weights come back."""

from __future__ import annotations

import json
import os
import socket
import tempfile
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.multiprocessing.spawn import ProcessExitedException, start_processes

from treadle.checkpoint import read, write
from treadle.parallel.last_words import VARIABLE
from treadle.runs import Run
from treadle.task import Task
from treadle.trainer import Trainer


def launch(
    trainer: Trainer,
    task: Task,
    train: Any,
    val: Any = None,
    *,
    processes: int,
    **options: Any,
) -> Run:
    """`trainer.fit` on several processes of this machine; the task comes back trained, with the record.

    torch.multiprocessing spawns and watches the processes. They import anew what is given: its classes and
    functions must be in modules rather than in a notebook's cells, and a program must do this under
    ``if __name__ == "__main__"``.

    Args:
        trainer: its strategy is chosen anew, by what it was given as.
        task, train, val, **options: see `Trainer.fit`.
        processes: how many.

    Returns:
        The record of the run, with its history. The task has its weights, on the CPU.

    Raises:
        ValueError: there are no processes, or the trainer keeps its record in memory only.
        torch.multiprocessing.ProcessException: a process failed; its text says which and why, and a note
            where a process was that was killed.
    """
    if isinstance(processes, bool) or not isinstance(processes, int) or processes < 1:
        raise ValueError(f"launch: processes is {processes!r}; it must be a whole number from 1 on")
    if trainer.run_dir is None:
        raise ValueError("launch: the trainer has run_dir=None; the run comes back in its folder: name one")
    with tempfile.TemporaryDirectory(prefix="treadle-") as folder:
        threads = max(1, torch.get_num_threads() // processes)
        make = partial(type(trainer), **trainer.arguments())  # each process chooses its own strategy
        given = (processes, _free_port(), threads, make, task, train, val, options, folder)
        try:
            start_processes(_fit, given, processes, start_method="spawn")  # type: ignore[no-untyped-call]
        except ProcessExitedException as error:
            words = _words_file(folder, error.error_index)
            if words.is_file():
                error.add_note(json.loads(words.read_text())["message"]["message"])
            raise
        contents = read(next(Path(folder).glob("step-*")))
    task.to("cpu")
    task.load_state_dict({**contents["model"], **contents["extra"]})
    return Run.open(contents["run"])


def _fit(
    rank: int,
    processes: int,
    port: int,
    threads: int,
    make: Callable[[], Trainer],
    task: Task,
    train: Any,
    val: Any,
    options: dict[str, Any],
    folder: str,
) -> None:
    torch.set_num_threads(threads)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ[VARIABLE] = str(_words_file(folder, rank))
    # What came lies in memory that all these processes share: data may stay there, what is trained may not.
    make, task, options = deepcopy((make, task, options))
    trainer = make()
    run = trainer.fit(task, train, val, **options)
    state = trainer.strategy.model_state(task)
    if trainer.strategy.is_main:
        model = {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}
        extra = {name: value for name, value in state.items() if name not in model}
        write(folder, run.step, {"model": model, "extra": extra, "run": str(Path(run.path or "").absolute())})


def _words_file(folder: str, rank: int) -> Path:
    return Path(folder, f"died-{rank}.json")


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
