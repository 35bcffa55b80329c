"""A Loader gives the same batches however it is carried out."""

import random

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

from treadle import rng
from treadle.data import Batches, GivenLoader, Loader, Source, as_source, batch_items, num_batches


class Augmented(Dataset):
    """Distinguishable samples with noise from every generator; remembers what it was asked for."""

    def __init__(self, length=13):
        self.length = length
        self.asked = []

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        self.asked.append(index)
        return index, torch.rand(2) + index, random.random(), np.random.rand()


class Many(Augmented):
    def __getitems__(self, indices):
        self.asked.append(list(indices))
        return [(index, torch.rand(2)) for index in indices]


class Failing(Augmented):
    def __getitem__(self, index):
        if index == 7:
            raise OSError("unreadable")
        return index


def equal(first, second):
    if isinstance(first, torch.Tensor):
        return first.dtype == second.dtype and torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(equal(first[key], second[key]) for key in first)
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(equal, first, second))
    return first == second


def epoch_of(loader, epoch=0, start=0, **options):
    return list(loader.open(3, **options).iterate(epoch, start))


def test_a_subset_of_tensors_is_gathered_and_keeps_its_numbers():
    x = torch.arange(10)
    assert next(iter(Loader(Subset(TensorDataset(x), [7, 3, -1]), 3)))[0].tolist() == [7, 3, 9]
    whole, part = Augmented(10), Augmented(10)
    noise = {
        int(i): r for batch in epoch_of(Loader(whole, 5)) for i, r in zip(batch[0], batch[1], strict=True)
    }
    for batch in epoch_of(Loader(Subset(part, [7, 3, 9]), 2)):
        assert all(torch.equal(noise[int(i)], r) for i, r in zip(batch[0], batch[1], strict=True))
    with pytest.raises(ValueError, match="outside its dataset of 10"):
        Loader(Subset(TensorDataset(x), [10]), 1)


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("data", [Augmented(), (torch.arange(13), torch.randn(13))])
def test_resuming_at_every_cut(data, drop_last):
    loader = Loader(data, 4, shuffle=True, drop_last=drop_last)
    for epoch in (0, 3):
        whole = epoch_of(loader, epoch)
        assert len(whole) == len(loader) == num_batches(13, 4, drop_last)
        for start in range(len(whole) + 1):
            assert equal(epoch_of(loader, epoch, start), whole[start:])


def test_entering_an_epoch_touches_no_sample_before():
    dataset = Augmented(1000)
    batches = Loader(dataset, 10, shuffle=True).open(0)
    next(batches.iterate(2, start=90))
    assert dataset.asked == batches.indices(2, 90).tolist()


@pytest.mark.parametrize("world_size", [2, 3, 5])
@pytest.mark.parametrize("make", [Augmented, lambda: (torch.arange(13), torch.randn(13, 2))])
def test_ranks_share_every_batch(make, world_size):
    loader = Loader(make(), 4, shuffle=True)
    whole = epoch_of(loader, 1)
    parts = [epoch_of(loader, 1, rank=rank, world_size=world_size) for rank in range(world_size)]
    for number, batch in enumerate(whole):
        sizes = [batch_items(part[number]) for part in parts]
        assert max(sizes) - min(sizes) <= 1
        for column, values in enumerate(batch):
            assert equal(torch.cat([part[number][column] for part in parts]), values)
    opened = loader.open(3, rank=0, world_size=world_size)
    assert opened.num_samples == 13


def test_a_rank_without_a_share_of_things_without_tensors_gets_none():
    loader = Loader([{"a": "x"}], 1, collate=lambda samples: samples)
    assert epoch_of(loader, rank=0, world_size=2) == [None]
    assert epoch_of(loader, rank=1, world_size=2) == [[{"a": "x"}]]


