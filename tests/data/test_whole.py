"""A DataLoader over data in memory: its batches gathered whole are those it makes itself, to the bit."""

from typing import Any

import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    RandomSampler,
    Sampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    default_collate,
)

from treadle.data import GivenLoader
from treadle.data.whole import whole_batches

X = torch.arange(33.0).reshape(11, 3)
DATA = TensorDataset(X, torch.arange(11), torch.arange(11, dtype=torch.uint8))


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(5)


def with_nan() -> TensorDataset:
    values = X.clone()
    values[0, 1] = values[10, 0] = float("nan")
    return TensorDataset(values)


def huggingface(format: str | None) -> Any:
    datasets = pytest.importorskip("datasets")
    columns = {
        "index": list(range(11)),
        "half": [n / 2 for n in range(11)],
        "name": [f"n{n}" for n in range(11)],
    }
    return datasets.Dataset.from_dict(columns).with_format(format)


MADE = {
    "in order": lambda: DataLoader(DATA, 4),
    "shuffled by the global generator": lambda: DataLoader(DATA, 4, shuffle=True),
    "shuffled by its own": lambda: DataLoader(DATA, 4, shuffle=True, generator=generator()),
    "dropping the last": lambda: DataLoader(DATA, 4, shuffle=True, drop_last=True),
    "two workers": lambda: DataLoader(DATA, 4, shuffle=True, num_workers=2),
    "weighted": lambda: DataLoader(DATA, 4, sampler=WeightedRandomSampler(torch.ones(11), 20)),
    "with replacement": lambda: DataLoader(DATA, 4, sampler=RandomSampler(DATA, True, 9)),
    "a random subset": lambda: DataLoader(DATA, 4, sampler=SubsetRandomSampler([8, 1, 5])),
    "a list as batch sampler": lambda: DataLoader(DATA, batch_sampler=[[3, -1], [0], [7, 7, 2]]),
    "its own batch sampler": lambda: DataLoader(
        DATA, batch_sampler=BatchSampler(RandomSampler(DATA, generator=generator()), 3, True)
    ),
    "a part": lambda: DataLoader(Subset(DATA, [9, 2, 4, -1]), 3, shuffle=True),
    "a part of a part": lambda: DataLoader(Subset(Subset(DATA, [9, 2, 4, 6]), [3, 0, 1]), 2),
    "not a number": lambda: DataLoader(with_nan(), 4, shuffle=True),
    "Hugging Face": lambda: DataLoader(huggingface(None), 4, shuffle=True),
    "Hugging Face in torch's format": lambda: DataLoader(huggingface("torch"), 4, shuffle=True),
}


@pytest.mark.parametrize("made", MADE)
def test_it_gives_the_same_batches_and_draws_the_same(made: str) -> None:
    plain, given = MADE[made](), MADE[made]()
    whole = whole_batches(given)
    assert whole is not given
    assert whole.num_workers == 0
    for _ in range(2):
        torch.manual_seed(3)
        expected = list(plain)
        after = torch.get_rng_state()
        torch.manual_seed(3)
        batches = list(whole)
        assert torch.equal(torch.get_rng_state(), after)
        check_same(batches, expected)


def check_same(one: Any, other: Any) -> None:
    assert type(one) is type(other)
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            check_same(one[key], other[key])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            check_same(a, b)
    else:
        assert one == other


class Doubled(TensorDataset):
    def __getitem__(self, index: int) -> Any:
        return tuple(2 * value for value in super().__getitem__(index))


class Lazy(Sampler[int]):
    """Draws whenever it is asked, from the generator that training draws from too."""

    def __iter__(self) -> Any:
        return (int(torch.randint(11, ())) for _ in range(11))

    def __len__(self) -> int:
        return 11


OTHERS = {
    "a collate function": lambda: DataLoader(DATA, 4, collate_fn=lambda samples: default_collate(samples)),
    "a dataset of somebody's own": lambda: DataLoader(Doubled(X), 4),
    "no batches": lambda: DataLoader(DATA, batch_size=None),
    "workers that stay": lambda: DataLoader(DATA, 4, num_workers=1, persistent_workers=True),
    "workers that are seeded": lambda: DataLoader(DATA, 4, num_workers=1, worker_init_fn=print),
    "a sampler that draws as it goes, asked ahead": lambda: DataLoader(
        DATA, 4, sampler=Lazy(), num_workers=1
    ),
    "a list": lambda: DataLoader([1, 2, 3], 2),
}


@pytest.mark.parametrize("other", OTHERS)
def test_anything_else_is_read_as_it_is(other: str) -> None:
    loader = OTHERS[other]()
    assert whole_batches(loader) is loader


def test_samples_that_collate_otherwise_are_read_as_they_are() -> None:
    datasets = pytest.importorskip("datasets")
    lists = datasets.Dataset.from_dict({"pair": [[1, 2], [3, 4], [5, 6]]})  # collated: a list by position
    loader = DataLoader(lists, 2)
    assert whole_batches(loader) is loader


def test_no_sample_is_collated_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    reads = []
    read = TensorDataset.__getitem__
    monkeypatch.setattr(TensorDataset, "__getitem__", lambda self, i: reads.append(i) or read(self, i))
    batches = GivenLoader(DataLoader(DATA, 4, shuffle=True)).open(0)
    del reads[:]
    assert sum(len(batch[0]) for epoch in range(3) for batch in batches.iterate(epoch)) == 33
    assert not reads


def test_a_batch_shares_no_memory_with_the_data() -> None:
    data = TensorDataset(X.clone())
    for batch in GivenLoader(DataLoader(data, 4)).open(0).look():
        batch[0].zero_()
    assert torch.equal(data.tensors[0], X)
