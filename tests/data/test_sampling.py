"""Weighted draws and batches of similar length: distributed as said, and the same however carried out."""

import copy
from collections import Counter

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import Dataset, IterableDataset, Subset

import treadle
from treadle.data import Loader, batch_items
from treadle.data.sampling import Draws, Grouped

WEIGHTS = np.array([0.0, 1.0, 2.0, 0.5, 4.0, 0.0, 1.5, 3.0, 0.0])
PINNED = [7, 3, 2, 7, 7, 4, 7, 7]


class Noisy(Dataset):
    """Distinguishable samples with noise of their own."""

    def __len__(self):
        return len(WEIGHTS)

    def __getitem__(self, index):
        return index, torch.rand(3)


def equal(first, second):
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    return len(first) == len(second) and all(map(equal, first, second))


def epoch_of(loader, epoch=0, start=0, **options):
    batches = loader.open(3, **options)
    try:
        return list(batches.iterate(epoch, start))
    finally:
        batches.close()


def chi_square(counts, expected):
    return float(((counts - expected) ** 2 / expected).sum())


@pytest.mark.parametrize("seed", range(8))
def test_samples_are_drawn_with_their_probabilities(seed):
    drawn = Draws(WEIGHTS.cumsum(), seed, epoch=2).indices(0, 50_000)
    counts = np.bincount(drawn, minlength=len(WEIGHTS))
    some = WEIGHTS > 0
    assert counts[~some].sum() == 0
    expected = 50_000 * WEIGHTS[some] / WEIGHTS.sum()
    assert 0.5 < chi_square(counts[some], expected) < 18.5  # 5 degrees of freedom: 0.8 % below, 0.24 % above


@pytest.mark.parametrize("lag", [1, 2, 7, 64])
def test_draws_of_neighbouring_positions_and_epochs_are_independent(lag):
    cumulative = np.ones(10).cumsum()
    drawn = Draws(cumulative, 1, 0).indices(0, 100_000)
    other = Draws(cumulative, 1, lag).indices(0, 100_000)
    for first, second in ((drawn[:-lag], drawn[lag:]), (drawn, other)):
        table = np.bincount(first * 10 + second, minlength=100)
        assert chi_square(table, len(first) / 100) < 148.3  # 99 degrees of freedom: 0.1 % above


def test_uniform_draws_leave_out_as_many_as_chance_does():
    drawn = Draws(np.ones(100_000).cumsum(), 5, 1).indices(0, 100_000)
    assert abs(len(np.unique(drawn)) / 100_000 - (1 - np.exp(-1))) < 0.005


def test_any_piece_equals_the_piece_of_the_whole():
    draws = Draws(WEIGHTS.cumsum(), 7, 3)
    whole = draws.indices(0, 1000)
    for start, stop in ((0, 0), (0, 1), (499, 731), (999, 1000), (1000, 1000)):
        assert np.array_equal(draws.indices(start, stop), whole[start:stop])


def test_the_draws_of_a_seed_never_change():
    """Resuming an old run depends on it."""
    assert Draws(WEIGHTS.cumsum(), 0, 0).indices(0, 8).tolist() == PINNED


def test_the_ends_of_the_weights_are_met_exactly():
    for weights in ([0, 0, 1], [1, 0, 0], [0, 1, 0], [1e-300], [1e300, 1e300]):
        drawn = Draws(np.array(weights, dtype=float).cumsum(), 1, 1).indices(0, 1000)
        assert all(weights[index] for index in set(drawn.tolist()))


