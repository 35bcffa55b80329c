"""Objects as plain data: the same each time, without addresses and paths."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from treadle.described import described, name_of


class Settings:
    def __init__(self) -> None:
        self.width, self.kind, self.again = 3, nn.ReLU, self
        self.folder, self.path, self._hidden = Path("/somewhere"), "/home/somebody", 1
        self.rate = torch.tensor([0.5])
        self.names = {"b", "a"}
        self.many = list(range(100))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (nn.Linear, "torch.nn.modules.linear.Linear"),
        (cross_entropy, "torch.nn.functional.cross_entropy"),
        (len, "len"),
        (functools.partial(cross_entropy, weight=None), {"class": name_of(cross_entropy), "weight": None}),
        (torch.float16, "torch.float16"),
        (torch.zeros(2, 3), {"shape": [2, 3], "dtype": "torch.float32"}),
        (Path("/home/somebody"), name_of(Path("/"))),
    ],
)  # fmt: skip
def test_values_as_plain_data(value: Any, said: Any) -> None:
    assert described(value) == said


def test_an_object_as_plain_data() -> None:
    said = described(Settings())
    assert said["class"].endswith(".Settings")
    assert (said["width"], said["rate"]) == (3, 0.5)
    assert said["kind"] == "torch.nn.modules.activation.ReLU"
    assert said["names"] == ["a", "b"]
    assert said["many"] == {"class": "list", "length": 100}
    assert not {"folder", "path", "_hidden"} & set(said)
    assert set(said["again"]) >= {"class", "width"}
    assert "width" not in said["again"]["again"]
    json.dumps(said)
