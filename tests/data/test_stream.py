"""Streams: batches in the stream's own order, resumed, shared by ranks and workers, never twice."""

import random

import pytest
import torch
from torch.utils.data import IterableDataset, get_worker_info

from treadle import rng
from treadle.data import Loader, batch_items


class Count(IterableDataset):
    """Distinguishable samples, with noise; shards itself by worker as the documentation of torch shows it."""

    def __init__(self, samples=11):
        self.samples = samples
        self.epoch = 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __iter__(self):
        info = get_worker_info()
        step = 1 if info is None else info.num_workers
        for number in range(0 if info is None else info.id, self.samples, step):
            yield self.epoch * 100 + number, random.random(), torch.rand(2)


class Sized(Count):
    def __len__(self):
        return self.samples


class Stateful(Count):
    """Says what it reads, and goes on from its state."""

    def __init__(self, samples=11):
        super().__init__(samples)
        self.position = 0
        self.begin = 0
        self.read = []

    def __iter__(self):
        begin, self.begin = self.begin, 0
        for number in range(begin, self.samples):
            self.position = number + 1
            self.read.append(number)
            yield number, torch.rand(1)

    def state_dict(self):
        return {"position": self.position}

    def load_state_dict(self, state):
        self.begin = state["position"]


def generate():
    for number in range(11):
        yield number, random.random(), torch.rand(2)


def numbers(batches):
    return [batch[0].tolist() for batch in batches]


def same(first, second):
    return len(first) == len(second) and all(
        all(torch.equal(a, b) for a, b in zip(*pair, strict=True)) for pair in zip(first, second, strict=True)
    )


def epoch_of(loader, epoch=0, start=0, **options):
    return list(loader.open(3, **options).iterate(epoch, start))


class Reiterable:
    def __iter__(self):
        return generate()


@pytest.mark.parametrize("dataset", [generate, Reiterable(), Count(), Sized(), lambda: list(generate())])
def test_any_stream_in_its_own_order_resumed_at_every_cut(dataset):
    loader = Loader(dataset, 4)
    state = torch.get_rng_state(), random.getstate()
    for epoch in (0, 1):
        whole = epoch_of(loader, epoch)
        assert [len(part) for part in numbers(whole)] == [4, 4, 3]
        for start in range(4):
            assert same(epoch_of(loader, epoch, start), whole[start:])
    assert numbers(epoch_of(loader.replace(drop_last=True))) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert torch.equal(torch.get_rng_state(), state[0])
    assert random.getstate() == state[1]


def test_epochs_differ_in_what_is_random():
    first, second = epoch_of(Loader(generate, 4), 0), epoch_of(Loader(generate, 4), 1)
    assert not torch.equal(first[0][2], second[0][2])
    assert numbers(epoch_of(Loader(Count(), 4), 2))[0] == [200, 201, 202, 203]


def test_lengths():
    batches = Loader(Count(), 4).open(0)
    assert (batches.length, batches.num_samples) == (None, None)
    with pytest.raises(TypeError, match="no length"):
        len(Loader(Count(), 4))
    sized = Loader(Sized(), 4, drop_last=True).open(0)
    assert (sized.length, sized.num_samples) == (2, 8)
    assert len(Loader(Sized(), 4)) == 3


@pytest.mark.parametrize("said", [10, 12])
def test_a_wrong_length_is_an_error(said):
    dataset = Sized()
    loader = Loader(dataset, 4)
    dataset.samples = said
    with pytest.raises(ValueError, match="says it has 11 samples but"):
        epoch_of(loader)


def test_workers_neither_repeat_nor_reorder():
    loader = Loader(Count(), 4, transform=lambda sample: (*sample, torch.rand(1)))
    whole = epoch_of(loader, 1)
    state = torch.get_rng_state()
    batches = loader.replace(workers=2).open(3)
    for start in range(3):
        assert same(list(batches.iterate(1, start)), whole[start:])
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_ranks_share_every_batch(world_size):
    loader = Loader(Count(), 5, transform=lambda sample: (*sample, torch.rand(1)))
    whole = epoch_of(loader)
    parts = [epoch_of(loader, rank=rank, world_size=world_size) for rank in range(world_size)]
    for number, batch in enumerate(whole):
        sizes = [batch_items(part[number]) for part in parts]
        assert max(sizes) - min(sizes) <= 1
        for column, values in enumerate(batch):
            assert torch.equal(torch.cat([part[number][column] for part in parts]), values)


def test_a_stateful_dataset_goes_on_from_its_state():
    whole = epoch_of(Loader(Stateful(), 4), 2)
    for cut in range(1, 4):
        batches = Loader(Stateful(), 4).open(3)
        iterator = batches.iterate(2)
        for _ in range(cut):
            next(iterator)
        state = batches.state_dict()
        dataset = Stateful()
        resumed = Loader(dataset, 4).open(3)
        resumed.load_state_dict(state)
        assert same(list(resumed.iterate(2, cut)), whole[cut:])
        assert dataset.read == list(range(cut * 4, 11))  # nothing is read again
        assert numbers(resumed.iterate(3)) == numbers(whole)


def test_without_a_matching_state_a_stateful_dataset_skips():
    resumed = Loader(Stateful(), 4).open(3)
    assert resumed.state_dict() == {}
    resumed.load_state_dict({"epoch": 0, "batch": 1, "dataset": {"position": 4}})
    assert numbers(resumed.iterate(0, 2)) == [[8, 9, 10]]


def test_what_can_be_read_once_is_an_error_the_second_time():
    batches = Loader(generate(), 4).open(0)
    assert len(list(batches.iterate(0))) == 3
    with pytest.raises(ValueError, match="generator can be read only once, and epoch 1 reads it again"):
        batches.iterate(1)

    class Once:
        def __init__(self):
            self.iterator = generate()

        def __iter__(self):
            return self.iterator

    batches = Loader(Once(), 4).open(0)
    list(batches.iterate(0))
    with pytest.raises(ValueError, match=r"Once.*gave no samples in epoch 1"):
        list(batches.iterate(1))


def test_without_seeding_a_stream_draws_as_in_a_plain_loop():
    rng.seed_all(1)
    expected = [sample[1] for sample in generate()]
    rng.seed_all(1)
    assert [
        value for batch in Loader(generate, 4, seed_samples=False) for value in batch[1].tolist()
    ] == expected
    state = torch.get_rng_state()
    next(iter(Loader(generate, 20, seed_samples=False).open(0).iterate(0)))
    assert not torch.equal(torch.get_rng_state(), state)


def test_errors():
    with pytest.raises(ValueError, match="no order to shuffle"):
        Loader(generate, 4, shuffle=True)
    with pytest.raises(ValueError, match="gave no samples in epoch 0"):
        epoch_of(Loader(lambda: [], 4))
    with pytest.raises(ValueError, match="has 0 samples"):
        Loader(Sized(0), 4)
    with pytest.raises(TypeError, match="Count is a class; give an instance"):
        Loader(Count, 4)

    def broken():
        yield 1
        raise OSError("gone")

    with pytest.raises(OSError, match="gone") as caught:
        epoch_of(Loader(broken, 4))
    assert "sample 1 of a stream in epoch 0" in caught.value.__notes__[0]
