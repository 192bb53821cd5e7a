# SPDX-License-Identifier: Apache-2.0
"""Which channels of a network can only be removed together, and which must stay, and why.

The network is exported to a graph of ATen operations, and every position of every dimension is followed
through it; nothing is run but the export, and nothing is changed.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import operator
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import fx, nn

from checks.errors import CompressionError
from pipeline.compress.axes import Axis, Value, fixed
from pipeline.compress.channel_operations import OPERATIONS
from pipeline.compress.channel_walk import Term, Walk, tensors_of

__all__ = ["ChannelGraph", "Group", "Member", "trace_channels"]

OUTPUT_REASON = "an output of the network"
_MAX_GROUPS = 10_000
"""More means that every channel is alone of its kind: a fault of tracing, not a network."""


@dataclass(frozen=True, eq=False)
class Member:
    """One dimension of one tensor that a group takes from.

    Attributes:
        tensor: Name of the parameter or buffer.
        dim: The dimension.
        indices: Positions `(units, n)`: those in row `u` go with unit `u`.
    """

    tensor: str
    dim: int
    indices: npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Group:
    """Units that are removed from the same places: the channels of one set of coupled layers.

    Attributes:
        layers: Names of convolutions and linear layers whose outputs they are.
        kinds: `convolution`, `linear`.
        members: What each unit takes away.
        roots: The atom that stands for each unit, `(units,)`.
    """

    layers: tuple[str, ...]
    kinds: frozenset[str]
    members: tuple[Member, ...]
    roots: npt.NDArray[np.int64]

    @property
    def size(self) -> int:
        """Number of units."""
        return len(self.roots)


@dataclass(frozen=True, eq=False)
class ChannelGraph:
    """What can be removed from a network.

    Attributes:
        groups: Of units that can be removed.
        held: Layer to the reason why some or all of its outputs must stay.
        layers: Layer to the atoms of its outputs.
        macs: Multiply-accumulates of one image.
        parameters: Numbers in weights and biases, batch normalisation folded.
        norms: Names of the scales of batch normalisations.
    """

    groups: tuple[Group, ...]
    held: Mapping[str, str]
    layers: Mapping[str, Axis]
    macs: tuple[Term, ...]
    parameters: tuple[Term, ...]
    norms: frozenset[str]


def _export(module: nn.Module, images: torch.Tensor, where: str) -> Any:
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
            torch.no_grad(),
        ):
            warnings.simplefilter("ignore")
            return torch.export.export(module, (images,))
    except Exception as error:
        first = next((line for line in str(error).splitlines() if line.strip()), "")
        raise CompressionError(
            f"expected a network whose operations do not depend on the values of images, got "
            f"{type(error).__name__}: {first.strip()}",
            where=where,
            hint="the network was not changed; `if` and loops over values cannot be followed: use "
            "torch.where, or leave the pass out",
        ) from error
    finally:
        logging.disable(disabled)


def _layer_of(node: fx.Node) -> str:
    stack = node.meta.get("nn_module_stack") or {}
    names = [str(entry[0]) for entry in stack.values()]
    # A module that is called a second time stands in the stack as `name@1`.
    return names[-1].split("@")[0] if names else ""


def _operation_of(node: fx.Node) -> str:
    name = getattr(node.target, "__name__", str(node.target)).split(".")[0]
    stripped = name if name.startswith("__") else name.rstrip("_")
    return stripped or name


def _shapes(value: Any) -> list[tuple[int, ...]]:
    if isinstance(value, torch.Tensor):
        return [tuple(int(size) for size in value.shape)]
    if isinstance(value, list | tuple):
        return [shape for entry in value for shape in _shapes(entry)]
    return []


def _arguments(node: fx.Node, values: Mapping[fx.Node, Any]) -> dict[str, Any]:
    """Return the arguments of a node by the names of the operation's schema."""
    args: Any = fx.map_arg(node.args, values.get)
    kwargs: Any = fx.map_arg(node.kwargs, values.get)
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return {"args": args, **kwargs}
    named: dict[str, Any] = {
        entry.name: entry.default_value for entry in schema.arguments if entry.has_default_value()
    }
    named |= {entry.name: value for entry, value in zip(schema.arguments, args, strict=False)}
    named.update(kwargs)
    return named


