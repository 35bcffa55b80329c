"""Keras on torch."""

from __future__ import annotations

import os

os.environ["KERAS_BACKEND"] = "torch"

import keras
from torch import nn
from workload import LR, Batches, measure


def train(network: nn.Module, data: Batches, verbose: int) -> None:
    wrapped = keras.Sequential([keras.layers.TorchModuleWrapper(network)])
    wrapped.compile(
        optimizer=keras.optimizers.SGD(LR),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["sparse_categorical_accuracy"] if verbose else [],
        jit_compile=False,
    )
    wrapped.fit((batch for batch in data), steps_per_epoch=len(data), epochs=1, verbose=verbose)


if __name__ == "__main__":
    measure("keras", {"as it comes": lambda n, d: train(n, d, 1), "quiet": lambda n, d: train(n, d, 0)})
