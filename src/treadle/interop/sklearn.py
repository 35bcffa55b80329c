"""scikit-learn estimators that are trained by Treadle.

    model = make_pipeline(StandardScaler(), treadle.TreadleClassifier(epochs=20, random_state=0))
    model.fit(X, y).score(X_test, y_test)

They work in pipelines, searches and cross-validation, and pass scikit-learn's own `check_estimator`: with
dtype="float64" all of it, with "float32" all but `EXPECTED_FAILED_CHECKS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss
from torch.optim import Optimizer

from treadle import rng
from treadle.data import Loader
from treadle.supervised_task import SupervisedTask
from treadle.trainer import Trainer

Array = np.ndarray[Any, Any]
LARGEST_SEED = 2**31 - 1
DTYPES = {"float32": np.float32, "float64": np.float64}
EXPECTED_FAILED_CHECKS = {
    "check_sample_weight_equivalence_on_dense_data": (
        "a weight of 2 and a repeated sample give the same gradient up to rounding, which the check wants "
        "equal to 1e-7: true in float64, not in float32"
    ),
}
"""What `check_estimator(..., expected_failed_checks=...)` is told for estimators in float32, and why.

The check has fewer samples than a batch. With more, shuffled batches of repeated samples are other batches.
"""


class WeightedTask(SupervisedTask):
    """A batch is (x, y, weight); its loss is the weighted mean, and its items are the sum of its weights."""

    def prepare_batch(self, batch: Any) -> tuple[Any, Any]:
        """(inputs, targets)."""
        return batch[0], batch[1] if len(batch) > 1 else None

    def num_items(self, batch: Any) -> float:
        """The sum of the weights; they are counted before a batch goes to the device."""
        return float(batch[2].sum()) if len(batch) > 2 else float(len(batch[0]))

    def compute_loss(self, batch: Any, state: Any) -> Tensor:
        """The mean of the loss without reduction, weighted by sample."""
        inputs, targets = self.prepare_batch(batch)
        state.output = self.forward(inputs)
        losses: Tensor = self.loss(state.output, targets, reduction="none")
        losses = losses.reshape(len(losses), -1).mean(1)
        weights: Tensor = batch[2].to(losses.dtype)
        total = (losses * weights).sum()
        return total / weights.sum().clamp(min=torch.finfo(losses.dtype).tiny)


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
            options = {"run_dir": None, "checkpoint": None, "progress": False} | dict(self.trainer or {})
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
        options = {"progress": False, **dict(self.trainer or {}), "run_dir": None, "checkpoint": None}
        trainer = Trainer(seed=0, device=self.device, **options)
        outputs: Tensor = trainer.predict(self._task, (checked,))
        return outputs.double()  # scikit-learn's own precision, whatever the module's

    def _dtype(self) -> Any:
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype is {self.dtype!r}; allowed are 'float32' and 'float64'")
        return DTYPES[self.dtype]


class TreadleClassifier(ClassifierMixin, TreadleEstimator):  # type: ignore[misc]
    """A classifier: the module returns a logit for each class, the usual loss is cross-entropy.

    See `TreadleEstimator` for the arguments.

    Attributes:
        classes_: the labels, in the order of the module's outputs.
    """

    usual_loss = staticmethod(cross_entropy)

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:  # noqa: N803
        """Train from new weights; `sample_weight` [samples] weighs the loss.

        Raises:
            ValueError: the data are not those of a classifier.
        """
        X, y = validate_data(self, X, y, dtype=self._dtype())  # noqa: N806
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        return self._train(X, codes.reshape(-1), len(self.classes_), sample_weight, True, self.epochs)

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:  # noqa: N803
        """Train one more epoch on these data; the optimizer goes on from where it was.

        Args:
            X, y, sample_weight: as in `fit`.
            classes: all there will ever be; needed in the first call.

        Raises:
            ValueError: a label is not among the classes, or the first call names none.
        """
        new = not hasattr(self, "_task")
        X, y = validate_data(self, X, y, dtype=self._dtype(), reset=new)  # noqa: N806
        check_classification_targets(y)
        if new:
            if classes is None:
                raise ValueError("partial_fit: the first call needs classes, all there will ever be")
            self.classes_ = np.unique(classes)
        unknown = np.setdiff1d(y, self.classes_)
        if len(unknown):
            raise ValueError(
                f"partial_fit: {unknown.tolist()} are not among classes {self.classes_.tolist()}"
            )
        codes = np.searchsorted(self.classes_, y)
        return self._train(X, codes, len(self.classes_), sample_weight, new, epochs=1)

    def predict_proba(self, X: Any) -> Array:  # noqa: N803
        """The probability of every class, [samples, classes], in the order of `classes_`."""
        return self._outputs(X).softmax(1).numpy()

    def predict(self, X: Any) -> Array:  # noqa: N803
        """The likeliest class of each sample."""
        chosen = self._outputs(X).argmax(1).numpy()
        labels: Array = self.classes_[chosen]
        return labels


class TreadleRegressor(RegressorMixin, TreadleEstimator):  # type: ignore[misc]
    """A regressor of one or several numbers; the usual loss is the squared error.

    See `TreadleEstimator` for the arguments. Scale features and targets, as for any network.
    """

    usual_loss = staticmethod(mse_loss)

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:  # noqa: N803
        """Train from new weights; y is [samples] or [samples, outputs].

        Raises:
            ValueError: the data are not those of a regressor.
        """
        return self._fit(X, y, sample_weight, True, self.epochs)

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:  # noqa: N803
        """Train one more epoch on these data; the optimizer goes on from where it was."""
        return self._fit(X, y, sample_weight, not hasattr(self, "_task"), 1)

    def predict(self, X: Any) -> Array:  # noqa: N803
        """The predicted numbers, shaped like y."""
        outputs = self._outputs(X).numpy()
        return outputs[:, 0] if self._flat else outputs

    def _fit(self, X: Any, y: Any, weight: Any, new: bool, epochs: int) -> Self:  # noqa: N803
        kind = self._dtype()
        X, y = validate_data(self, X, y, dtype=kind, multi_output=True, y_numeric=True, reset=new)  # noqa: N806
        if new:
            self._flat = y.ndim == 1
        y = np.asarray(y, dtype=kind).reshape(len(y), -1)
        return self._train(X, y, y.shape[1], weight, new, epochs)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