def _unknown(walk: Walk, arguments: Mapping[str, Any]) -> Any:
    for value in tensors_of(arguments):
        walk.freeze(*value.axes)
    made = tuple(Value(tuple(map(fixed, shape))) for shape in walk.shapes)
    return made if walk.several else (made[0] if made else None)


def _step(walk: Walk, node: fx.Node, values: Mapping[fx.Node, Any]) -> Any:
    if node.target is operator.getitem:
        whole, index = (fx.map_arg(arg, values.get) for arg in node.args)
        if isinstance(whole, tuple) and isinstance(index, int):
            return whole[index]
    arguments = _arguments(node, values)
    shown = node.meta.get("val")
    walk.layer, walk.shapes = _layer_of(node), _shapes(shown)
    walk.several = isinstance(shown, list | tuple)
    name = _operation_of(node)
    walk.operation = f"{name} in {walk.layer or 'the network'}"
    walk.source = next((source.name for source in node.all_input_nodes), "")
    if not tensors_of(arguments) and not walk.shapes:
        return None  # arithmetic with sizes
    operation = OPERATIONS.get(name)
    if operation is None or not walk.shapes:
        return _unknown(walk, arguments)
    try:
        made = operation(walk, arguments)
    except (NotImplementedError, KeyError, IndexError, TypeError, ValueError, AttributeError):
        return _unknown(walk, arguments)
    if [value.shape for value in tensors_of(made)] != walk.shapes:
        for value in tensors_of(made):
            walk.freeze(*value.axes)
        return _unknown(walk, arguments)
    return made


def _join_partitions(walk: Walk) -> None:
    """Cuts into equal pieces, written as slices, are computed from the number of channels like chunks."""
    for pieces in walk.slices.values():
        starts = dict(sorted(pieces, key=operator.itemgetter(0)))
        size = len(pieces[0][1])
        if len(starts) > 1 and all(
            start == place * size and len(axis) == size for place, (start, axis) in enumerate(starts.items())
        ):
            first, *rest = starts.values()
            for axis in rest:
                walk.atoms.join(first, axis, "slice")


def _tensors(module: nn.Module) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    """Return every name of a tensor with its first, and every tensor by its first name."""
    names: dict[str, str] = {}
    first: dict[int, str] = {}
    tensors: dict[str, torch.Tensor] = {}
    for name, tensor in (
        *module.named_parameters(remove_duplicate=False),
        *module.named_buffers(remove_duplicate=False),
    ):
        names[name] = first.setdefault(id(tensor), name)
        tensors.setdefault(names[name], tensor)
    return names, tensors


def _walk(module: nn.Module, images: torch.Tensor, where: str) -> tuple[Walk, dict[str, Value]]:
    program = _export(module, images, where)
    names, tensors = _tensors(module)
    signature = program.graph_signature
    targets = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    walk = Walk(batch=len(images))
    owned = {
        name: Value(tuple(walk.atoms.fresh(size) for size in tensor.shape), weight=True)
        for name, tensor in tensors.items()
    }
    values: dict[fx.Node, Any] = {}
    for node in program.graph.nodes:
        if node.op == "placeholder":
            name = names.get(targets.get(node.name, ""), "")
            shown = node.meta.get("val")
            if name:
                values[node] = owned[name]
            elif isinstance(shown, torch.Tensor):
                constant = node.name in signature.inputs_to_lifted_tensor_constants
                values[node] = Value(tuple(map(fixed, shown.shape)), weight=constant)
        elif node.op == "call_function":
            values[node] = _step(walk, node, values)
        elif node.op == "output":
            for value in tensors_of(fx.map_arg(node.args, values.get)):
                for axis in value.axes:
                    walk.atoms.freeze(axis, OUTPUT_REASON)
    _join_partitions(walk)
    return walk, owned


def _positions(walk: Walk, owned: Mapping[str, Value]) -> dict[int, list[tuple[str, int, list[int]]]]:
    """Return, for every representative, where its atoms lie in parameters and buffers."""
    found: dict[int, list[tuple[str, int, list[int]]]] = {}
    for name, value in owned.items():
        for dim, axis in enumerate(value.axes):
            at: dict[int, list[int]] = {}
            for index, root in enumerate(walk.atoms.find(axis)):
                if root >= 0:
                    at.setdefault(int(root), []).append(index)
            for root, indices in at.items():
                found.setdefault(root, []).append((name, dim, indices))
    return found


