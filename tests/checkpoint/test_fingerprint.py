"""The fingerprint is of names, types, shapes and bits, and of nothing else."""

import hashlib

import pytest
import torch

from treadle.checkpoint import weights_sha256


def test_it_is_what_the_documentation_says():
    state = {"b": torch.tensor([1, 2], dtype=torch.int16), "a": torch.tensor([[1.0]]), "extra": "text"}
    by_hand = b'["a","float32",[1,1]]\n' + b"\x00\x00\x80\x3f" + b'["b","int16",[2]]\n' + b"\x01\x00\x02\x00"
    assert weights_sha256(state) == hashlib.sha256(by_hand).hexdigest()


def test_order_strides_and_tying_make_no_difference():
    weight = torch.arange(24, dtype=torch.bfloat16).reshape(2, 3, 4)
    first = weights_sha256({"a": weight, "b": weight})
    strided = torch.empty(4, 3, 2, dtype=torch.bfloat16).permute(2, 1, 0).copy_(weight)
    assert weights_sha256({"b": weight.clone(), "a": torch.nn.Parameter(strided)}) == first


def test_large_tensors_of_any_layout_go_in_pieces():
    large = torch.arange(9_000_000, dtype=torch.int32)
    for shape in ((-1,), (3, -1), (3000, -1), (2, 3, -1)):
        tensor = large.reshape(shape)
        turned = tensor.transpose(0, -1).contiguous().transpose(0, -1)
        assert weights_sha256({"a": tensor}) == weights_sha256({"a": turned})


@pytest.mark.parametrize(
    "other",
    [
        {"x": torch.zeros(2, 3)},
        {"a": torch.zeros(3, 2)},
        {"a": torch.zeros(2, 3, dtype=torch.int32)},
        {"a": -torch.zeros(2, 3)},
        {"a": torch.zeros(2, 3), "b": torch.zeros(0)},
        {},
    ],
    ids=range(6),
)
def test_every_other_difference_shows(other):
    assert weights_sha256(other) != weights_sha256({"a": torch.zeros(2, 3)})
