"""Data in memory and Hugging Face datasets: whole batches, bit for bit those of a DataLoader."""

from collections import namedtuple

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset

import treadle
from treadle.data import Loader, as_source

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


@pytest.mark.parametrize("kind", ["tensors", "arrays"])
@pytest.mark.parametrize("length", [9, 40])
def test_a_list_holds_samples_as_for_a_dataloader(kind, length):
    samples = [torch.full((3, 2), float(number)) for number in range(length)]
    if kind == "arrays":
        samples = [sample.numpy() for sample in samples]
    assert equal(list(Loader(samples, 4)), list(DataLoader(samples, 4)))
    stacked = torch.stack([torch.as_tensor(sample) for sample in samples])
    assert equal(epoch_of(Loader(samples, 4, shuffle=True)), epoch_of(Loader(stacked, 4, shuffle=True)))
    columns = Loader((samples, torch.arange(length)), 4)  # a list within a tuple is a column of samples
    assert torch.equal(torch.cat([batch[0] for batch in columns]), stacked)
    assert [len(epoch_of(columns, rank=rank, world_size=2)[-1][0]) for rank in (0, 1)] == (
        [0, 1] if length == 9 else [2, 2]
    )


def epoch_of(loader, **options):
    return list(loader.open(3, **options).iterate(1))


@pytest.mark.parametrize("samples", [1, 2, 8, 9])
def test_a_list_with_a_collate_or_transform_of_its_own_holds_samples(samples):
    ragged = [torch.arange(20 + number) for number in range(samples)]
    loader = Loader(ragged, 4, collate=list)
    assert equal([row for batch in loader for row in batch], ragged)
    cut = Loader(ragged, 4, transform=lambda sample: sample[-20:] + 0)
    assert equal(torch.cat(list(cut)), torch.stack([row[-20:] for row in ragged]))
    same = [row[:20] for row in ragged]
    assert equal(torch.cat(list(Loader(same, 4, collate=torch.stack))), torch.stack(same))
    columns = Loader((ragged, list(range(samples))), 4, collate=list)
    assert [(len(row), number) for batch in columns for row, number in batch] == [
        (20 + number, number) for number in range(samples)
    ]
    alike = Loader({"row": same}, 4, collate=lambda rows: torch.stack([one["row"] for one in rows]))
    assert equal(torch.cat(list(alike)), torch.stack(same))


def test_a_short_list_that_may_be_meant_as_columns_is_read_as_samples_with_a_warning():
    tokens = [torch.randint(9, (6,)) for _ in range(2)]
    trainer = treadle.Trainer(max_epochs=1, seed=0, progress=False, run_dir=None)
    task = treadle.SupervisedTask(torch.nn.Embedding(9, 2))
    with pytest.warns(UserWarning, match=r"2 samples of shape \(6,\); give columns as a tuple") as seen:
        predicted = trainer.predict(task, tokens)
    assert len(seen) == 1
    assert torch.equal(predicted, task.model(torch.stack(tokens)))
    assert next(iter(Loader([torch.ones(3, 8, 8)] * 4, 4))).shape == (4, 3, 8, 8)  # no columns: three rows


@pytest.mark.parametrize(
    "data",
    [
        [torch.ones(5, 2), torch.arange(5)],
        [torch.ones(5), torch.arange(5)],
        [torch.ones(5), torch.ones(3), torch.ones(7)],
        [torch.ones(3, 8, 9), torch.ones(3, 9, 8)],
        [np.ones(5), np.ones(4)] * 20,
    ],
)
def test_a_list_that_cannot_be_joined_as_samples_is_an_error_that_names_both_ways(data):
    said = r"test data: Loader: a list holds samples.*columns as a tuple.*collate="
    with pytest.raises(ValueError, match=said):
        as_source(data, batch_size=4, name="test")
