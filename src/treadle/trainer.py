"""The composition root: builds engine, hooks and run, and calls the loops."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import default_collate

from treadle import loops
from treadle.checkpoint import weights_sha256
from treadle.collecting import Cache, Collector, Results
from treadle.composing import check_further
from treadle.data import Source, map_tree
from treadle.events import Callback, Hook, as_callbacks
from treadle.output_blocks import outputs_of
from treadle.output_files import OutputFiles
from treadle.parallel import gathering, together
from treadle.preparing import looking, prepare
from treadle.recording import recorded
from treadle.runs import Run
from treadle.settings import Settings
from treadle.shared_files import files_of
from treadle.signals import Interrupted, interruptible
from treadle.state import State
from treadle.task import Task


class Trainer(Settings):
    """Carries runs out; the math is the task's and the loader's.

    Args:
        max_epochs, max_steps: where a fit ends; exactly one of them.
        accumulate: loader batches in one optimizer step.
        clip_norm, clip_value: clip gradients by their norm, by absolute value; both: value first.
        seed: of everything random; None draws one, and the record holds it.
        device: "auto" (an accelerator where there is one), or a torch device.
        strategy: how processes share a step: "auto" (as torchrun or srun started this one), "single",
            "all_reduce", "ddp", "fsdp2", or a `Strategy`; see the guide, "Many processes".
        precision: "fp32", "bf16" (autocast), "fp16" (autocast with a loss scaler), or a `Precision`.
        microbatch_size: the most samples that go through the model at once; changes memory, not the math.
            "auto" begins with the whole batch and halves it whenever memory runs out.
        compile: True or "model" compiles the task's modules with torch.compile, in place; a mapping gives its
            arguments.
        deterministic: ask torch for deterministic kernels.
        run_dir: the folder of the run's record. One that holds a run already is not touched: the new run
            goes to run_dir-2, and so on. None keeps the record in memory only.
        checkpoint: a `Checkpoints`, True for its defaults, None or False for none.
        report: a `ReportWriter`, True for its defaults, None or False for none: the run as one HTML file in
            its folder, written at its end and now and then before.
        callbacks: what happens around the math.
        progress: whether to show the run while it goes on, and the table of parameters before it; a number
            says how many epochs there are to a row of results.
        trial: try a few batches of everything before the run, without a trace: see `callbacks.Trial`.
        log_every: how many steps between two readings of logged values from the device (a second at most).
        eval_every: when the validation data are evaluated: an `Every`, or None for never.

    Raises:
        ValueError, TypeError: an argument is out of range or of another kind; the text says what is allowed.
    """

    @cached_property
    def _cache(self) -> Cache:
        return Cache()

    def fit(
        self,
        task: Task,
        train: Any,
        val: Any = None,
        *,
        test: Any = None,
        also: Mapping[str, Any] | None = None,
        resume: str | Path | None = None,
        callbacks: Iterable[Callback] = (),
        config: Mapping[str, Any] | None = None,
    ) -> Run:
        """Train the task.

        Args:
            task: what is learned. It is moved to the device, and keeps its optimizers for a next fit.
            train: a `Loader`, a DataLoader, a dataset, a tuple of tensors or arrays, a list of samples.
            val: the same, evaluated after every epoch (see `eval_every`).
            test: the same, evaluated once, after training.
            also: further data by name, evaluated along with `val`: {"train_full": train}.
            resume: "last" goes on with the newest run in `run_dir` (or starts one); or a run's folder; or a
                checkpoint's folder, from which a new run starts.
            callbacks: for this fit only.
            config: kept in the record; what the command line rebuilds the run from.

        Returns:
            The record of the run.

        Raises:
            Interrupted: a SIGINT or SIGTERM came; the run is saved, and leaves with code 75 if not caught.
            ValueError, TypeError: something given does not fit together; nothing is written or trained then.
        """
        began = time.perf_counter()
        with ExitStack() as stack:
            check_further(also or ())
            looks = {"val": val, **(also or {}), "test": test}
            own = as_callbacks(callbacks, "Trainer.fit")
            state = prepare(self, task, train, looks, resume, own, config or {}, stack)
            # The last to go: an error that knows the frames that know the state would keep all of them alive.
            stack.callback(setattr, state, "exception", None)
            own_epoch = type(self).train_epoch is not Trainer.train_epoch
            state.train_epoch = self.train_epoch if own_epoch else loops.train_epoch
            tests = state.evaluations.pop("test", None)
            stack.enter_context(together(state))
            stack.callback(_call, state.hooks.on_record_closed, state)
            stack.enter_context(recorded(state))
            stack.enter_context(interruptible(state))
            names = [callback.name for callback in state.hooks.callbacks]
            state.run.update(preparation_seconds=time.perf_counter() - began, callbacks=names)
            loops.fit(state)
            if tests is not None and not state.interrupted:
                results = loops.evaluate(state, tests, "test")
                state.run.append_steps(
                    [(name, state.progress.step, value) for name, value in results.items()]
                )
        if state.interrupted:
            raise Interrupted(state.run)
        run: Run = state.run
        return run

    def train_epoch(self, state: State) -> None:
        """One pass over the training data and what follows it; override it to act around an epoch."""
        loops.train_epoch(state)

    def evaluate(self, task: Task, data: Any, name: str = "test") -> dict[str, float]:
        """Loss and metrics over all of `data`, weighted by items: {"test/loss": ..., ...}."""
        with looking(self, task, data, name) as (state, batches):
            return loops.evaluate(state, batches, name)

    def results(self, task: Task, data: Any, name: str = "test", refresh: bool = False) -> Results:
        """What `evaluate` says, with every output, prediction, target and metadatum, in data order.

        Asked again for the same task, the same object `data` and the same weights, it answers from a cache of
        the last few; any change of a weight or metric makes it compute anew, and so does `refresh`, which
        data that were changed in place need.
        """
        collector = Collector(task)
        key = (weights_sha256(self.strategy.weights(task)), name, *task.metrics)
        objects = (task, data, *task.metrics.values())
        cached = None if refresh else self._cache.get(objects, key)
        if cached is not None:
            return cached
        with looking(self, task, data, name, collector) as (state, batches):
            collector.begin(state.engine, batches)
            values = loops.evaluate(state, batches, name)
            results = collector.results(values)
        self._cache.put(objects, key, results)
        return results

    def predict(self, task: Task, data: Any, out: str | Path | None = None) -> Any:
        """Predictions for all of `data` in its order, on the CPU, as one tensor or tree of tensors.

        Args:
            task: what predicts; see `Task.predict_step`.
            data: as for `fit`.
            out: where to write them batch by batch, for predictions larger than memory: a name that ends in
                .npy, or a new folder for several tensors; see `OutputFiles`. Read-only memory maps of the
                files come back instead of tensors.

        Raises:
            ValueError: nothing can be written at `out`; this is looked at before anything else.
        """
        files = None if out is None else OutputFiles(out)
        with looking(self, task, data, "predict") as (state, batches), files or nullcontext():
            engine = state.engine
            sink = outputs_of(task, batches, engine, files and files_of(files, engine))
            gathered = gathering(engine, sink.add, batches)
            loops.predict(state, batches, gathered.add)
            gathered.finish()
            return sink.result()

    def predict_sample(self, task: Task, sample: Any) -> Any:
        """The prediction for one sample, given as the data set would give it, without a batch dimension."""
        batch = self.predict(task, Source([default_collate([sample])]))
        return map_tree(lambda leaf: leaf[0] if isinstance(leaf, torch.Tensor) else leaf, batch)

    def predict_file(self, task: Task, path: str | Path, output: str | Path | None = None) -> Any:
        """The prediction for the sample that `task.load_sample` reads from a file.

        With `output`, `task.store_result` writes it there too.
        """
        result = self.predict_sample(task, task.load_sample(str(path)))
        if output is not None:
            task.store_result(result, str(output))
        return result


def _call(hooks: Iterable[Hook], state: State) -> None:
    for hook in hooks:
        hook(state)
