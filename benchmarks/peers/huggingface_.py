"""Hugging Face's Trainer."""

from __future__ import annotations

import tempfile
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments
from transformers.utils import logging
from workload import BATCH, LR, Batches, measure

logging.set_verbosity_error()


class Wrapped(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: Any, labels: Any) -> dict[str, Any]:
        output = self.network(inputs)
        return {"loss": cross_entropy(output, labels), "logits": output}


class Rows(Dataset[Any]):
    """Whole batches at once: the data path is not what is measured."""

    def __init__(self, data: Batches) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, number: int) -> Any:
        return self.data[number]


class InOrder(Trainer):
    def _get_train_sampler(self, *_: Any) -> Any:
        return torch.utils.data.SequentialSampler(self.train_dataset)


def collate(samples: list[Any]) -> dict[str, Any]:
    return {"inputs": samples[0][0], "labels": samples[0][1]}


def train(network: nn.Module, data: Batches, **options: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            num_train_epochs=1,
            per_device_train_batch_size=1,
            learning_rate=LR,
            lr_scheduler_type="constant",
            max_grad_norm=0.0,
            use_cpu=True,
            report_to="none",
            remove_unused_columns=False,
            **options,
        )
        optimizer = torch.optim.SGD(network.parameters(), lr=LR)
        InOrder(
            Wrapped(network),
            arguments,
            data_collator=collate,
            train_dataset=Rows(data),
            optimizers=(optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)),
        ).train()


def as_it_comes(network: nn.Module, data: Batches) -> None:
    train(network, data)


def quiet(network: nn.Module, data: Batches) -> None:
    train(network, data, disable_tqdm=True, save_strategy="no", logging_strategy="no")


if __name__ == "__main__":
    assert BATCH
    measure("transformers", {"as it comes": as_it_comes, "quiet": quiet})
