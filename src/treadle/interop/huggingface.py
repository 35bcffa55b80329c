"""Hugging Face models: batches that are mappings, a loss that the model computes, texts of unequal lengths.

    tokens = dataset.map(lambda row: tokenizer(row["text"]))
    task = HuggingFaceTask(AutoModelForSequenceClassification.from_pretrained(...), lr=5e-5)
    trainer.fit(task, treadle.Loader(tokens, 32, shuffle=True, collate=Padding(tokenizer.pad_token_id)))

Nothing of Hugging Face is imported here: any module does that takes its batch by keyword and returns
something with `logits`, and with `loss` where it is given labels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from treadle.state import State
from treadle.strategy import Items
from treadle.supervised_task import SupervisedTask
from treadle.task import Loss

IGNORED = -100
"""The label of positions that do not count, as in `torch.nn.functional.cross_entropy`."""


class HuggingFaceTask(SupervisedTask):
    """A Hugging Face model for classes of texts, of tokens or of numbers; sequence to sequence as well.

    The loss is the model's own, computed from the labels in the batch; outputs are the logits. Where every
    position has logits, they come to metrics and `results` as [batch, classes, positions], which is how torch
    and the metrics want them; `predict` leaves them as the model gives them. Where labels are whole numbers
    [batch, positions], the items of a batch, which its loss is the mean of, are those that are not -100.

    Args:
        model: called with the batch by keyword.
        loss: a function of (logits, labels) instead of the model's own.
        optimizer, lr, scheduler, metrics: see `SupervisedTask`.
        labels: the key of the labels in a batch.

    Raises:
        TypeError, ValueError: see `SupervisedTask`.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[..., Any] | None = None,
        optimizer: Callable[..., Optimizer] | Mapping[str, Any] | Optimizer = torch.optim.AdamW,
        lr: float | None = None,
        scheduler: Any = None,
        metrics: Mapping[str, Any] | None = None,
        labels: str = "labels",
    ) -> None:
        super().__init__(model, loss, optimizer, lr, scheduler, metrics, target=labels)
        # An encoder-decoder makes the decoder's input of the labels, also where no loss is asked for.
        self._reads_labels = bool(getattr(getattr(model, "config", None), "is_encoder_decoder", False))

    def prepare_batch(self, batch: Any) -> tuple[Any, Any]:
        """The batch by keyword, labels included, and the labels that the logits stand for (or None).

        Raises:
            TypeError: the batch is no mapping.
        """
        if not isinstance(batch, Mapping):
            raise TypeError(
                f"{type(self).__name__}: a batch is {type(batch).__name__}; it must be a mapping, such as "
                "{'input_ids': ..., 'labels': ...} (treadle.interop.huggingface.Padding makes them)"
            )
        labels = batch.get(self.target)
        return dict(batch), None if labels is None else self.align_labels(labels)

    def align_logits(self, logits: Tensor) -> Tensor:
        """The logits that have a label, classes in dimension 1; all of them, by default."""
        return logits.movedim(-1, 1) if logits.ndim == 3 else logits

    def align_labels(self, labels: Tensor) -> Tensor:
        """The labels in the order of `align_logits`."""
        return labels

    def num_items(self, batch: Any) -> Items:
        """Labelled positions, where each has a label; samples otherwise."""
        labels = self.prepare_batch(batch)[1]
        if not isinstance(labels, Tensor) or labels.ndim < 2 or labels.is_floating_point():
            return super().num_items(batch)
        count = (labels != IGNORED).sum()
        return int(count) if count.device.type == "cpu" else count  # a count on a device is not waited for

    def compute_loss(self, batch: Any, state: State) -> Loss:
        """Forward, metrics on the logits, the model's loss.

        Raises:
            ValueError: the model returned no loss: the batch has no labels, or the model cannot compute one.
        """
        inputs, labels = self.prepare_batch(batch)
        if self.loss is not None and not self._reads_labels:  # the model need not compute another
            inputs = {name: value for name, value in inputs.items() if name != self.target}
        output = self.forward(inputs)
        state.output = logits = self.align_logits(_part(output, "logits"))
        for hook in state.hooks.on_after_forward:
            hook(state)
        if labels is not None:
            for metric in state.metrics.values():
                metric.update(logits, labels)
        if self.loss is not None:
            return self.loss(logits, labels)  # type: ignore[no-any-return]
        loss: Tensor | None = _part(output, "loss")
        if loss is None:
            raise ValueError(
                f"{type(self.model).__name__} returned no loss for a batch of {', '.join(map(str, batch))}; "
                f"give it labels under {self.target!r} (labels=... names another key), or the task a loss"
            )
        return loss

    def predict_step(self, batch: Any, state: State) -> Any:
        """The logits of a batch, with labels or without; an encoder-decoder reads the labels before each."""
        inputs, _ = self.prepare_batch(batch)
        if not self._reads_labels:
            inputs = {name: value for name, value in inputs.items() if name != self.target}
        return self.postprocess(_part(self.forward(inputs), "logits"))


