"""The layers of a model with their parameters, output shapes and multiply-accumulate operations."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.rnn import PackedSequence
from torch.utils.hooks import RemovableHandle

# Modules that call functions with their children's weights instead of calling the children.
_WHOLE = (nn.MultiheadAttention,)


@dataclass(frozen=True)
class Row:
    """One line of the table: a layer, or everything below a module where the table is folded.

    Attributes:
        name: the path in the model.
        kind: the class's name.
        parameters: how many numbers are learned or frozen here; a parameter that an earlier row has
            is not counted again. None while a lazy layer has not seen a batch.
        trainable: how many of them get a gradient.
        shared: how many parameters here are counted in an earlier row.
        shape: the shape of the (first) output in the recorded forward pass, None if there was none.
        macs: multiply-accumulate operations of the recorded forward pass; None where unknown.
    """

    name: str
    kind: str
    parameters: int | None
    trainable: int
    shared: int
    shape: tuple[int, ...] | None = None
    macs: int | None = None


def parameter_table(
    module: nn.Module, max_rows: int = 60, max_depth: int | None = None, calls: Calls | None = None
) -> list[Row]:
    """A row for each layer: each module without children, and each with parameters of its own.

    Args:
        module: any module; nothing is run.
        max_rows: with more layers than this, they are folded into the deepest modules that fit.
        max_depth: fold at this many names in the path at least.
        calls: what `Calls` has recorded of a forward pass, for shapes and MACs.
    """
    layers = _layers(module)
    depths = [len(name.split(".")) for name in layers]
    deepest = max(depths, default=1)
    depth = deepest if max_depth is None else min(max(max_depth, 1), deepest)
    while depth > 1 and len({_fold(name, depth) for name in layers}) > max_rows:
        depth -= 1
    groups: dict[str, list[nn.Module]] = {}
    for name, layer in layers.items():
        groups.setdefault(_fold(name, depth), []).append(layer)
    seen: set[int] = set()
    modules = dict(module.named_modules(remove_duplicate=False))
    return [_row(name, modules[name], members, seen, calls) for name, members in groups.items()]


def _fold(name: str, depth: int) -> str:
    return ".".join(name.split(".")[:depth])


def _layers(module: nn.Module) -> dict[str, nn.Module]:
    """The modules that get a row, by path; one that is used in several places is named once."""
    layers: dict[str, nn.Module] = {}
    for name, part in module.named_modules():
        whole = [outer for outer, layer in layers.items() if isinstance(layer, _WHOLE)]
        if any(outer == "" or name.startswith(f"{outer}.") for outer in whole):
            continue
        own = next(part.parameters(recurse=False), None) is not None
        if own or next(part.children(), None) is None:
            layers[name] = part
    return layers


def _row(name: str, module: nn.Module, members: list[nn.Module], seen: set[int], calls: Calls | None) -> Row:
    total = trainable = shared = 0
    own = [p for member in members for p in member.parameters(recurse=isinstance(member, _WHOLE))]
    lazy = [parameter for parameter in own if is_lazy(parameter)]
    for parameter in () if lazy else own:
        if id(parameter) in seen:
            shared += parameter.numel()
        else:
            seen.add(id(parameter))
            total += parameter.numel()
            trainable += parameter.numel() if parameter.requires_grad else 0
    known = [] if calls is None else [n for member in members if (n := calls.macs(member)) is not None]
    return Row(
        name=name or "(itself)",
        kind=type(module).__name__,
        parameters=None if lazy else total,
        trainable=trainable,
        shared=shared,
        shape=None if calls is None else calls.shape(module),
        macs=sum(known) if known else None,
    )


class Calls:
    """Records output shapes and MACs of every module while the model runs of its own accord.

    Hooks are on the modules from construction until `remove`.
    """

    def __init__(self, module: nn.Module) -> None:
        self._shapes: dict[int, tuple[int, ...]] = {}
        self._macs: dict[int, int] = {}
        self._handles: list[RemovableHandle] = [
            part.register_forward_hook(self._record, with_kwargs=True) for part in module.modules()
        ]

    def remove(self) -> None:
        """Take every hook off; what was recorded stays."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def shape(self, module: nn.Module) -> tuple[int, ...] | None:
        """The shape of the module's first output."""
        return self._shapes.get(id(module))

    def macs(self, module: nn.Module) -> int | None:
        """The module's multiply-accumulate operations over all its calls."""
        return self._macs.get(id(module))

    def _record(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any
    ) -> None:
        tensor = _first(output)
        if tensor is None:
            return
        self._shapes.setdefault(id(module), tuple(tensor.shape))
        rule = next((rule for kind, rule in _RULES.items() if isinstance(module, kind)), None)
        inputs = [value for value in (*args, *kwargs.values()) if isinstance(value, (Tensor, PackedSequence))]
        if rule is not None and inputs:
            self._macs[id(module)] = self._macs.get(id(module), 0) + rule(module, inputs, tensor)