def test_workers_change_nothing():
    loader = Loader(Augmented(), 4, shuffle=True, transform=lambda sample: (*sample, torch.rand(1)))
    rng.seed_all(5)
    state = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    whole = [epoch_of(loader, epoch) for epoch in (0, 1)]
    batches = loader.replace(workers=2).open(3)
    assert equal([list(batches.iterate(epoch)) for epoch in (0, 1)], whole)
    assert equal(list(batches.iterate(1, 2)), whole[1][2:])
    abandoned = batches.iterate(0)
    next(abandoned)
    beside = batches.iterate(1)  # two epochs read at once do not disturb each other
    assert equal(next(beside), whole[1][0])
    assert equal(next(abandoned), whole[0][1])
    abandoned.close()
    assert equal(list(beside), whole[1][1:])
    assert equal(list(batches.iterate(0)), whole[0])
    batches.close()
    assert torch.equal(torch.get_rng_state(), state[0])
    assert random.getstate() == state[1]
    assert np.random.get_state()[1].tolist() == state[2]


def test_augmentation_is_seeded_by_sample_and_epoch():
    noise = {}
    for epoch in (0, 1):
        for batch in epoch_of(Loader(Augmented(), 4, shuffle=True), epoch):
            noise.update({(epoch, int(i)): r for i, r in zip(batch[0], batch[1], strict=True)})
    assert len({tuple((r - key[1]).tolist()) for key, r in noise.items()}) == 26
    for batch in epoch_of(Loader(Augmented(), 5, shuffle=False), 1):
        assert all(torch.equal(noise[1, int(i)], r) for i, r in zip(batch[0], batch[1], strict=True))


def test_without_seeding_samples_draw_as_in_a_plain_loop():
    rng.seed_all(1)
    expected = list(DataLoader(Augmented(), 4, generator=torch.Generator()))
    rng.seed_all(1)
    assert equal(list(Loader(Augmented(), 4, seed_samples=False)), expected)


def test_a_dataset_with_getitems_is_asked_once_a_batch():
    dataset = Many()
    batches = Loader(dataset, 4, shuffle=True).open(3)
    whole = list(batches.iterate(0))
    assert dataset.asked == [batches.indices(0, number).tolist() for number in range(4)]
    assert equal(list(batches.iterate(0, 2)), whole[2:])


def test_transform_and_collate_of_data_in_memory():
    x, y = torch.arange(6.0), torch.arange(6)
    batch = next(iter(Loader((x, y), 4, transform=lambda sample: (sample[0] * 2, sample[1]))))
    assert equal(batch, [x[:4] * 2, y[:4]])
    samples = next(iter(Loader({"x": x, "name": list("abcdef")}, 2, collate=list)))
    assert [(sample["x"].item(), sample["name"]) for sample in samples] == [(0.0, "a"), (1.0, "b")]
    loader = Loader(x, 4, shuffle=True, transform=lambda sample: sample + torch.rand(()))
    assert equal(epoch_of(loader, 2, 1), epoch_of(loader, 2)[1:])


def test_an_error_in_a_sample_names_it():
    with pytest.raises(OSError, match="unreadable") as caught:
        list(Loader(Failing(), 4))
    assert "sample 7 in epoch 0" in caught.value.__notes__[0]
    batches = Loader(Failing(), 4, workers=1).open(0)
    with pytest.raises(OSError, match=r"(?s)unreadable.*sample 7 in epoch 0"):
        list(batches.iterate(0))
    batches.close()


def test_seeds():
    loader = Loader(torch.arange(50), 50, shuffle=True)
    assert not equal(list(loader.open(0).iterate(0)), list(loader.open(1).iterate(0)))
    own = loader.replace(seed=1)
    assert equal(list(own.open(0).iterate(0)), list(loader.open(1).iterate(0)))
    assert equal(list(own), list(loader.open(1).iterate(0)))
    assert equal(list(loader), list(loader.open(0).iterate(0)))


