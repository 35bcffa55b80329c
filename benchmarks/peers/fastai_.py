"""fastai's Learner."""

from __future__ import annotations

from functools import partial

from fastai.callback import progress
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.metrics import accuracy
from fastai.optimizer import SGD
from torch import nn
from torch.nn import CrossEntropyLoss
from workload import LR, Batches, measure


class Ready(list):  # type: ignore[type-arg]
    """Batches made beforehand."""

    device = None

    def to(self, device: object) -> Ready:
        return self


def train(network: nn.Module, data: Batches, quiet: bool) -> None:
    loaders = DataLoaders(Ready(data), Ready(data[:1]))
    metrics = [] if quiet else [accuracy]
    learner = Learner(
        loaders, network, CrossEntropyLoss(), opt_func=partial(SGD, mom=0.0), lr=LR, metrics=metrics
    )
    if quiet:
        with learner.no_bar(), learner.no_logging():
            learner.fit(1)
    else:
        learner.fit(1)


if __name__ == "__main__":
    assert progress  # gives learners no_bar
    measure(
        "fastai", {"as it comes": lambda n, d: train(n, d, False), "quiet": lambda n, d: train(n, d, True)}
    )
