"""The scikit-learn regressor."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.utils.validation import validate_data
from torch.nn.functional import mse_loss

from treadle.interop.estimator import Array, TreadleEstimator


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
