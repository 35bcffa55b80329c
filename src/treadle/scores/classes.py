"""From outputs, predictions and targets of any shape to probabilities, decisions and classes, and a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from treadle.scores.base import tensor_of


def class_columns(given: Mapping[str, Any], probabilities: bool, ignore_index: int) -> dict[str, Any]:
    """The columns of `MulticlassScores` ([N, C], [N], [N]), `BinaryScores` ([N] each) or `MultilabelScores`.

    Raises:
        ValueError: the shapes do not fit each other, or a target is no class.
        TypeError: something is no tensor of the right kind.
    """
    outputs, targets = tensor_of(given, "outputs").double(), tensor_of(given, "targets")
    if not bool((targets == targets.long()).all()):
        raise TypeError(
            f"scores: the targets are {targets.dtype}; classes are whole numbers (for numbers to come "
            "close to, use treadle.scores.regression)"
        )
    targets = targets.long()
    if targets.shape == (len(targets), 1) and outputs.shape[1:] != (1,):
        targets = targets.squeeze(1)
    predictions = _given_decisions(given.get("predictions"), targets)
    if outputs.shape == targets.shape and outputs.ndim == 2 and outputs.shape[1] > 1:
        scores = outputs if probabilities else outputs.sigmoid()
        columns = _decided(scores, outputs > (0.5 if probabilities else 0), targets, predictions)
        _check_classes(columns, 2)
        return {**columns, "outputs": outputs}
    flat, classes = _items_by_classes(outputs, targets)
    kept = targets.reshape(-1) != ignore_index
    flat, targets = flat[kept], targets.reshape(-1)[kept]
    predictions = None if predictions is None else predictions.reshape(-1)[kept]
    if not len(targets):
        raise ValueError("scores: there is no item to measure")
    if classes > 2:
        scores = flat if probabilities else flat.softmax(1)
        columns = _decided(scores, flat.argmax(1), targets, predictions)
    else:
        scores, chosen = _one_class(flat, probabilities)
        columns = _decided(scores, chosen, targets, predictions)
    _check_classes(columns, max(classes, 2))
    return {**columns, "outputs": flat.squeeze(1) if classes == 1 else flat}


def is_multilabel(columns: Mapping[str, Tensor]) -> bool:
    """Whether these columns are of several labels."""
    return columns["targets"].ndim == 2


def per_class(
    names: Sequence[str], right: Tensor, predicted: Tensor, actual: Tensor
) -> dict[str, dict[str, float]]:
    """Precision, recall, f1 and support by name, from three vectors of counts; 0 / 0 is 0."""
    rows = {
        "precision": right / predicted.clamp(min=1),
        "recall": right / actual.clamp(min=1),
        "f1": 2 * right / (predicted + actual).clamp(min=1),
        "support": actual,
    }
    lists = {measure: values.tolist() for measure, values in rows.items()}
    return {
        name: {measure: values[number] for measure, values in lists.items()}
        for number, name in enumerate(names)
    }


def class_table(classes: Mapping[str, Mapping[str, float]]) -> str:
    """A line for each class, under a heading."""
    width = max(5, *map(len, classes)) + 2
    head = f"{'':{width}}{'precision':>10}{'recall':>10}{'f1':>10}{'support':>10}"
    return "\n".join(
        [
            head,
            *(
                f"{name:{width}}{row['precision']:10.4f}{row['recall']:10.4f}{row['f1']:10.4f}{row['support']:10.0f}"
                for name, row in classes.items()
            ),
        ]
    )


def _given_decisions(predictions: Any, targets: Tensor) -> Tensor | None:
    """What the task decided, if these are classes for these targets."""
    if not isinstance(predictions, Tensor) or predictions.is_floating_point():
        return None
    same = predictions.numel() == targets.numel() and len(predictions) == len(targets)
    return predictions.detach().cpu().long().reshape(targets.shape) if same else None


def _items_by_classes(outputs: Tensor, targets: Tensor) -> tuple[Tensor, int]:
    """The outputs as [items, classes], and how many classes."""
    if outputs.shape == targets.shape:
        return outputs.reshape(-1, 1), 1
    if outputs.ndim == targets.ndim + 1 and outputs.shape[:1] + outputs.shape[2:] == targets.shape:
        return outputs.movedim(1, -1).reshape(-1, outputs.shape[1]), outputs.shape[1]
    raise ValueError(
        f"scores: the outputs have shape {tuple(outputs.shape)} and the targets {tuple(targets.shape)}; "
        "allowed are class scores [N, C, ...] with classes [N, ...], binary scores [N] or [N, 1] with [N], "
        "and label scores [N, L] with 0s and 1s [N, L]"
    )


def _one_class(flat: Tensor, probabilities: bool) -> tuple[Tensor, Tensor]:
    """The probability of class 1 and whether it is chosen, from one score or two."""
    if flat.shape[1] == 2:
        difference = flat[:, 1] - flat[:, 0]
        return flat[:, 1].contiguous() if probabilities else difference.sigmoid(), difference > 0
    score = flat[:, 0]
    return (score, score > 0.5) if probabilities else (score.sigmoid(), score > 0)


def _decided(
    scores: Tensor, chosen: Tensor, targets: Tensor, predictions: Tensor | None
) -> dict[str, Tensor]:
    finite = scores[scores.isfinite()]
    if bool(((finite < 0) | (finite > 1)).any()):
        raise ValueError("scores: probabilities=True, and an output is outside 0 to 1; are they logits?")
    decisions = chosen.long() if predictions is None else predictions
    return {"probabilities": scores, "predictions": decisions, "targets": targets}


def _check_classes(columns: Mapping[str, Tensor], classes: int) -> None:
    for name in ("targets", "predictions"):
        outside = columns[name][(columns[name] < 0) | (columns[name] >= classes)]
        if len(outside):
            raise ValueError(
                f"scores: {outside[0].item()} is among the {name}; there are {classes} classes, from 0"
            )