class CausalLanguageTask(HuggingFaceTask):
    """A Hugging Face model that predicts the next token: the logits of a position are for the label after it.

    The model shifts the labels itself, so they are the input_ids, with -100 where nothing is to be learned;
    the first position has nothing before it and never counts. Metrics and `results` get logits
    [batch, vocabulary, positions - 1] and labels [batch, positions - 1]; `predict` gives all logits.
    """

    def align_logits(self, logits: Tensor) -> Tensor:
        """All but the last position, after which there is no label; classes in dimension 1."""
        return super().align_logits(logits[:, :-1])

    def align_labels(self, labels: Tensor) -> Tensor:
        """All but the first position, before which there is no logit."""
        return labels[:, 1:]


class Padding:
    """Make a batch of samples whose parts have unequal lengths, as a collate function of a `Loader`.

    A sample is a mapping; sequences (lists, arrays, tensors) are padded along their first dimension, numbers
    are stacked, anything else becomes a list. "label" and "label_ids" become "labels". "attention_mask" is
    made where the samples have "input_ids" and no mask.

    Args:
        token: the padding token of "input_ids".
        length: pad to this many positions, rather than to the longest in the batch: batches then have one
            shape, which outputs for each position need to be joined over batches.
        multiple_of: round the longest up to a multiple.
        side: "right" or "left", where padding goes.
        values: what other keys are padded with; by default labels with -100, all else with 0.

    Raises:
        ValueError: an argument is out of range; or, later, a sample is longer than `length`.
    """

    RENAMED = ("label", "label_ids")

    def __init__(
        self,
        token: int = 0,
        length: int | None = None,
        multiple_of: int = 1,
        side: str = "right",
        values: Mapping[str, Any] | None = None,
    ) -> None:
        if side not in ("right", "left"):
            raise ValueError(f"Padding: side is {side!r}; allowed are 'right' and 'left'")
        for name, number in (("length", length), ("multiple_of", multiple_of)):
            if number is not None and number < 1:
                raise ValueError(f"Padding: {name} is {number}; it must be at least 1")
        self.length = length
        self.multiple_of = multiple_of
        self.side = side
        self.values = {"input_ids": token, "labels": IGNORED, **(values or {})}

    def __call__(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """The batch of some samples."""
        columns: dict[str, list[Any]] = {}
        for name in samples[0]:
            kept = "labels" if name in self.RENAMED else name
            columns[kept] = [sample[name] for sample in samples]
        if "input_ids" in columns and "attention_mask" not in columns:
            columns["attention_mask"] = [[1] * len(row) for row in columns["input_ids"]]
        return {name: self._column(name, rows) for name, rows in columns.items()}

    def _column(self, name: str, rows: list[Any]) -> Any:
        if isinstance(rows[0], (str, bytes)) or rows[0] is None or isinstance(rows[0], Mapping):
            return rows
        tensors = [row if isinstance(row, Tensor) else torch.from_numpy(np.asarray(row)) for row in rows]
        if not tensors[0].ndim:
            return torch.stack(tensors)
        length = self.length or -(-max(map(len, tensors)) // self.multiple_of) * self.multiple_of
        return torch.stack([self._padded(tensor, length, name) for tensor in tensors])

    def _padded(self, tensor: Tensor, length: int, name: str) -> Tensor:
        missing = length - len(tensor)
        if missing < 0:
            raise ValueError(f"Padding: a sample's {name!r} has {len(tensor)} positions; length is {length}")
        filler = tensor.new_full((missing, *tensor.shape[1:]), self.values.get(name, 0))
        return torch.cat([tensor, filler] if self.side == "right" else [filler, tensor])


def _part(output: Any, name: str) -> Any:
    """`output.name` or `output["name"]`; a model that returns a plain tensor returns logits."""
    if isinstance(output, Tensor):
        return output if name == "logits" else None
    return output.get(name) if isinstance(output, Mapping) else getattr(output, name, None)