def _first(output: Any) -> Tensor | None:
    """The first tensor in a tree."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, Mapping):
        output = list(output.values())
    if isinstance(output, (tuple, list)):
        return next((found for item in output if (found := _first(item)) is not None), None)
    return None


Rule = Callable[[Any, list[Any], Tensor], int]


def _nothing(module: Any, inputs: list[Any], output: Tensor) -> int:
    return 0


def _linear(module: nn.Linear, inputs: list[Any], output: Tensor) -> int:
    return output.numel() * module.in_features


def _bilinear(module: nn.Bilinear, inputs: list[Any], output: Tensor) -> int:
    return output.numel() * module.in1_features * (module.in2_features + 1)


def _convolution(module: Any, inputs: list[Any], output: Tensor) -> int:
    # Each output element takes one product per weight of its output channel: weight[0].
    return int(output.numel() * math.prod(module.weight.shape[1:]))


def _transposed(module: Any, inputs: list[Any], output: Tensor) -> int:
    # Each input element is multiplied with every weight of its input channel: weight[0].
    return int(inputs[0].numel() * math.prod(module.weight.shape[1:]))


def _recurrent(module: Any, inputs: list[Any], output: Tensor) -> int:
    # Every weight of every layer, gate and direction is used once a token.
    weights = sum(weight.numel() for name, weight in module.named_parameters() if name.startswith("weight"))
    tokens = inputs[0].data if isinstance(inputs[0], PackedSequence) else inputs[0]
    return int(weights * tokens.numel() // module.input_size)


def _attention(module: nn.MultiheadAttention, inputs: list[Any], output: Tensor) -> int:
    query, key, value = (inputs * 3)[:3] if len(inputs) < 3 else inputs[:3]
    width = module.embed_dim
    batch = 1 if query.ndim == 2 else query.shape[0 if module.batch_first else 1]
    queries, keys = query.numel() // query.shape[-1] // batch, key.numel() // key.shape[-1] // batch
    projections = 2 * queries * width * width + keys * width * (key.shape[-1] + value.shape[-1])
    # Scores and the weighted sum of values: one product for each query, key and channel, twice.
    return int(batch * (projections + 2 * queries * keys * width))


_RULES: dict[type[nn.Module] | tuple[type[nn.Module], ...], Rule] = {
    nn.Linear: _linear,
    nn.Bilinear: _bilinear,
    (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d): _transposed,
    (nn.Conv1d, nn.Conv2d, nn.Conv3d): _convolution,
    (nn.RNNBase, nn.RNNCellBase): _recurrent,
    nn.MultiheadAttention: _attention,
    (nn.Embedding, nn.EmbeddingBag): _nothing,
    (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.LocalResponseNorm, nn.CrossMapLRN2d): _nothing,
    torch.nn.modules.batchnorm._NormBase: _nothing,
}
