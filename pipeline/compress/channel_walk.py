# SPDX-License-Identifier: Apache-2.0
"""State of one walk along a graph of operations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.compress.axes import Atoms, Axis, Value

__all__ = ["Arguments", "Layer", "Operation", "Result", "Term", "Walk", "first_of", "places_of", "tensors_of"]


@dataclass(frozen=True, eq=False)
class Layer:
    """Outputs of one convolution or linear layer: its name, `convolution` or `linear`, and their atoms."""

    name: str
    kind: str
    axis: Axis


@dataclass(frozen=True, eq=False)
class Term:
    """A cost: `factor` times the number of positions left on each axis."""

    factor: float
    axes: tuple[Axis, ...]


@dataclass
class Walk:
    """State of one walk along a graph.

    Attributes:
        atoms: Of all tensors.
        batch: Images in the example that was traced.
        layer: Name of the layer whose operation is being walked.
        operation: Its name, with the layer: the reason if something must stay.
        source: Name of the node the operation reads first.
        shapes: Of the tensors the operation returns.
        several: Whether it returns a tuple.
        layers: Convolutions and linear layers so far.
        macs: Multiply-accumulates of one image so far.
        biases: Biases that appear when batch normalisation is folded into a convolution.
        norms: Axes of batch normalisations' scales.
        slices: Cuts of a dimension of a node: where each starts, and its axis.
    """

    atoms: Atoms = field(default_factory=Atoms)
    batch: int = 1
    layer: str = ""
    operation: str = ""
    source: str = ""
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    several: bool = False
    layers: list[Layer] = field(default_factory=list)
    macs: list[Term] = field(default_factory=list)
    biases: list[Term] = field(default_factory=list)
    norms: list[Axis] = field(default_factory=list)
    slices: dict[tuple[str, int], list[tuple[int, Axis]]] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the only or first tensor the operation returns."""
        return self.shapes[0]

    def join(self, first: Axis, second: Axis) -> None:
        """Join two axes for the sake of this operation."""
        self.atoms.join(first, second, self.operation)

    def freeze(self, *axes: Axis) -> None:
        """Freeze axes for the sake of this operation."""
        for axis in axes:
            self.atoms.freeze(axis, self.operation)

    def fold(self, axis: Axis, parts: int) -> Axis:
        """Fold an axis for the sake of this operation."""
        return self.atoms.fold(axis, parts, self.operation)

    def broadcast(self, values: list[Value]) -> Value:
        """Join operands as element by element arithmetic does."""
        depth = max(len(value.axes) for value in values)
        axes = []
        for place in range(-depth, 0):
            offered = [value.axes[place] for value in values if len(value.axes) >= -place]
            size = max(len(axis) for axis in offered)
            for axis in offered:
                if len(axis) != size:
                    self.freeze(axis)
            full = [axis for axis in offered if len(axis) == size]
            for axis in full[1:]:
                self.join(full[0], axis)
            axes.append(full[0])
        return Value(tuple(axes), all(value.weight for value in values))


Arguments = Mapping[str, Any]
Result = Value | tuple[Value, ...]
Operation = Callable[[Walk, Arguments], Result]


def tensors_of(value: Any) -> list[Value]:
    """Return all tensors in the arguments of an operation."""
    if isinstance(value, Value):
        return [value]
    if isinstance(value, Mapping):
        return tensors_of(list(value.values()))
    if isinstance(value, list | tuple):
        return [tensor for entry in value for tensor in tensors_of(entry)]
    return []


def first_of(arguments: Arguments) -> Value:
    """Return the first tensor in the arguments of an operation."""
    return tensors_of(arguments)[0]


def places_of(arguments: Arguments, depth: int, name: str = "dim") -> list[int]:
    """Return the dimensions an operation works along; all if it names none."""
    dims = arguments.get(name)
    if dims is None or dims == []:
        return list(range(depth))
    return [dim % depth for dim in ([dims] if isinstance(dims, int) else dims)]
