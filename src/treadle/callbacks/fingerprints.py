"""Fingerprints of what each step saw and did, so that two runs can be compared to the bit."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor

from treadle.checkpoint import weights_sha256
from treadle.events import Callback
from treadle.state import State

ORDER, GRADIENT, WEIGHTS = "fingerprint/order", "fingerprint/gradient", "fingerprint/weights"


class Fingerprints(Callback):
    """Records three series: of the samples' numbers, the gradients and the weights of every n-th step.

    A fingerprint is the first 52 bits of a SHA-256, which a float holds exactly. It reads all gradients
    and weights from the device, so it is for finding out where two runs part, not for every run.

    Args:
        every: steps between two fingerprints.

    Raises:
        ValueError: `every` is less than 1.
    """

    order = 900.0

    def __init__(self, every: int = 1) -> None:
        if every < 1:
            raise ValueError(f"Fingerprints: every is {every}; it must be at least 1")
        self.every = every
        self._samples = hashlib.sha256()

    def on_step_start(self, state: State) -> None:
        """A new step: no samples yet."""
        self._samples = hashlib.sha256()

    def on_batch_start(self, state: State) -> None:
        """The values of the batch stand for its samples, whatever kind of data it comes from."""
        if state.current_step % self.every == 0:
            for tensor in _tensors(state.batch):
                self._samples.update(_bytes(tensor))

    def on_before_optimizer_step(self, state: State) -> None:
        """The gradients are complete."""
        if state.current_step % self.every == 0:
            gradients = {name: p.grad for name, p in state.task.named_parameters() if p.grad is not None}
            state.record(GRADIENT, number(weights_sha256(gradients)))

    def on_step_end(self, state: State) -> None:
        """The weights have moved."""
        if state.current_step % self.every == 0:
            state.record(ORDER, number(self._samples.hexdigest()))
            state.record(WEIGHTS, number(weights_sha256(state.task.state_dict())))


def number(digest: str) -> float:
    """The first 52 bits of a hexadecimal digest, exactly as a float."""
    return float(int(digest[:13], 16))


def _bytes(tensor: Tensor) -> bytes:
    plain = tensor.detach().cpu().contiguous()  # waits for the device
    return plain.reshape(-1).view(torch.uint8).numpy().tobytes() if plain.numel() else b""


def _tensors(tree: Any) -> list[Tensor]:
    if isinstance(tree, Tensor):
        return [tree]
    if isinstance(tree, dict):
        return [tensor for key in tree for tensor in _tensors(tree[key])]
    if isinstance(tree, (list, tuple)):
        return [tensor for part in tree for tensor in _tensors(part)]
    return []
