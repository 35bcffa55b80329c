"""Trees go to disk and come back the same, to the bit and to the type."""

import json
import math
import struct
from collections import OrderedDict, defaultdict, namedtuple
from enum import IntEnum

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from treadle.checkpoint import CheckpointError, read, snapshot, write
from treadle.checkpoint.decode import decode
from treadle.checkpoint.tree import encode

DTYPES = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16),
    *(torch.int8, torch.uint64, torch.uint32, torch.uint16, torch.uint8, torch.bool),
    *(torch.complex64, torch.complex128, torch.float8_e4m3fn, torch.float8_e5m2),
]


def assert_same_tree(given_tree, loaded, path="tree"):
    if isinstance(given_tree, torch.Tensor):
        assert type(loaded) is torch.Tensor, path
        assert (given_tree.dtype, given_tree.shape) == (loaded.dtype, loaded.shape), path
        assert raw_bytes(given_tree) == raw_bytes(loaded), path
        return
    assert type(given_tree) is type(loaded), path
    if isinstance(given_tree, dict):
        assert list(map(type, given_tree)) == list(map(type, loaded)), path
        assert list(given_tree) == list(loaded), path
        for key in given_tree:
            assert_same_tree(given_tree[key], loaded[key], f"{path}.{key}")
    elif isinstance(given_tree, (list, tuple)):
        assert len(given_tree) == len(loaded), path
        for index, (one, other) in enumerate(zip(given_tree, loaded, strict=True)):
            assert_same_tree(one, other, f"{path}.{index}")
    elif isinstance(given_tree, float):
        assert struct.pack("d", given_tree) == struct.pack("d", loaded), path
    elif isinstance(given_tree, np.generic):
        assert given_tree.tobytes() == loaded.tobytes(), path
    else:
        assert given_tree == loaded, path


def raw_bytes(tensor):
    plain = torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor)
    return plain.reshape(-1).view(torch.uint8).numpy().tobytes()


@st.composite
def tensors(draw):
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(st.lists(st.integers(0, 4), max_size=3))
    count = math.prod(shape) * dtype.itemsize
    data = bytearray(draw(st.binary(min_size=count, max_size=count)))
    if dtype is torch.bool:
        data = bytearray(byte & 1 for byte in data)
    tensor = torch.frombuffer(data, dtype=dtype).reshape(shape) if count else torch.empty(shape, dtype=dtype)
    change = draw(st.sampled_from(["none", "transpose", "every second"]))
    if change == "transpose" and len(shape) > 1:
        return tensor.transpose(0, -1)
    if change == "every second" and shape:
        return tensor[::2]
    return tensor


numbers = st.integers() | st.integers(-(2**200), 2**200) | st.floats(allow_nan=True, allow_infinity=True)
texts = st.text(max_size=6) | st.sampled_from(
    ["$tensor", "$dict", "$", "__metadata__", "a.b", "\ud800", "\0"]
)
numpy_scalars = st.builds(np.float32, st.floats(width=32)) | st.builds(np.int16, st.integers(-9, 9))
leaves = st.none() | st.booleans() | numbers | texts | st.binary(max_size=5) | numpy_scalars | tensors()
keys = texts | st.integers() | st.booleans() | st.none() | st.tuples(st.integers(), texts)
trees = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(texts, inner, max_size=3)
        | st.dictionaries(keys, inner, max_size=3)
    ),
    max_leaves=12,
)


@settings(max_examples=250, deadline=None)
@given(trees)
def test_any_tree_survives_json(tree):
    skeleton, named = encode(tree)
    text = json.dumps(skeleton, allow_nan=False)
    assert_same_tree(tree, decode(json.loads(text), named))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(trees, st.dictionaries(texts, tensors() | st.binary(max_size=3), max_size=4))
def test_any_contents_survive_the_disk(tmp_path, tree, model):
    contents = {"tree": tree, "$marker": 1, "model": model}
    path = write(tmp_path, 1, contents)
    assert_same_tree(contents, read(path))


