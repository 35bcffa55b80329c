"""What the scikit-learn estimators have in common: parameters, training, outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
from torch import Tensor, nn
from torch.optim import Optimizer

from treadle import rng
from treadle.data import Loader
from treadle.interop.weighted_task import WeightedTask
from treadle.trainer import Trainer

Array = np.ndarray[Any, Any]
LARGEST_SEED = 2**31 - 1
OWN = {"max_epochs": "epochs", "max_steps": "epochs", "seed": "random_state", "device": "device"}
"""Arguments of the trainer that the estimator has under its own name."""
DTYPES = {"float32": np.float32, "float64": np.float64}


class TreadleEstimator(BaseEstimator):  # type: ignore[misc]
    """What classifier and regressor have in common.

    Args:
        module: called with (n_features, n_outputs), returns an `nn.Module`: a class or a function. None for
            a perceptron with `hidden_sizes`.
        hidden_sizes: widths of the hidden layers of the default module, ReLU between them.
        loss: a function of (output, target, reduction="none"); None for the kind's usual one.
        optimizer: a torch optimizer's class, or anything that builds one from parameters.
        lr: the learning rate; None for the optimizer's own.
        epochs: passes over the data.
        batch_size: samples in an optimizer step.
        dtype: "float32" or "float64": of module and data.
        device: "auto" or a torch device.
        trainer: further arguments of `treadle.Trainer`, such as {"clip_norm": 1.0, "run_dir": "runs/x"}.
            Without any, no folder is made and nothing is shown.
        random_state: a number makes the fit deterministic.

    Attributes:
        module_: the trained module.
        history_: the run's values by name, one an epoch.
        n_features_in_, feature_names_in_: as always in scikit-learn.
    """

    usual_loss: ClassVar[Any]

    def __init__(
        self,
        module: Callable[[int, int], nn.Module] | None = None,
        *,
        hidden_sizes: Sequence[int] = (100,),
        loss: Callable[..., Tensor] | None = None,
        optimizer: Callable[..., Optimizer] = torch.optim.AdamW,
        lr: float | None = 1e-2,
        epochs: int = 50,
        batch_size: int = 32,
        dtype: str = "float32",
        device: str = "auto",
        trainer: Mapping[str, Any] | None = None,
        random_state: Any = None,
    ) -> None:
        self.module = module
        self.hidden_sizes = hidden_sizes
        self.loss = loss
        self.optimizer = optimizer
        self.lr = lr
        self.epochs = epochs
        self.batch_size = batch_size
        self.dtype = dtype
        self.device = device
        self.trainer = trainer
        self.random_state = random_state

    _seed: int
    _calls: int

    def _train(self, X: Array, y: Array, outputs: int, weight: Any, new: bool, epochs: int) -> Self:  # noqa: N803
        """Train on checked data, from new weights or on from what there is."""
        weight = _check_sample_weight(weight, X, dtype=np.float64, ensure_non_negative=True)
        if not weight.any():
            raise ValueError("sample_weight is 0 for every sample: there is nothing to learn from")
        # Nothing here touches the generators that the caller draws from, except through random_state.
        seed = int(check_random_state(self.random_state).randint(LARGEST_SEED)) if new else self._seed
        with rng.isolated():
            if new:
                rng.seed_all(seed)
                module = (self.module or self._perceptron)(X.shape[1], outputs).to(getattr(torch, self.dtype))
                loss = self.loss or type(self).usual_loss
                self._task = WeightedTask(module, loss, self.optimizer, self.lr)
                self._calls = 0
            options = {"run_dir": None, "checkpoint": None, "progress": False} | self._options()
            trainer = Trainer(max_epochs=epochs, seed=seed + self._calls, device=self.device, **options)
            run = trainer.fit(self._task, Loader((X, y, weight), self.batch_size, shuffle=True))
        self._seed, self._calls = seed, self._calls + 1
        self.module_ = self._task.model.eval()
        self.history_ = {name: list(values) for name, values in run.history.items()}
        return self

    def _perceptron(self, inputs: int, outputs: int) -> nn.Module:
        layers: list[nn.Module] = []
        for size in self.hidden_sizes:
            layers += [nn.Linear(inputs, size), nn.ReLU()]
            inputs = size
        return nn.Sequential(*layers, nn.Linear(inputs, outputs))

    def _outputs(self, X: Any) -> Tensor:  # noqa: N803
        """The module's outputs for checked samples, [samples, outputs], on the CPU."""
        check_is_fitted(self)
        checked = validate_data(self, X, dtype=self._dtype(), reset=False)
        options = {"progress": False, **self._options(), "run_dir": None, "checkpoint": None}
        trainer = Trainer(seed=0, device=self.device, **options)
        outputs: Tensor = trainer.predict(self._task, (checked,))
        return outputs.double()  # scikit-learn's own precision, whatever the module's

    def _options(self) -> dict[str, Any]:
        for name in self.trainer or ():
            if name in OWN:
                raise ValueError(f"trainer names {name!r}; give the estimator {OWN[name]}=... instead")
        return dict(self.trainer or {})

    def _dtype(self) -> Any:
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype is {self.dtype!r}; allowed are 'float32' and 'float64'")
        return DTYPES[self.dtype]
