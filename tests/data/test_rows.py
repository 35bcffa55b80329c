"""Data in memory and Hugging Face datasets: whole batches, bit for bit those of a DataLoader."""

from collections import namedtuple

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset

from treadle.data import Loader

Sample = namedtuple("Sample", ["x", "y"])


def equal(first, second):
    if isinstance(first, torch.Tensor):
        return first.dtype == second.dtype and torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(equal(first[key], second[key]) for key in first)
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(equal, first, second))
    return first == second


def arrays(samples=13):
    x = torch.randn(samples, 4)
    return {
        "tensors": (x, torch.arange(samples)),
        "arrays": (x.numpy(), np.arange(samples)),
        "uint8": (torch.arange(samples, dtype=torch.uint8), np.arange(samples, dtype=np.uint8)),
        "dictionary": {"x": x, "y": {"label": torch.arange(samples), "weight": np.ones(samples, np.float16)}},
        "single": x,
    }


@pytest.mark.parametrize("kind", arrays())
@pytest.mark.parametrize("shuffle", [False, True])
def test_data_in_memory_equal_a_dataloader_bit_for_bit(kind, shuffle):
    data = arrays()[kind]

    class PerSample(Dataset):
        def __len__(self):
            return 13

        def __getitem__(self, index):
            def row(part):
                if isinstance(part, dict):
                    return {key: row(value) for key, value in part.items()}
                return tuple(map(row, part)) if isinstance(part, tuple) else part[index]

            return row(data)

    batches = Loader(data, 4, shuffle=shuffle).open(3)
    sampler = [batches.indices(1, number).tolist() for number in range(4)]
    expected = list(DataLoader(PerSample(), batch_sampler=sampler, generator=torch.Generator()))
    assert equal(list(batches.iterate(1)), expected)


def test_containers_are_kept():
    x, y = torch.randn(5, 2), torch.arange(5)
    assert isinstance(next(iter(Loader((x, y), 2))), tuple)
    assert isinstance(next(iter(Loader([x, y], 2))), tuple)
    assert isinstance(next(iter(Loader(TensorDataset(x, y), 2))), tuple)
    assert isinstance(next(iter(Loader(Sample(x, y), 2))), Sample)
    assert isinstance(next(iter(Loader(x, 2))), torch.Tensor)
    assert next(iter(Loader({"x": x, "name": list("abcde")}, 2)))["name"] == ["a", "b"]
    assert next(iter(Loader(([1, 2], [0.5, 1.5]), 2)))[0].tolist() == [1, 2]


def test_changing_a_batch_leaves_the_data_alone():
    x = torch.zeros(6, 2)
    read_only = np.zeros((6, 2))
    read_only.flags.writeable = False
    for loader in (
        Loader((x, read_only), 6),
        Loader((x, read_only), 6, transform=lambda s: (s[0].add_(1), s[1])),
    ):
        for batch in loader:
            batch[0].fill_(1)
            batch[1].fill_(1)
    assert x.sum() == 0
    assert read_only.sum() == 0


@pytest.mark.parametrize("order", [">f4", "<f4"])
def test_foreign_byte_orders_unusual_types_and_strides(order):
    x = np.arange(6).astype(order)
    batch = next(iter(Loader((x, np.arange(6, dtype=np.uint16), x[::-1]), 3)))
    assert batch[0].tolist() == [0, 1, 2]
    assert batch[1].dtype == torch.uint16
    assert batch[2].tolist() == [5, 4, 3]


class FakeHuggingFace:
    """As much of a Hugging Face dataset as is looked at."""

    def __init__(self, table, form=None):
        self.table, self.form = table, form
        self.format = {"type": form, "columns": list(table)}

    def __len__(self):
        return len(self.table["label"])

    def with_format(self, form, columns, dtype):
        assert (form, columns, dtype) == ("numpy", list(self.table), None)
        return FakeHuggingFace(self.table, form)

    def __getitem__(self, indices):
        assert self.form == "numpy"
        rows = {key: [value[index] for index in indices] for key, value in self.table.items()}
        return {key: np.array(value) if key in ("label", "nested") else value for key, value in rows.items()}


FakeHuggingFace.__module__ = "datasets.arrow_dataset"


def test_a_hugging_face_dataset_is_read_in_whole_batches_and_keeps_its_types():
    images = [np.full((2, 2), number, dtype=np.uint8) for number in range(5)]
    ragged = [np.arange(number) for number in range(5)]
    nested = [{"a": np.array(number)} for number in range(5)]
    table = {
        "image": images,
        "label": list(range(5)),
        "text": list("abcde"),
        "ragged": ragged,
        "nested": nested,
    }
    batches = Loader(FakeHuggingFace(table), 2, shuffle=True).open(0)
    batch, chosen = next(batches.iterate(0)), batches.indices(0, 0).tolist()
    assert batch["image"].dtype == torch.uint8
    assert batch["image"][:, 0, 0].tolist() == chosen
    assert batch["label"].tolist() == batch["nested"]["a"].tolist() == chosen
    assert batch["text"] == ["abcde"[number] for number in chosen]
    assert [len(row) for row in batch["ragged"]] == chosen
    empty = next(Loader(FakeHuggingFace(table), 1).open(0, rank=0, world_size=2).iterate(0))
    assert empty["image"].shape == (0, 2, 2)
    assert empty["text"] == []
    sample = next(iter(Loader(FakeHuggingFace(table), 1, transform=lambda s: (s["text"], s["nested"]["a"]))))
    assert sample[0] == ("a",)
