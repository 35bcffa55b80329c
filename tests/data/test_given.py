"""A DataLoader as given: the plain loop's batches and draws, resumed exactly."""

import random

import numpy as np
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from treadle import rng
from treadle.data import GivenLoader


class Noisy(Dataset):
    def __len__(self):
        return 11

    def __getitem__(self, index):
        return index, torch.rand(1), random.random(), np.random.rand()


class Stream(IterableDataset):
    def __iter__(self):
        return iter(range(7))


def generator():
    return torch.Generator().manual_seed(5)


def with_sampler():
    return DataLoader(
        Noisy(), 4, sampler=RandomSampler(Noisy(), generator=generator()), generator=generator()
    )


def with_batch_sampler():
    sampler = WeightedRandomSampler(torch.ones(11), 11, generator=generator())
    return DataLoader(Noisy(), batch_sampler=BatchSampler(sampler, 4, False))


MAKERS = {
    "global": lambda: DataLoader(Noisy(), 4, shuffle=True),
    "own": lambda: DataLoader(Noisy(), 4, shuffle=True, generator=generator()),
    "sampler": with_sampler,
    "batch sampler": with_batch_sampler,
    "in order": lambda: DataLoader(Noisy(), 4),
    "two workers": lambda: DataLoader(Noisy(), 4, shuffle=True, num_workers=2),
}


def equal(first, second):
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    return len(first) == len(second) and all(map(equal, first, second))


def train(iterator, batches, count=None):
    """A loop that draws between batches, as dropout does; what it sees, draws, and the state after each."""
    seen = []
    for number, batch in enumerate(iterator):
        seen.append([batch, torch.rand(1), torch.tensor(random.random())])
        if number + 1 == count:
            break
    return seen


@pytest.mark.parametrize("kind", MAKERS)
def test_batches_and_draws_are_those_of_the_plain_loop(kind):
    rng.seed_all(7)
    plain = MAKERS[kind]()
    expected = [train(plain, None) for _ in range(2)]
    rng.seed_all(7)
    batches = GivenLoader(MAKERS[kind]()).open(0)
    assert equal([train(batches.iterate(epoch), batches) for epoch in range(2)], expected)
    assert batches.length == 3
    assert batches.num_samples == 11


@pytest.mark.parametrize("kind", MAKERS)
def test_resuming_at_every_cut(kind):
    for cut in (0, 1, 2, 3) if kind != "two workers" else (2,):
        rng.seed_all(7)
        batches = GivenLoader(MAKERS[kind]()).open(0)
        train(batches.iterate(0), batches)
        iterator = batches.iterate(1)
        train(iterator, batches, cut) if cut else None
        data, generators = batches.state_dict(), rng.capture()
        rest = train(iterator, batches)
        after = train(batches.iterate(2), batches)

        rng.seed_all(99)
        resumed = GivenLoader(MAKERS[kind]()).open(0)
        resumed.load_state_dict(data)
        rng.restore(generators)
        assert equal(train(resumed.iterate(1, cut), resumed), rest)
        assert equal(train(resumed.iterate(2), resumed), after)


def test_a_second_resume_from_a_resumed_run():
    rng.seed_all(7)
    batches = GivenLoader(MAKERS["own"]()).open(0)
    whole = list(batches.iterate(0))
    for cut in (1, 2):
        resumed = GivenLoader(MAKERS["own"]()).open(0)
        resumed.load_state_dict(batches.state_dict())
        assert torch.equal(next(resumed.iterate(0, cut))[0], whole[cut][0])
        batches = resumed


def test_an_epoch_never_begun_cannot_be_entered():
    batches = GivenLoader(MAKERS["global"]()).open(0)
    assert batches.state_dict() == {}
    with pytest.raises(ValueError, match="cannot enter epoch 1 at batch 2"):
        list(batches.iterate(1, 2))


def test_distributed_samplers_are_told_the_epoch():
    dataset = TensorDataset(torch.arange(8))
    loaders = [DataLoader(dataset, 2, sampler=DistributedSampler(dataset, 2, rank)) for rank in range(2)]
    opened = [GivenLoader(loader).open(0, rank, 2) for rank, loader in enumerate(loaders)]
    orders = [
        [torch.cat([b[0] for b in batches.iterate(epoch)]).tolist() for batches in opened] for epoch in (0, 1)
    ]
    assert sorted(orders[0][0] + orders[0][1]) == list(range(8))
    assert orders[0] != orders[1]
    assert opened[0].num_samples == 8


def test_streams():
    batches = GivenLoader(DataLoader(Stream(), 3)).open(0)
    assert (batches.length, batches.num_samples) == (None, None)
    assert [batch.tolist() for batch in batches.iterate(0)] == [[0, 1, 2], [3, 4, 5], [6]]
    assert [batch.tolist() for batch in batches.iterate(0, 1)] == [[3, 4, 5], [6]]


def test_errors():
    with pytest.raises(TypeError, match="Tensor is not a torch DataLoader"):
        GivenLoader(torch.ones(3))
    with pytest.raises(ValueError, match="no batches"):
        GivenLoader(DataLoader(TensorDataset(torch.ones(0, 2)), 3))
    with pytest.raises(ValueError, match="no batches"):
        GivenLoader(DataLoader(TensorDataset(torch.ones(2)), 3, drop_last=True))
