"""What `fit` and `resume` share: train, and say how it ended and what to type next."""

from __future__ import annotations

import math
import sys
from argparse import Namespace
from pathlib import Path

from treadle.cli.arguments import DONE, FAILED, INTERRUPTED, KILLED, USAGE
from treadle.cli.failures import report as report_failure
from treadle.cli.failures import user_frames
from treadle.cli.printing import command, say, shown_path
from treadle.config import Experiment
from treadle.events import Callback
from treadle.report.callback import FILE
from treadle.runs import Run
from treadle.signals import Interrupted
from treadle.state import State
from treadle.trainer import Trainer


class Watcher(Callback):
    """Remembers that training has begun, so that an error can be told from a wrong configuration."""

    order = -math.inf
    state: State | None = None

    def on_fit_start(self, state: State) -> None:
        """Training begins."""
        self.state = state


def train(experiment: Experiment, trainer: Trainer, arguments: Namespace, resume: Path | None = None) -> int:
    """Build the rest of an experiment and train it; returns the exit code.

    Raises:
        ConfigError: task or data cannot be built.
    """
    task = experiment.build_task()
    data = {name: experiment.build_data(name) for name in experiment.data_names}
    watcher = Watcher()
    allow = [word for name in arguments.allow for word in ("--allow", name)]
    try:
        run = trainer.fit(
            task,
            data["train"],
            data.get("val"),
            resume=resume,
            callbacks=[watcher],
            config=experiment.config,
        )
    except Interrupted as interrupted:
        if not trainer.strategy.is_main:
            return INTERRUPTED
        say(f"interrupted at step {interrupted.run.step}: {_advice(interrupted.run, trainer, allow)}")
        return INTERRUPTED
    except KeyboardInterrupt:
        if watcher.state is None:
            raise
        print(file=sys.stderr)
        say(f"stopped at once: {_advice(watcher.state.run, trainer, allow)}")
        return INTERRUPTED if trainer.checkpoint is not None else KILLED
    except BrokenPipeError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever the user's code raises
        if watcher.state is None:
            return _refused(error, arguments)
        state = watcher.state
        report_failure(error, arguments.traceback, f"training failed in step {max(1, state.current_step)}")
        if state.run.path is not None:
            say(f"the run is in {shown_path(state.run.path)}")
        return FAILED
    if trainer.strategy.is_main:
        _say_done(run, trainer, experiment, allow)
    return DONE


def _refused(error: Exception, arguments: Namespace) -> int:
    """An error before training: of the configuration, unless the user's own code was running."""
    own = bool(user_frames(error))
    code = report_failure(error, arguments.traceback)
    is_usual = isinstance(error, (TypeError, ValueError, OSError))
    return USAGE if is_usual and not own else code


def _advice(run: Run, trainer: Trainer, allow: list[str]) -> str:
    if run.path is None:
        return "the run was kept in memory only, and is lost"
    if trainer.checkpoint is None:
        return f"no checkpoints were asked for; the record is in {shown_path(run.path)}"
    return f"go on with\n  {command('resume', shown_path(run.path), *allow)}"


def _say_done(run: Run, trainer: Trainer, experiment: Experiment, allow: list[str]) -> None:
    reason = f" ({run.reason})" if run.reason else ""
    print(f"status          {run.status}{reason}")
    print(f"weights_sha256  {run.weights_sha256}")
    if run.path is None:
        print("run             in memory only (run_dir is null)")
        return
    place = shown_path(run.path)
    print(f"run             {place}  (id {run.id})")
    report = run.path / FILE
    if trainer.report is not None and trainer.report.path is None and report.is_file():
        print(f"report          {shown_path(report)}")
    if trainer.checkpoint is None:
        return
    longer = (
        max(2 * trainer.max_epochs, 1) if trainer.max_epochs is not None else 2 * (trainer.max_steps or 1)
    )
    limit = f"trainer.{'max_steps' if trainer.max_epochs is None else 'max_epochs'}={longer}"
    on = next((name for name in ("test", "val") if name in experiment.data_names), "train")
    print("next")
    print(f"  {command('resume', place, '--set', limit, *allow)}")
    print(f"  {command('evaluate', place, '--data', on, *allow)}")
    print(f"  {command('predict', place, 'INPUT.npy', '-o', 'OUTPUT.npy', *allow)}")