def test_a_tensor_of_every_kind_survives_the_disk(tmp_path):
    contents = {
        str(dtype): [
            torch.ones((), dtype=dtype),
            torch.ones(2, 3).to(dtype).T,
            torch.ones(1).to(dtype).expand(3),
            torch.empty(2, 0, dtype=dtype),
        ]
        for dtype in DTYPES
    }
    contents["one, strided"] = torch.arange(2.0)[::2][:1].reshape(1)
    contents["one of a column"] = torch.arange(6.0).reshape(3, 2)[1:2, 1:]
    contents["conjugate"] = torch.tensor([1 + 2j, 3 - 4j]).conj()
    contents["large"] = torch.arange(6_000_000, dtype=torch.int32)
    contents["large, transposed"] = torch.arange(6_000_000, dtype=torch.int32).reshape(3, -1).T
    contents["parameter"] = torch.nn.Parameter(torch.ones(2)).detach()
    assert_same_tree(contents, read(write(tmp_path, 1, contents)))


def test_channels_last_comes_back_as_it_lay(tmp_path):
    # A fused optimizer walks parameter and state by their memory: another order would be another result.
    image = torch.arange(120.0).reshape(2, 3, 4, 5).to(memory_format=torch.channels_last)
    loaded = read(write(tmp_path, 1, {"state": snapshot({"momentum": image})}))["state"]["momentum"]
    assert loaded.stride() == image.stride()
    assert torch.equal(loaded, image)


def test_subclasses_of_dict_come_back_as_dict():
    tree = {"ordered": OrderedDict(b=1, a=2), "default": defaultdict(int, {3: 4}), "size": torch.Size([1, 2])}
    assert decode(*encode(tree)) == {"ordered": {"b": 1, "a": 2}, "default": {3: 4}, "size": (1, 2)}


class Colour(IntEnum):
    RED = 1


Pair = namedtuple("Pair", "x y")


@pytest.mark.parametrize(
    "thing",
    [
        *(object(), {1}, 1j, np.zeros(2), Colour.RED, Pair(1, 2), print, np.str_("a"), bytearray(b"a")),
        *(torch.ones(2).to_sparse(), torch.ones(2, device="meta"), torch.nn.LazyLinear(2).weight),
    ],
    ids=lambda thing: type(thing).__name__,
)
def test_a_stranger_is_named_with_its_path(tmp_path, thing):
    contents = {"callbacks": {"EMA": {"thing": [0, thing]}}}
    for attempt in (lambda: write(tmp_path, 1, contents), lambda: snapshot(contents)):
        with pytest.raises(TypeError, match=r"^contents\.callbacks\.EMA\.thing\.1: "):
            attempt()
    assert not any(path.name.startswith("step") for path in tmp_path.iterdir())


def test_a_strange_key_is_named():
    with pytest.raises(TypeError, match=r"contents\.a: key frozenset\(\)"):
        encode({"a": {frozenset(): 1}})


def test_a_tree_inside_itself_is_refused(tmp_path):
    tree = {}
    tree["again"] = tree
    for attempt in (lambda: encode(tree), lambda: snapshot(tree)):
        with pytest.raises(ValueError, match="inside itself"):
            attempt()


@pytest.mark.parametrize(
    "skeleton",
    [
        {"$module": "os"},
        {"$tensor": "absent"},
        {"$tensor": ["a"]},
        {"$tensor": "a", "stride": [0]},
        {"$tensor": "a", "stride": [-1]},
        {"$tensor": "a", "stride": [2**62]},
        {"$tensor": "a", "complex": True},
        {"$tensor": "a", "device": "cuda"},
        {"$dict": [[1, 2], [1, 3]]},
        {"$dict": [[[], 2]]},
        {"$dict": {"a": 1}},
        {"$tuple": "abc"},
        {"$tuple": [], "x": 1},
        {"$int": "os.system"},
        {"$int": 3},
        {"$float": "00"},
        {"$numpy": ["object_", "00"]},
        {"$numpy": ["float64", "00"]},
        {"$bytes": 1},
        [{"$tensor": "a"}, {"$bytes": "a"}],
    ],
    ids=str,
)
def test_what_encode_never_writes_is_refused(skeleton):
    with pytest.raises(CheckpointError):
        decode({"used": {"$tensor": "b"}, "bad": skeleton}, {"a": torch.ones(3), "b": torch.ones(3)})


def test_depth_is_bounded_both_ways():
    nested = []
    for _ in range(150):
        nested = [nested]
    with pytest.raises(ValueError, match="nested deeper"):
        encode(nested)
    with pytest.raises(CheckpointError, match="nested deeper"):
        decode(nested, {})


def test_a_tensor_nobody_mentions_is_refused():
    with pytest.raises(CheckpointError, match="'b' is not part"):
        decode({"$tensor": "a"}, {"a": torch.ones(1), "b": torch.ones(1)})
