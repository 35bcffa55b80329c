"""The composition root: builds engine, hooks and run, and calls the loops."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from torch.utils.data import default_collate

from treadle import loops, rng
from treadle.callbacks import Checkpoints, Summary, Trial, progress_bar
from treadle.checkpoint import weights_sha256
from treadle.checkpoint.contents import restore
from treadle.collecting import Cache, Collector, Results
from treadle.composing import check_evaluation, check_task, optimizers_of, schedules_of, set_horizon
from treadle.data import Batches, Source, as_source, map_tree
from treadle.engine import Clip, Engine, GradientClip
from treadle.events import Callback, Every, FunctionCallback, Hook, Hooks
from treadle.fitting import Fitting
from treadle.log import counters
from treadle.parallel import engine_of, place_of, state_of, strategy_of, together
from treadle.precision import Precision, precision_of
from treadle.recording import begin_aside, begin_record, check_same_origin, find_origin, recorded
from treadle.runs import Run
from treadle.signals import Interrupted, interruptible
from treadle.state import State
from treadle.strategy import Strategy
from treadle.task import Task

BATCH_SIZE = 32
EVAL_BATCH_SIZE = 256


class Trainer:
    """How a run is carried out; the math is the task's and the loader's.

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
        compile: compile the model with torch.compile, in place; a mapping gives its arguments.
        deterministic: ask torch for deterministic kernels.
        run_dir: the folder of the run's record. One that holds a run already is not touched: the new run
            goes to run_dir-2, and so on. None keeps the record in memory only.
        checkpoint: a `Checkpoints`, True for its defaults, None or False for none.
        callbacks: what happens around the math.
        progress: whether to show the run while it goes on, and the table of parameters before it; a number
            says how many epochs there are to a row of results.
        trial: try a few batches of everything before the run, without a trace: see `callbacks.Trial`.
        log_every: how many steps between two readings of logged values from the device (a second at most).
        eval_every: when the validation data are evaluated: an `Every`, or None for never.

    Raises:
        ValueError, TypeError: an argument is out of range or of another kind; the text says what is allowed.
    """

    def __init__(
        self,
        max_epochs: int | None = None,
        max_steps: int | None = None,
        *,
        accumulate: int = 1,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        seed: int | None = None,
        device: str | torch.device = "auto",
        strategy: str | Strategy = "auto",
        precision: str | Precision = "fp32",
        microbatch_size: int | Literal["auto"] | None = None,
        compile: bool | dict[str, Any] = False,
        deterministic: bool = False,
        run_dir: str | Path | None = "runs/run",
        checkpoint: Checkpoints | bool | None = True,
        callbacks: Iterable[Callback] = (),
        progress: bool | int = True,
        trial: bool = False,
        log_every: int = 50,
        eval_every: Every | None = Every(epochs=1),  # noqa: B008 - read, never changed
    ) -> None:
        callbacks = list(callbacks)
        self._arguments = {name: value for name, value in locals().items() if name != "self"}
        _check_number("max_epochs", max_epochs, at_least=0, optional=True)
        _check_number("max_steps", max_steps, at_least=0, optional=True)
        _check_number("accumulate", accumulate, at_least=1)
        if microbatch_size != "auto":
            _check_number("microbatch_size", microbatch_size, at_least=1, optional=True)
        _check_number("log_every", log_every, at_least=1)
        if not isinstance(progress, bool):
            _check_number("progress", progress, at_least=1)
        _check_number("seed", seed, at_least=0, optional=True)
        if eval_every is not None and not isinstance(eval_every, Every):
            raise TypeError(
                f"Trainer: eval_every is {eval_every!r}; give treadle.Every(...), or None for never"
            )
        self.max_epochs = max_epochs
        self.max_steps = max_steps
        self.accumulate = accumulate
        self.clip = (
            Clip() if clip_norm is None and clip_value is None else GradientClip(clip_norm, clip_value)
        )
        self.seed = seed
        self.device = _device(device)
        self.strategy = strategy_of(strategy, self.device)
        self.precision = precision_of(precision, self.device.type)
        self.microbatch_size = microbatch_size
        self.compile = compile
        self.deterministic = deterministic
        self.run_dir = None if run_dir is None else Path(run_dir)
        self.checkpoint = Checkpoints() if checkpoint is True else checkpoint or None
        self.callbacks: list[Callback] = list(callbacks)
        self.progress = progress
        self.trial = trial
        self.log_every = log_every
        self.eval_every = eval_every
        self._cache = Cache()
        Hooks(self.callbacks)  # a typo is said here, not when training starts
        if self.checkpoint is not None and not isinstance(self.checkpoint, Checkpoints):
            raise TypeError(
                f"Trainer: checkpoint is {checkpoint!r}; give treadle.Checkpoints(...), True or None"
            )

    def replace(self, **changes: Any) -> Trainer:
        """A trainer like this one, its subscribed functions included, with some arguments changed."""
        return type(self)(**{**self._arguments, "callbacks": self.callbacks, **changes})

    def on(self, event: str, every: Every | None = None, order: float = 0.0) -> Callable[[Hook], Hook]:
        """Subscribe a plain function of the state to an event: ``@trainer.on("step_end", Every(steps=100))``.

        Raises:
            ValueError: there is no such event; the text lists them.
        """

        def subscribe(function: Hook) -> Hook:
            self.callbacks.append(FunctionCallback(event, function, every, order))
            return function

        FunctionCallback(event, lambda state: None, every, order)
        return subscribe

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
            train: a `Loader`, a DataLoader, a dataset, or a tuple of tensors or arrays.
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
            looks = {"val": val, **(also or {}), "test": test}
            state = self._prepare(task, train, looks, resume, list(callbacks), config or {}, stack)
            tests = state.evaluations.pop("test", None)
            stack.enter_context(together(state))
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
        with self._looking(task, data, name) as (state, batches):
            return loops.evaluate(state, batches, name)

    def results(self, task: Task, data: Any, name: str = "test", refresh: bool = False) -> Results:
        """What `evaluate` says, with every output, prediction, target and metadatum, in data order.

        Asked again for the same object `data` and the same weights, it answers from a cache of the last
        few; any change of a weight makes it compute anew, and so does `refresh`.
        """
        collector = Collector(task)
        key = (weights_sha256(self.strategy.model_state(task)), name)
        cached = None if refresh else self._cache.get(data, key)
        if cached is not None:
            return cached
        with self._looking(task, data, name, collector) as (state, batches):
            values = loops.evaluate(state, batches, name)
            collector.join(lambda made: state.engine.in_order(made, batches))
            results = collector.results(values)
        self._cache.put(data, key, results)
        return results

    def predict(self, task: Task, data: Any) -> Any:
        """Predictions for all of `data` in its order, on the CPU, as one tensor or tree of tensors."""
        with self._looking(task, data, "predict") as (state, batches):
            return task.join(state.engine.in_order(loops.predict(state, batches), batches))

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

    # -- composition -------------------------------------------------------------------------------------

    def _engine(self) -> Engine:
        size = None if self.microbatch_size == "auto" else self.microbatch_size
        return engine_of(self.strategy, self.precision, self.clip, size)

    def _open_to_look(self, data: Any, name: str, seed: int) -> Batches:
        source = as_source(data, batch_size=EVAL_BATCH_SIZE, name=name).in_order()
        return self._opened(source, seed)

    def _opened(self, source: Source, seed: int) -> Batches:
        strategy = self.strategy
        return source.open(seed, strategy.rank, strategy.world_size, pin_memory=self.device.type == "cuda")

    @contextmanager
    def _looking(self, task: Task, data: Any, name: str, *more: Callback) -> Iterator[tuple[State, Batches]]:
        check_task(task)
        self.strategy.join()
        engine = self._engine()
        batches = engine.to_look(self._open_to_look(data, name, self.seed or 0))
        engine.strategy.setup_to_look(task)
        shown = [progress_bar()] if self.progress and self.strategy.is_main else []
        callbacks = [*self.callbacks, *more, *shown]
        run = Run.create(None, name=name, config={}, environment={})
        state = state_of(engine, task=task, hooks=Hooks(callbacks), run=run)
        with ExitStack() as cleanup:
            cleanup.callback(batches.close)
            for hook in state.hooks.on_cleanup:
                cleanup.callback(hook, state)
            yield state, batches

    def _prepare(
        self,
        task: Task,
        train: Any,
        looks: Mapping[str, Any],
        resume: str | Path | None,
        callbacks: list[Callback],
        config: Mapping[str, Any],
        stack: ExitStack,
    ) -> State:
        """Everything is checked and built here; the run's folder comes last."""
        if (self.max_epochs is None) == (self.max_steps is None):
            given = "neither" if self.max_epochs is None else "both"
            raise ValueError(
                f"Trainer: give exactly one of max_epochs and max_steps to fit; {given} is given"
            )
        check_task(task)
        if self.microbatch_size == "auto" and self.strategy.world_size > 1:
            raise ValueError(
                f"Trainer: microbatch_size is 'auto' on {self.strategy.world_size} processes, which "
                "would try different sizes; give a number"
            )
        self.strategy.join()
        engine = self._engine()
        origin = find_origin(resume, self.run_dir)
        check_same_origin(origin, engine)
        seed = self.seed if self.seed is not None else origin.seed
        seed = engine.gather(secrets.randbelow(2**32) if seed is None else seed)[0]
        source = as_source(train, batch_size=BATCH_SIZE, shuffle=True, name="train")
        batches = engine.to_train(self._opened(source, seed))
        stack.callback(batches.close)
        evaluations = {}
        for name, data in looks.items():
            if data is not None:
                evaluations[name] = engine.to_look(self._open_to_look(data, name, seed))
                stack.callback(evaluations[name].close)
        hooks = Hooks([*self.callbacks, *callbacks, *self._own_callbacks()])
        engine.strategy.setup(task)
        optimizers = optimizers_of(task)
        state = state_of(
            engine,
            task=task,
            hooks=hooks,
            max_epochs=self.max_epochs,
            max_steps=self.max_steps,
            accumulate=self.accumulate,
            optimizers=optimizers,
            train_batches=batches,
            evaluations=evaluations,
            log_every=Every(steps=self.log_every, seconds=1.0),
            eval_steps=self.eval_every if self.eval_every and self.eval_every.steps and evaluations else None,
            eval_epochs=self.eval_every,
            metrics=counters(task.metrics, engine.device),
            seed=seed,
        )
        own_epoch = type(self).train_epoch is not Trainer.train_epoch
        state.train_epoch = self.train_epoch if own_epoch else loops.train_epoch
        check_evaluation(state)
        set_horizon(state)
        state.schedules = schedules_of(task, state)
        own_zero_grad = type(task).zero_grad is not Task.zero_grad
        engine.setup(task, optimizers, state.schedules, task.zero_grad if own_zero_grad else None)
        engine.clear_gradients()  # what somebody left from before does not belong to the first step
        engine.before_step = tuple(_bound(hook, state) for hook in hooks.on_before_optimizer_step)
        engine.after_step = tuple(_bound(hook, state) for hook in hooks.on_after_optimizer_step)
        state.turn = state.turned(Fitting(state) if self.microbatch_size == "auto" else task.train_step)
        if self.compile:
            arguments = dict(self.compile) if isinstance(self.compile, Mapping) else {}
            for module in task.compile_modules():
                module.compile(**arguments)
        if self.deterministic:
            stack.enter_context(_deterministic())
        task.train()
        rng.seed_all(seed, engine.strategy.rank)  # ranks draw different masks
        if origin.contents is not None:
            restore(state, origin.contents)
        facts = {
            "seed": seed,
            "device": str(self.device),
            "threads": torch.get_num_threads(),
            "deterministic": self.deterministic,
            "precision": self.precision.name,
        }
        begin = begin_record if state.is_main else begin_aside
        state.run = begin(state.progress, origin, self.run_dir, config, facts)
        return state

    def _own_callbacks(self) -> list[Callback]:
        own: list[Callback] = [Trial()] if self.trial else []
        if self.progress and self.strategy.is_main:
            own += [Summary(shapes=not self.compile), progress_bar(every=int(self.progress))]
        return own if self.checkpoint is None else [*own, self.checkpoint]


@contextmanager
def _deterministic() -> Iterator[None]:
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


def _bound(hook: Hook, state: State) -> Callable[[], None]:
    return lambda: hook(state)


def _device(device: str | torch.device) -> torch.device:
    if device == "auto":
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        if accelerator is None:
            return torch.device("cpu")
        place = place_of()  # each process of a machine has a device of its own
        return accelerator if place.world_size == 1 else torch.device(accelerator.type, place.local_rank)
    try:
        return torch.device(device)
    except RuntimeError as error:
        raise ValueError(
            f"Trainer: device is {device!r}; allowed are 'auto' and torch devices: {error}"
        ) from error


def _check_number(name: str, value: Any, at_least: int, optional: bool = False) -> None:
    if value is None and optional:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(
            f"Trainer: {name} is {value!r}; it must be a whole number{' or None' if optional else ''}"
        )
    if value < at_least:
        raise ValueError(f"Trainer: {name} is {value}; it must be at least {at_least}")
