# SPDX-License-Identifier: Apache-2.0
"""The differentiable twin of an ONNX file: the very same weights, interpreted in torch.

Attacks need gradients, which ONNX Runtime does not give. A twin made from anything but the artifact
itself (its parent, its unpruned original) flatters the artifact: attacks crafted on it miss.

Imports torch at its top; import it inside functions.
"""

# ruff: noqa: TID253 - this module defines torch functions, and stages import it inside `run`

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
from google.protobuf.message import DecodeError
from onnx import numpy_helper
from torch import Tensor, nn

from checks.errors import ModelError, ProbeError
from pipeline.probes.call import Call
from pipeline.probes.operators import OPERATORS

__all__ = ["Graph", "Node", "Twin", "build_twin", "compute", "read_graph"]


OLDEST_OPSET = 13
"""Softmax and others meant something else before."""


@dataclass(frozen=True)
class Node:
    """One operation of the graph; `""` among `inputs` is an optional input left out."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]


def _tensor(proto: onnx.TensorProto, path: Path) -> Tensor:
    try:
        return torch.from_numpy(numpy_helper.to_array(proto).copy())
    except (TypeError, ValueError) as error:
        kind = onnx.TensorProto.DataType.Name(proto.data_type)
        raise ProbeError(
            f"expected weights that torch can hold, got {proto.name!r} of {kind}", where=str(path)
        ) from error


def _constant(node: onnx.NodeProto, path: Path) -> Tensor:
    attribute = node.attribute[0]
    value = onnx.helper.get_attribute_value(attribute)
    if attribute.name == "value":
        return _tensor(value, path)
    kinds = {"value_float": torch.float32, "value_floats": torch.float32}
    kinds |= {"value_int": torch.int64, "value_ints": torch.int64}
    if attribute.name not in kinds:
        raise ProbeError(f"expected a Constant of numbers, got {attribute.name}", where=str(path))
    return torch.tensor(value, dtype=kinds[attribute.name])


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    values = {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in values.items()}


def _node(node: onnx.NodeProto, path: Path) -> Node:
    if node.domain not in ("", "ai.onnx") or node.op_type not in OPERATORS:
        name = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
        raise ProbeError(
            f"expected operations with a differentiable twin, got {name}",
            where=f"{path} node {node.name or node.output[0]}",
            hint="use operations listed in pipeline/probes/operators.py, or add this one there",
        )
    if any(node.output[1:]):
        raise ProbeError(f"expected one output of {node.op_type}, got {list(node.output)}", where=str(path))
    return Node(node.op_type, tuple(node.input), tuple(node.output), _attributes(node))


def compute(node: Node, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the outputs of an operation by name, from the values it reads.

    Raises:
        ProbeError: if it cannot be computed from them.
    """
    inputs = tuple(values[name] if name else None for name in node.inputs)
    try:
        result = OPERATORS[node.op](Call(node.op, inputs, node.attributes))
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        shapes = [None if value is None else tuple(value.shape) for value in inputs]
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise ProbeError(
            f"expected {node.op} to compute {node.outputs[0]!r} from {shapes}, got {first}"
        ) from error
    return {node.outputs[0]: result}


@dataclass(frozen=True)
class Graph:
    """An ONNX graph, read for torch.

    Attributes:
        nodes: In the order in which they are computed.
        constants: Weights and other fixed values by name.
        image: Name of the input.
        scores: Name of the output.
    """

    nodes: list[Node]
    constants: dict[str, Tensor]
    image: str
    scores: str


class Twin(nn.Module):
    """A torch module that computes what one ONNX graph computes, differentiably in its input."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self._image, self._scores = graph.image, graph.scores
        known = dict(graph.constants)
        self._nodes: list[Node] = []
        # What depends on weights alone (dequantising them) is computed once, not in each step of an attack.
        with torch.no_grad():
            for node in graph.nodes:
                if all(name in known for name in node.inputs if name):
                    known |= compute(node, known)
                else:
                    self._nodes.append(node)
        read = {graph.scores, *(name for node in self._nodes for name in node.inputs)}
        # Graphs name values freely ("a.b", ""), buffers may not be named so; hence a plain number.
        self._buffer_of = {name: f"constant_{index}" for index, name in enumerate(sorted(read & set(known)))}
        for name, buffer in self._buffer_of.items():
            self.register_buffer(buffer, known[name])

    def forward(self, images: Tensor) -> Tensor:
        """Return scores `(N, K)` of `images` `(N, C, H, W)`, float32 in raw pixel units."""
        values: dict[str, Tensor] = {name: getattr(self, buffer) for name, buffer in self._buffer_of.items()}
        values[self._image] = images
        for node in self._nodes:
            values |= compute(node, values)
        return values[self._scores]


def read_graph(path: Path) -> Graph:
    """Read an ONNX file with one input and one output, of opset 13 or later.

    Raises:
        ModelError: if the file is not ONNX.
        ProbeError: if it uses an operation that has no twin, which is named.
    """
    try:
        model = onnx.load(path, load_external_data=False)
    except (DecodeError, OSError, ValueError) as error:
        raise ModelError(
            f"expected an ONNX file, got {type(error).__name__}: {error}", where=str(path)
        ) from error
    opset = max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)
    if opset < OLDEST_OPSET:
        raise ProbeError(f"expected opset {OLDEST_OPSET} or later, got {opset}", where=str(path))
    graph = model.graph
    constants = {proto.name: _tensor(proto, path) for proto in graph.initializer}
    inputs = [entry.name for entry in graph.input if entry.name not in constants]
    if len(inputs) != 1 or len(graph.output) != 1:
        raise ProbeError(f"expected one input and one output, got {inputs}", where=str(path))
    nodes = []
    for node in graph.node:
        if node.op_type == "Constant" and node.domain in ("", "ai.onnx"):
            constants[node.output[0]] = _constant(node, path)
        else:
            nodes.append(_node(node, path))
    known = {*constants, inputs[0], *(name for node in nodes for name in node.outputs)}
    read = {graph.output[0].name, *(name for node in nodes for name in node.inputs if name)}
    missing = sorted(read - known)
    if missing:
        raise ProbeError(f"expected a whole graph, got none of the values {missing[:5]}", where=str(path))
    return Graph(nodes, constants, inputs[0], graph.output[0].name)


def build_twin(path: Path) -> Twin:
    """Build the differentiable twin of an ONNX file with one input and one output.

    Args:
        path: A float32 or int8 (QuantizeLinear, DequantizeLinear) classifier of opset 13 or later.

    Returns:
        The module, in eval mode; raw pixels in, scores out.

    Raises:
        ModelError: if the file is not ONNX.
        ProbeError: if it uses an operation that has no twin, which is named.
    """
    return Twin(read_graph(path)).eval()
