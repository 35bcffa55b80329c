"""Worker processes that make batches ahead of the loop, kept alive from epoch to epoch."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader, IterableDataset

if TYPE_CHECKING:
    from treadle.data.loader import Loader


class Keys:
    """What the workers shall make next; a DataLoader's sampler, which it iterates anew for every epoch."""

    def __init__(self) -> None:
        self.keys: list[Any] = []

    def __iter__(self) -> Iterator[Any]:
        return iter(self.keys)

    def __len__(self) -> int:
        return len(self.keys)


class WorkerPool:
    """A torch DataLoader whose items are whole batches and whose generator is its own.

    The processes start when the first batch is asked for and wait between epochs. Two epochs read at the
    same time have processes of their own.
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

    def iterate(self, keys: list[Any]) -> Iterator[Any]:
        """`plan[key]` for every key, in order."""
        if not keys:
            return
        workers, given = self._idle or self._start()
        self._idle = None
        given.keys = keys
        reusable = True
        try:
            yield from workers
        except Exception:
            reusable = False
            raise
        finally:
            if reusable and self._idle is None:
                self._idle = workers, given
            else:
                _stop(workers)

    def stream(self, dataset: IterableDataset[Any]) -> Iterator[Any]:
        """What `dataset` yields in the workers, in turn; its processes end with it."""
        yield from DataLoader(dataset, generator=self._generator(), **self._options)

    def close(self) -> None:
        """Stop the idle processes."""
        if self._idle is not None:
            _stop(self._idle[0])
        self._idle = None

    def _start(self) -> tuple[DataLoader[Any], Keys]:
        keys = Keys()
        options = {**self._options, "sampler": keys, "persistent_workers": True}
        return DataLoader(self._plan, generator=self._generator(), **options), keys

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


def _stop(workers: DataLoader[Any]) -> None:
    """End the processes now; the garbage collector may take seconds, in the midst of training."""
    iterator = workers._iterator
    if iterator is not None:
        iterator._shutdown_workers()  # type: ignore[attr-defined]
        for process in iterator._workers:  # type: ignore[attr-defined]
            if process.is_alive():  # stuck in a sample; the polite signal is ignored
                process.kill()
