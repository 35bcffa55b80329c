"""The scikit-learn classifier."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import validate_data
from torch.nn.functional import cross_entropy

from treadle.interop.estimator import Array, TreadleEstimator


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