@pytest.mark.parametrize("data", [Noisy(), (torch.arange(9), torch.randn(9, 2))])
@pytest.mark.parametrize("samples", [None, 4, 31])
def test_cuts_ranks_and_workers_change_nothing(data, samples):
    loader = Loader(data, 4, weights=WEIGHTS, samples=samples, seed=5)
    assert loader.num_samples == (samples or 9)
    for epoch in (0, 2):
        whole = epoch_of(loader, epoch)
        assert len(whole) == len(loader) == -(-(samples or 9) // 4)
        for start in range(len(whole) + 1):
            assert equal(epoch_of(loader, epoch, start), whole[start:])
        for world_size in (1, 2, 3):
            parts = [epoch_of(loader, epoch, rank=rank, world_size=world_size) for rank in range(world_size)]
            for number, batch in enumerate(whole):
                assert max(sizes := [batch_items(part[number]) for part in parts]) - min(sizes) <= 1
                assert equal(
                    [torch.cat([part[number][column] for part in parts]) for column in (0, 1)], batch
                )
        opened = loader.open(0)
        assert [opened.indices(epoch, number).tolist() for number in range(len(whole))] == [
            batch[0].tolist() for batch in whole
        ]
    assert not equal(epoch_of(loader, 0)[0][0], epoch_of(loader, 1)[0][0])


@pytest.mark.parametrize("seed_samples", [True, False])
def test_workers_change_nothing(seed_samples):
    loader = Loader(Noisy(), 4, weights=WEIGHTS, samples=31, seed_samples=seed_samples, workers=2)
    batches = loader.open(3)
    for epoch in (0, 1):
        whole = epoch_of(loader.replace(workers=0 if seed_samples else 1), epoch)
        assert equal(list(batches.iterate(epoch)), whole)
        assert equal(list(batches.iterate(epoch, 3)), whole[3:])
    batches.close()


@pytest.mark.parametrize(
    "loader",
    [
        Loader(Noisy(), 8, weights=WEIGHTS, samples=64),
        Loader(Subset(Noisy(), range(9)), 8, weights=WEIGHTS, samples=64),
        Loader(
            torch.arange(9), 8, weights=WEIGHTS, samples=64, transform=lambda number: (number, torch.rand(3))
        ),
    ],
)
def test_a_sample_drawn_twice_is_augmented_twice(loader):
    drawn = [
        (int(i), tuple(noise.tolist())) for batch in epoch_of(loader) for i, noise in zip(*batch, strict=True)
    ]
    assert len({index for index, _ in drawn}) <= 6
    assert len(set(drawn)) == 64


def test_looked_at_in_order_every_sample_is_there_once():
    loader = Loader(torch.arange(9), 4, weights=WEIGHTS, samples=31, shuffle=True, drop_last=True)
    assert torch.cat(list(loader.in_order())).tolist() == list(range(9))
    trainer = treadle.Trainer(max_epochs=1, seed=0, progress=False, run_dir=None)
    model = torch.nn.Embedding(9, 2)
    assert torch.equal(trainer.predict(treadle.SupervisedTask(model), loader), model.weight)


def test_classes_are_balanced_by_one_line():
    labels = torch.tensor([0] * 900 + [2] * 90 + [5] * 10)
    loader = Loader(
        (torch.zeros(1000, 1), labels), 100, weights=1 / torch.bincount(labels)[labels], samples=6000
    )
    counts = Counter(int(label) for _, batch in loader for label in batch)
    assert set(counts) == {0, 2, 5}
    assert chi_square(np.array(list(counts.values())), np.full(3, 2000.0)) < 9.2  # 1 %


def test_a_resumed_run_draws_on(tmp_path):
    """Stopped in the midst of an epoch, on the batch it would have had next."""
    x, labels = torch.randn(40, 4), torch.arange(40) % 3
    loader = Loader((x, labels), 4, weights=torch.rand(40), samples=36)
    model = torch.nn.Linear(4, 3)

    def run(folder, stops=None, **options):
        class Stop(treadle.Callback):
            def on_step_end(self, state):
                if state.progress.step == stops:
                    state.interrupt("enough")

        task = treadle.SupervisedTask(copy.deepcopy(model), cross_entropy)
        trainer = treadle.Trainer(max_epochs=3, seed=0, progress=False, run_dir=folder, callbacks=[Stop()])
        return trainer.fit(task, loader, **options)

    whole = run(tmp_path / "whole")
    with pytest.raises(SystemExit):
        run(tmp_path / "cut", stops=13)
    assert run(tmp_path / "cut", resume="last").weights_sha256 == whole.weights_sha256


@pytest.mark.parametrize(
    ("weights", "samples", "kind", "message"),
    [
        ([1.0] * 8, None, ValueError, r"weights has shape \(8,\); the dataset needs one a sample, \(9,\)"),
        (torch.ones(9, 1), None, ValueError, r"weights has shape \(9, 1\)"),
        ([1.0, -1.0, *[1.0] * 7], None, ValueError, r"weights has -1\.0 for sample 1; allowed are finite"),
        ([1.0] * 8 + [float("nan")], None, ValueError, "weights has nan for sample 8"),
        ([float("inf")] + [1.0] * 8, None, ValueError, "weights has inf for sample 0"),
        ([0] * 9, None, ValueError, r"the weights add up to 0\.0"),
        ([1e308] * 9, None, ValueError, "the weights add up to inf"),
        (["a"] * 9, None, TypeError, "weights is a list; allowed are a tensor, array or list"),
        ("balanced", None, TypeError, "weights is a str"),
        ([1.0] * 9, 0, ValueError, "samples is 0; allowed are whole numbers from 1"),
        ([1.0] * 9, 2.5, TypeError, r"samples is 2\.5 \(float\)"),
        ([1.0] * 9, 3, ValueError, "drop_last leaves no batch of 3 samples with batch_size 4"),
        (None, 5, ValueError, "samples is 5, but there are no weights"),
    ],
)
def test_weights_that_do_not_fit_are_refused(weights, samples, kind, message):
    with pytest.raises(kind, match=f"^Loader: .*{message}"):
        Loader(torch.arange(9), 4, weights=weights, samples=samples, drop_last=True)


def test_a_stream_has_nothing_to_weigh():
    class Stream(IterableDataset):
        def __iter__(self):
            yield from range(9)

    with pytest.raises(ValueError, match="weights is given, but the samples of a stream have no numbers"):
        Loader(Stream(), 4, weights=WEIGHTS)


def test_the_given_weights_can_change_afterwards():
    given = torch.tensor([0.0, 1.0])
    loader = Loader(torch.arange(2), 4, weights=given, samples=100)
    given[0] = 100.0
    assert torch.cat(list(loader)).unique().tolist() == [1]
    with pytest.raises(ValueError, match="read-only"):
        loader.weights[0] = 3.0


LENGTHS = np.random.default_rng(0).integers(1, 500, 1003)


@pytest.mark.parametrize("samples", [1, 3, 4, 5, 15, 16, 17, 399, 400, 401, 1003])
def test_grouped_every_sample_comes_once_and_any_piece_is_a_piece_of_the_whole(samples):
    grouped = Grouped(LENGTHS[:samples], 4, seed=1, epoch=2)
    whole = grouped.indices(0, samples)
    assert np.array_equal(np.sort(whole), np.arange(samples))
    for start in range(0, samples, 1 + samples // 40):
        for stop in {start, start + 1, min(samples, start + 4), min(samples, start + 300), samples}:
            assert np.array_equal(grouped.indices(start, stop), whole[start:stop])


def padding(orders):
    batches = [LENGTHS[order[first : first + 16]] for order in orders for first in range(0, 1003, 16)]
    return sum(batch.max() * len(batch) for batch in batches) / (len(orders) * LENGTHS.sum()) - 1


def test_grouped_batches_need_little_padding_and_keep_changing():
    grouped = [Grouped(LENGTHS, 16, 1, epoch).indices(0, 1003) for epoch in range(8)]
    shuffled = [treadle.data.Order(1003, 1, epoch).indices(0, 1003) for epoch in range(8)]
    assert padding(grouped) < 0.1
    assert padding(shuffled) > 0.8
    company = [
        set(order[np.flatnonzero(order == 7)[0] // 16 * 16 :][:16].tolist()) - {7} for order in grouped
    ]
    assert len(set.union(*company)) > 50
    first = [LENGTHS[order[:16]].mean() for order in grouped]
    assert max(first) - min(first) > 150  # long and short batches come in any order


def test_no_length_is_likelier_to_be_left_out():
    left = np.concatenate([Grouped(LENGTHS[:90], 16, 1, epoch).indices(80, 90) for epoch in range(400)])
    assert chi_square(np.bincount(left, minlength=90), 400 * 10 / 90) < 136  # 89 degrees of freedom: 0.1 %


@pytest.mark.parametrize("drop_last", [True, False])
def test_grouped_cuts_ranks_and_workers_change_nothing(drop_last):
    samples = [(number, torch.full((int(length),), number)) for number, length in enumerate(LENGTHS[:90])]

    def padded(rows):
        numbers, texts = zip(*rows, strict=True)
        return torch.tensor(numbers), torch.nn.utils.rnn.pad_sequence(texts, batch_first=True)

    loader = Loader(
        samples, 8, shuffle=True, drop_last=drop_last, collate=padded, lengths=torch.tensor(LENGTHS[:90])
    )
    whole = epoch_of(loader, 1)
    assert [len(numbers) for numbers, _ in whole] == [8] * 11 + [2] * (not drop_last)
    for start in range(len(whole) + 1):
        assert equal(epoch_of(loader, 1, start), whole[start:])
    assert equal(epoch_of(loader.replace(workers=2), 1), whole)
    for world_size in (2, 3):
        parts = [epoch_of(loader, 1, rank=rank, world_size=world_size) for rank in range(world_size)]
        for number, (numbers, _) in enumerate(whole):
            assert torch.equal(torch.cat([part[number][0] for part in parts]), numbers)
    assert torch.cat([numbers for numbers, _ in loader.in_order()]).tolist() == list(range(90))


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"lengths": [1] * 8}, ValueError, r"lengths has shape \(8,\)"),
        ({"lengths": [1] * 8 + [-1]}, ValueError, r"lengths has -1\.0 for sample 8"),
        ({"lengths": "long"}, TypeError, "lengths is a str"),
        ({"lengths": [1] * 9, "shuffle": False}, ValueError, "what is shuffled, but shuffle is False"),
        ({"lengths": [1] * 9, "weights": [1] * 9}, ValueError, "what is shuffled, but weights are given"),
    ],
)
def test_lengths_that_do_not_fit_are_refused(options, kind, message):
    with pytest.raises(kind, match=f"^Loader: .*{message}"):
        Loader(torch.arange(9), 4, **{"shuffle": True, **options})
