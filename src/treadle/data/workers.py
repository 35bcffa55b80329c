"""Worker processes that make batches ahead of the loop, kept alive from epoch to epoch."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader, IterableDataset
from torch.utils.data._utils import signal_handling

if TYPE_CHECKING:
    from treadle.data.loader import Loader

_PATIENCE = 1.0  # seconds that workers have to finish the batch they are making


class Keys:
    """What the workers shall make next; a DataLoader's sampler, which it iterates anew for every epoch."""

    def __init__(self) -> None:
        self.keys: list[Any] = []

    def __iter__(self) -> Iterator[Any]:
        return iter(self.keys)

    def __len__(self) -> int:
        return len(self.keys)


class WorkerPool:
    """Torch DataLoaders whose items are whole batches and whose generators are their own.

    The processes start when the first batch is asked for and wait between epochs. Two epochs read at the
    same time have processes of their own. All of them end with `close`, those in use too, and at the latest
    as Python exits.
    """

    def __init__(self, plan: Any, loader: Loader, seed: int, pin_memory: bool) -> None:
        self._plan = plan
        self._options: dict[str, Any] = {
            "batch_size": None,
            "num_workers": loader.workers,
            "prefetch_factor": loader.prefetch,
            "pin_memory": pin_memory,
            "worker_init_fn": _begin_worker,
        }
        self._seed = seed
        self._idle: tuple[DataLoader[Any], Keys] | None = None
        self._running: list[Any] = []  # torch's iterators, which own the processes
        # Whoever still holds a batch generator at exit, a traceback for one, must not keep the processes:
        # multiprocessing would ask them politely, in vain, and wait for them.
        Finalize(self, _stop_all, (self._running,), exitpriority=0)

    def iterate(self, keys: list[Any]) -> Iterator[Any]:
        """`plan[key]` for every key, in order."""
        if not keys:
            return
        workers, given = self._idle or self._made()
        self._idle = None
        given.keys = keys
        running = self._start(workers)
        reusable = False
        try:
            yield from running
            reusable = True
        except GeneratorExit:  # left between two batches
            reusable = True
            raise
        finally:
            if reusable and self._idle is None and running in self._running:
                self._idle = workers, given
            else:
                self._stop(running)

    def stream(self, dataset: IterableDataset[Any]) -> Iterator[Any]:
        """What `dataset` yields in the workers, in turn; its processes end with it."""
        running = self._start(DataLoader(dataset, generator=self._generator(), **self._options))
        try:
            yield from running
        finally:
            self._stop(running)

    def close(self) -> None:
        """Stop the processes, also where somebody is still reading."""
        self._idle = None
        _stop_all(self._running)

    def _made(self) -> tuple[DataLoader[Any], Keys]:
        keys = Keys()
        options = {**self._options, "sampler": keys, "persistent_workers": True}
        return DataLoader(self._plan, generator=self._generator(), **options), keys

    def _start(self, workers: DataLoader[Any]) -> Any:
        """Start the processes or wake them. Those of a start that fails midway nobody would know of."""
        before = set(multiprocessing.active_children())
        try:
            running = iter(workers)
        except BaseException:
            for process in set(multiprocessing.active_children()) - before:
                process.kill()
            raise
        if running not in self._running:
            self._running.append(running)
        return running

    def _stop(self, running: Any) -> None:
        if running in self._running:
            self._running.remove(running)
            _stop_all([running])

    def _generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self._seed)


def _begin_worker(worker: int) -> None:
    """Tie a worker to its trainer.

    A signal to every process of a job is for the trainer, which needs its workers to end the step. And a
    worker goes at once with a trainer that is killed: torch looks for that every few seconds only, and not
    at all in a worker whose trainer died before it had begun.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    trainer = multiprocessing.parent_process()
    if multiprocessing.get_start_method() != "forkserver" and trainer is not None:
        torch.multiprocessing._prctl_pr_set_pdeathsig(signal.SIGKILL)  # type: ignore[attr-defined]
        if os.getppid() != trainer.pid:
            os._exit(1)


def _stop_all(running: list[Any]) -> None:
    """End the processes now; the garbage collector may take seconds, in the midst of training.

    Torch asks them to leave, and waits five seconds for each that is stuck in a sample; such are killed.
    """
    while running:
        iterator = running.pop()
        if iterator._worker_pids_set:  # else torch would raise that a worker was killed, wherever we are then
            signal_handling._remove_worker_pids(id(iterator))  # type: ignore[attr-defined]
            iterator._worker_pids_set = False
        killing = threading.Timer(_PATIENCE, _kill, (iterator._workers,))
        try:
            with suppress(RuntimeError):  # Python is exiting: no thread starts, torch does nothing below
                killing.start()
            iterator._shutdown_workers()
        finally:
            killing.cancel()
            _kill(iterator._workers)
            for process in iterator._workers:
                process.join(_PATIENCE)


def _kill(processes: list[BaseProcess]) -> None:
    for process in processes:
        if process.is_alive():  # the polite signal is ignored
            process.kill()