def _groups(walk: Walk, owned: Mapping[str, Value], reasons: Mapping[int, str]) -> Iterator[Group]:
    made_by: dict[int, dict[str, str]] = {}
    for layer in walk.layers:
        for root in walk.atoms.find(layer.axis):
            made_by.setdefault(int(root), {})[layer.name] = layer.kind
    alike: dict[tuple[Any, ...], list[int]] = {}
    positions = _positions(walk, owned)
    for root, places in positions.items():
        if root in reasons or root not in made_by:
            continue
        shape = tuple((name, dim, len(indices)) for name, dim, indices in places)
        alike.setdefault((shape, tuple(made_by[root].items())), []).append(root)
    for (shape, layers), roots in alike.items():
        members = (
            Member(name, dim, np.array([positions[root][place][2] for root in roots]))
            for place, (name, dim, _) in enumerate(shape)
        )
        yield Group(
            tuple(name for name, _ in layers),
            frozenset(kind for _, kind in layers),
            tuple(members),
            np.array(roots),
        )


def _parameter_terms(module: nn.Module, owned: Mapping[str, Value], walk: Walk) -> Iterator[Term]:
    """Count what the exporter writes: weights and biases, batch normalisation folded into them."""
    folded = {
        id(tensor)
        for layer in module.modules()
        if isinstance(layer, nn.modules.batchnorm._BatchNorm)  # noqa: SLF001
        for tensor in layer.parameters(recurse=False)
    }
    for name, tensor in module.named_parameters():
        if id(tensor) not in folded and name in owned:
            yield Term(1, owned[name].axes)
    yield from walk.biases


def _expect_finite(module: nn.Module, where: str) -> None:
    tensors = [*module.named_parameters(), *module.named_buffers()]
    broken = [name for name, value in tensors if value.is_floating_point() and not value.isfinite().all()]
    if broken:
        raise CompressionError(
            f"expected finite weights, got NaN or infinity in {', '.join(broken[:5])}",
            where=where,
            hint="train again, with a smaller learning rate",
        )


def trace_channels(
    module: nn.Module,
    images: torch.Tensor,
    hold: Mapping[str, str] | None = None,
    where: str = "channels",
) -> ChannelGraph:
    """Follow every channel of a network through its operations.

    Args:
        module: In eval mode, on the CPU; not changed.
        images: An example `(N, ...)`.
        hold: Name of a parameter to the reason why it must keep its shape.
        where: Name of the pass, for messages.

    Raises:
        CompressionError: if weights are not finite, or operations depend on the values of images.
    """
    _expect_finite(module, where)
    walk, owned = _walk(copy.deepcopy(module), images, where)
    for name, reason in (hold or {}).items():
        for axis in owned[name].axes:
            walk.atoms.freeze(axis, reason)
    reasons = walk.atoms.reasons()
    held: dict[str, str] = {}
    layers: dict[str, Axis] = {}
    for layer in walk.layers:
        layers.setdefault(layer.name, walk.atoms.find(layer.axis))
    for name, axis in layers.items():
        why = [reasons[int(root)] for root in np.unique(axis) if int(root) in reasons]
        if why:
            held[name] = why[0]
    groups = tuple(_groups(walk, owned, reasons))
    if len(groups) > _MAX_GROUPS:
        raise CompressionError(
            f"expected at most {_MAX_GROUPS} groups of channels, got {len(groups)}", where=where
        )
    norms = {int(root) for axis in walk.norms for root in axis}
    return ChannelGraph(
        groups,
        held,
        layers,
        tuple(_resolved(walk, term) for term in walk.macs),
        tuple(_resolved(walk, term) for term in _parameter_terms(module, owned, walk)),
        frozenset(
            name
            for name, value in owned.items()
            if len(value.axes) == 1 and any(int(atom) in norms for atom in value.axes[0])
        ),
    )


def _resolved(walk: Walk, term: Term) -> Term:
    # Dimensions without atoms never change, so they are part of the factor.
    live = tuple(walk.atoms.find(axis) for axis in term.axes if (axis >= 0).any())
    rest = prod(len(axis) for axis in term.axes if not (axis >= 0).any())
    return Term(term.factor * rest, live)
