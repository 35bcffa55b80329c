"""Parameters that are not trained, for a while or for the whole run."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn
from torch.optim import SGD, Optimizer

from treadle.events import Callback
from treadle.state import State


class Freezing(Callback):
    """Freeze parameters by name until an epoch or a step, or for the whole run.

    ``Freezing(["model.encoder.*"], epochs=2)`` trains the rest alone for two epochs, then everything. For
    gradual unfreezing give several, one for each part (Howard and Ruder 2018); a part that two of them name
    thaws with the first. Frozen parameters get no gradient, and their optimizer leaves them and its state of
    them alone. Modules whose running statistics
    match the names too (BatchNorm) are in eval mode meanwhile. When the fit is over all is as it was before.

    What is frozen follows from the step and the epoch alone, so a resumed run goes on exactly.

    Args:
        names: patterns of the names in `task.named_parameters()` and `task.named_buffers()`.
        epochs: thaw when so many epochs are done.
        steps: thaw when so many optimizer steps are done. With both, whichever is first; with neither, never.

    Raises:
        TypeError: `names` is a string or empty.
        ValueError: a number is below 1; when a fit starts: a pattern names nothing, and the text lists what
            there is, or nothing is left to train.
    """

    order = -200.0

    def __init__(self, names: Sequence[str], epochs: int | None = None, steps: int | None = None) -> None:
        if isinstance(names, str) or not names:
            raise TypeError(f"Freezing: names is {names!r}; give a list of patterns such as ['model.body.*']")
        for key, value in (("epochs", epochs), ("steps", steps)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ValueError(f"Freezing: {key} is {value!r}; it must be a whole number of at least 1")
        self.names = list(names)
        self.epochs = epochs
        self.steps = steps
        self._frozen: list[nn.Parameter] = []
        self._still: list[nn.Module] = []

    def on_fit_start(self, state: State) -> None:
        """Freeze, unless the run is past that already."""
        task = state.task
        self._check_names(task)
        named = {id(p) for name, p in task.named_parameters() if self._matches(name)}
        for optimizer in state.optimizers.values():
            _let_momenta_begin_later(optimizer, named)
        if self._is_over(state):
            return
        self._frozen = [p for name, p in task.named_parameters() if p.requires_grad and self._matches(name)]
        for parameter in self._frozen:
            parameter.requires_grad_(False)
            parameter.grad = None
        for prefix, module in task.named_modules():
            names = [f"{prefix}.{name}" for name, _ in module.named_buffers(recurse=False)]
            if module.training and any(self._matches(name) for name in names):
                module.training = False
                self._still.append(module)
        if not any(p.requires_grad for p in task.parameters()):
            raise ValueError(f"Freezing: names {self.names} leave no parameter to train")

    def on_epoch_start(self, state: State) -> None:
        """Thaw at the beginning of an epoch."""
        if (self._frozen or self._still) and self._is_over(state):
            self._thaw()

    def on_step_start(self, state: State) -> None:
        """Thaw between two steps."""
        if (self._frozen or self._still) and self._is_over(state):
            self._thaw()

    def on_cleanup(self, state: State) -> None:
        """Leave the parameters as they were."""
        self._thaw()

    def _matches(self, name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in self.names)

    def _check_names(self, task: nn.Module) -> None:
        known = [name for name, _ in (*task.named_parameters(), *task.named_buffers())]
        for pattern in self.names:
            if not any(fnmatchcase(name, pattern) for name in known):
                raise ValueError(
                    f"Freezing: no parameter or buffer is named {pattern!r}. The task has {', '.join(known)}"
                )

    def _is_over(self, state: State) -> bool:
        progress = state.progress
        return (self.epochs is not None and progress.epoch >= self.epochs) or (
            self.steps is not None and progress.step >= self.steps
        )

    def _thaw(self) -> None:
        for parameter in self._frozen:
            parameter.requires_grad_(True)
        for module in self._still:
            module.training = True
        self._frozen, self._still = [], []


def _let_momenta_begin_later(optimizer: Optimizer, named: set[int]) -> None:
    """Torch's fused SGD fails where some momenta of a group exist and others do not; its other ways work."""
    if isinstance(optimizer, SGD):
        for group in optimizer.param_groups:
            if group["momentum"] and group["fused"] and any(id(p) in named for p in group["params"]):
                group["fused"] = False