def test_a_loader_is_immutable():
    loader = Loader(torch.arange(5), 2)
    with pytest.raises(AttributeError, match=r"replace\(batch_size=3\)"):
        loader.batch_size = 3
    assert len(loader.replace(batch_size=3, drop_last=True)) == 1
    assert len(loader) == 3
    assert "batch_size=2" in repr(loader)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"batch_size": 0}, ValueError, "batch_size is 0; allowed are whole numbers from 1"),
        ({"batch_size": True}, TypeError, r"batch_size is True \(bool\)"),
        ({"batch_size": 2.0}, TypeError, r"batch_size is 2.0 \(float\)"),
        ({"workers": -1}, ValueError, "workers is -1; allowed are whole numbers from 0"),
        ({"prefetch": 0}, ValueError, "prefetch is 0"),
        ({"seed": -1}, ValueError, "seed is -1; allowed are whole numbers from 0 to 4294967295"),
        ({"shuffle": "yes"}, TypeError, "shuffle is 'yes'; allowed are True and False"),
        ({"collate": 3}, TypeError, "collate is 3; allowed are a function and None"),
        ({"drop_last": True, "batch_size": 9}, ValueError, "no batch of 5 samples with batch_size 9"),
        ({"dataset": torch.ones(0, 2)}, ValueError, "has 0 samples"),
        ({"dataset": []}, ValueError, "has 0 samples"),
        ({"dataset": ()}, ValueError, "an empty tuple holds no data"),
        ({"dataset": torch.tensor(1.0)}, ValueError, "without dimensions"),
        ({"dataset": (torch.ones(3), torch.ones(4))}, ValueError, "different lengths: 3, 4"),
        ({"dataset": (torch.ones(3), 4)}, TypeError, "int is not data"),
        ({"dataset": None}, TypeError, "NoneType is not a dataset"),
        ({"dataset": "train.csv"}, TypeError, "str is not a dataset"),
        ({"dataset": 5}, TypeError, "int is not a dataset"),
        (
            {"dataset": [torch.ones(3), torch.ones(4)]},
            ValueError,
            "and these have different shapes",
        ),
        ({"dataset": np.array(["2020-01-01"], dtype="datetime64[D]")}, TypeError, "cannot be a tensor"),
        ({"dataset": Loader(torch.ones(2), 1)}, TypeError, "Loader, which makes batches already"),
        ({"dataset": DataLoader(TensorDataset(torch.ones(2)))}, TypeError, "DataLoader, which makes batches"),
    ],
)
def test_wrong_arguments_are_clear_errors(arguments, error, text):
    with pytest.raises(error, match=rf"^Loader: .*{text}"):
        Loader(**{"dataset": torch.arange(5), "batch_size": 2, **arguments})


def test_wrong_positions_are_clear_errors():
    batches = Loader(torch.arange(5), 2).open(0)
    with pytest.raises(ValueError, match="batch is 4; allowed are 0 to 3"):
        batches.iterate(0, 4)
    with pytest.raises(ValueError, match="epoch is -1"):
        batches.iterate(-1)
    with pytest.raises(ValueError, match="rank is 2; allowed are 0 to 1"):
        Loader(torch.arange(5), 2).open(0, rank=2, world_size=2)


def test_anything_is_a_source():
    loader = Loader(torch.arange(5), 2)
    assert as_source(loader, batch_size=9) is loader
    assert isinstance(as_source(DataLoader(TensorDataset(torch.ones(2))), batch_size=9), GivenLoader)
    made = as_source((torch.ones(4), torch.ones(4)), batch_size=3, shuffle=True)
    assert (made.batch_size, made.shuffle, len(made)) == (3, True, 2)
    assert not as_source(lambda: iter([1]), batch_size=3, shuffle=True).shuffle
    with pytest.raises(TypeError, match=r"^val data: Loader: NoneType is not a dataset"):
        as_source(None, batch_size=3, name="val")


def test_the_base_classes_work():
    batches = Source([1, 2, 3]).open(0)
    assert isinstance(batches, Batches)
    assert batches.length == 3
    assert list(batches.iterate(5, 1)) == [2, 3]
    assert batches.indices(0, 0) is None
    assert batches.state_dict() == {}
