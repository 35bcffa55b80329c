"""Loaders for the splits of a data set."""

import pytest
import torch

from treadle.data import loaders


def test_a_dictionary_of_splits() -> None:
    splits = {name: (torch.arange(size), torch.arange(size)) for name, size in (("train", 9), ("test", 8))}
    made = loaders(splits, 4, seed=3)
    assert sorted(made) == ["test", "train"]
    assert [len(batch[0]) for batch in made["train"]] == [4, 4, 1]
    assert [len(batch[0]) for batch in made["test"]] == [8]
    order = torch.cat([batch[0] for batch in made["train"]])
    assert order.tolist() != sorted(order.tolist())
    assert torch.equal(next(iter(made["test"]))[0], torch.arange(8))
    with pytest.raises(ValueError, match="batch_size"):
        loaders(splits, 0)
