"""Trees of tensors: moved, counted, cut and joined."""

from collections import OrderedDict, defaultdict, namedtuple
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.data.batch import batch_items, concatenate, map_tree, move, mover, split, take

Pair = namedtuple("Pair", ["first", "second"])


@dataclass
class Graph:
    nodes: torch.Tensor
    name: str = "g"
    built: int = field(default=0)

    def __post_init__(self):
        self.built += 1


def tree(items=5):
    x = torch.arange(items * 2.0).reshape(items, 2)
    names = [f"image-{number}.png" for number in range(items)]
    return {"x": x, "rest": [x + 1, (x + 2, Pair(x + 3, x + 4))], "graph": Graph(x + 5), "names": names}


def same(first, second):
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, np.ndarray):
        return np.array_equal(first, second)
    if isinstance(first, Graph):
        return same(first.nodes, second.nodes) and first.built == second.built
    if isinstance(first, dict):
        return type(first) is type(second) and all(same(first[key], second[key]) for key in first)
    if isinstance(first, (list, tuple)):
        lengths = len(first) == len(second) and type(first) is type(second)
        return lengths and all(map(same, first, second))
    return first == second


@dataclass
class Output(OrderedDict):
    """What Hugging Face models return: items that are attributes too, and leave out what is None."""

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None

    def __post_init__(self):
        for name in ("loss", "logits"):
            if getattr(self, name) is not None:
                self[name] = getattr(self, name)

    def __setitem__(self, key, value):
        super().__setitem__(key, value)
        super().__setattr__(key, value)

    def update(self, *args, **kwargs):
        raise RuntimeError("You cannot use ``update`` on a ModelOutput instance.")

    pop = setdefault = __delitem__ = update


@pytest.mark.parametrize("library", ["none", "transformers"])
def test_mappings_that_are_dataclasses(library):
    kind = Output
    if library != "none":
        reason = "Hugging Face transformers is not installed"
        kind = pytest.importorskip("transformers.modeling_outputs", reason=reason).SequenceClassifierOutput
    output = kind(logits=torch.arange(10.0).reshape(5, 2))
    for made in (
        map_tree(lambda leaf: leaf + 1, output),
        concatenate([take(map_tree(lambda leaf: leaf + 1, output), start, start + 2) for start in (0, 2, 4)]),
        concatenate(split(move(map_tree(lambda leaf: leaf + 1, output), "cpu"), 2)),
    ):
        assert type(made) is type(output)
        assert list(made) == ["logits"]
        assert made.loss is None
        assert torch.equal(made.logits, output.logits + 1)
        assert made["logits"] is made.logits
    assert output.logits[0, 0] == 0
    assert mover("meta")(output).logits.device.type == "meta"


def test_the_cpu_mover_hands_batches_back_untouched():
    batch = tree()
    assert mover("cpu")(batch) is batch


def test_moving_keeps_the_structure():
    assert same(move(tree(), "cpu"), tree())
    moved = mover("meta")(tree())
    assert moved["rest"][1][1].first.device.type == "meta"
    assert moved["graph"].nodes.device.type == "meta"
    assert isinstance(moved["rest"][1][1], Pair)
    assert moved["names"] == tree()["names"]


def test_what_can_move_itself_is_asked_to():
    packed = torch.nn.utils.rnn.pack_sequence([torch.ones(3), torch.ones(2)])
    assert move(packed, "meta").data.device.type == "meta"
    assert move((packed, 1), "cpu")[0].data.sum() == 5


def test_dictionary_subclasses_keep_what_they_are():
    counts = defaultdict(list, {"x": torch.ones(2)})
    assert map_tree(lambda leaf: leaf, counts).default_factory is list
    assert type(map_tree(lambda leaf: leaf, OrderedDict(x=1))) is OrderedDict
    assert list(counts) == ["x"]


@pytest.mark.parametrize(
    ("batch", "items"),
    [
        (torch.ones(3, 2), 3),
        ((torch.ones(4), torch.ones(4)), 4),
        ({"name": ["a", "b"], "x": [torch.ones(2)]}, 2),
        ((torch.tensor(0.5), {"x": torch.ones(7, 1)}), 7),
        (Graph(torch.ones(6)), 6),
        (torch.ones(0, 3), 0),
    ],
)
def test_items_are_the_leading_dimension_of_the_first_tensor_that_has_one(batch, items):
    assert batch_items(batch) == items


@pytest.mark.parametrize("batch", [[], None, {"a": "b"}, ["a", "b"], torch.tensor(1.0)])
def test_a_batch_without_items_is_a_clear_error(batch):
    with pytest.raises(ValueError, match=r"no tensor with a leading dimension; override Task\.num_items"):
        batch_items(batch)


@settings(max_examples=30, deadline=None)
@given(items=st.integers(1, 9), size=st.integers(1, 10))
def test_joining_undoes_cutting(items, size):
    parts = split(tree(items), size)
    assert all(part["graph"].built == 1 for part in parts)
    assert [batch_items(part) for part in parts[:-1]] == [size] * (len(parts) - 1)
    joined = concatenate(parts)
    assert isinstance(joined["graph"], Graph)
    joined["graph"].built = 1  # beside tensors there is one value for each part
    assert same(joined, tree(items))


def test_parts_are_views_and_share_what_has_no_items():
    x = torch.zeros(4, 2)
    parts = split((x, torch.tensor(3.0), "label", np.arange(4)), 3)
    parts[0][0].fill_(1)
    assert x.sum() == 6
    assert [part[1].item() for part in parts] == [3, 3]
    assert [part[2] for part in parts] == ["label", "label"]
    assert [part[3].tolist() for part in parts] == [[0, 1, 2], [3]]


def test_cutting_errors():
    with pytest.raises(ValueError, match="size is 0"):
        split(tree(), 0)
    with pytest.raises(ValueError, match=r"5 items: a tensor of shape \(4,\)"):
        split((torch.ones(5), torch.ones(4)), 2)


def test_no_items_of_a_batch():
    assert batch_items(take(tree(), 0, 0)) == 0
    assert take(tree(), 0, 0)["names"] == []


def test_joining_other_things():
    assert concatenate([torch.tensor(1), torch.tensor(2)]).tolist() == [1, 2]
    assert concatenate([(None, "a"), (None, "b")]) == (None, ["a", "b"])
    assert concatenate([{"n": [1, 2]}, {"n": [3]}]) == {"n": [1, 2, 3]}
    assert concatenate([np.ones(2), np.ones(1)]).shape == (3,)
    with pytest.raises(ValueError, match="nothing to join"):
        concatenate([])
    with pytest.raises(ValueError, match="structures differ: dict with keys"):
        concatenate([{"a": torch.ones(1)}, {"b": torch.ones(1)}])
    with pytest.raises(ValueError, match="lengths differ"):
        concatenate([(torch.ones(1),), (torch.ones(1), torch.ones(1))])
