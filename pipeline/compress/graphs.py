# SPDX-License-Identifier: Apache-2.0
"""Reading and editing ONNX graphs: who makes a value, who reads it, which constants a layer has."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from checks.errors import CompressionError
from pipeline.models.onnx_file import clean_model

__all__ = ["LAYERS", "Graph", "Layer", "attribute_of", "read_graph"]

LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operations with weights."""

Array = npt.NDArray[np.float32]


def attribute_of(node: onnx.NodeProto, name: str, default: int) -> int:
    """Return an integer attribute of a node."""
    return next((int(entry.i) for entry in node.attribute if entry.name == name), default)


class Layer:
    """A node with constant weights.

    Attributes:
        node: The node; its first input is the activation, its second the weight.
        name: Of the node; unique in its graph.
        weight: Name of the weight.
        bias: Name of the constant bias, if there is one.
        axis: Of the weight, along which output channels lie.
        groups: Of a convolution; 1 otherwise.
    """

    def __init__(self, node: onnx.NodeProto, bias: str | None, rank: int) -> None:
        self.node, self.name, self.weight, self.bias = node, node.name, node.input[1], bias
        self.groups = attribute_of(node, "group", 1) if node.op_type.startswith("Conv") else 1
        axes = {"Conv": 0, "ConvTranspose": 1, "MatMul": rank - 1}
        axes["Gemm"] = 0 if attribute_of(node, "transB", 0) else 1
        self.axis = axes[node.op_type]

    @property
    def output(self) -> str:
        """Name of the value it computes."""
        return str(self.node.output[0])


class Graph:
    """One ONNX model under edit; every node has a name of its own."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.nodes = model.graph.node
        self._constants = {tensor.name: tensor for tensor in model.graph.initializer}
        seen: set[str] = set()
        for index, node in enumerate(self.nodes):
            if not node.name or node.name in seen:
                node.name = f"{node.op_type}#{index}"
            seen.add(node.name)

    @property
    def output_names(self) -> set[str]:
        """Names of what the graph returns."""
        return {entry.name for entry in self.model.graph.output}

    def is_constant(self, name: str) -> bool:
        """Return whether `name` is an initializer."""
        return name in self._constants

    def constant(self, name: str) -> npt.NDArray[np.generic]:
        """Return an initializer as a fresh array."""
        return np.array(numpy_helper.to_array(self._constants[name]))

    def weights(self, name: str) -> Array:
        """Return a float32 initializer as a fresh array."""
        return self.constant(name).astype(np.float32)

    def set_constant(self, name: str, value: npt.NDArray[np.generic]) -> None:
        """Replace the initializer `name`, or add it."""
        tensor = numpy_helper.from_array(np.ascontiguousarray(value), name)
        if name in self._constants:
            self._constants[name].CopyFrom(tensor)
        else:
            self.model.graph.initializer.append(tensor)
            self._constants[name] = self.model.graph.initializer[-1]

    def own_constant(self, node: onnx.NodeProto, index: int) -> str:
        """Give input `index` of `node` an initializer that nobody else reads, and return its name."""
        name = str(node.input[index])
        if sum(list(other.input).count(name) for other in self.nodes) > 1:
            fresh = self.fresh_name(name)
            self.set_constant(fresh, self.constant(name))
            node.input[index] = fresh
            return fresh
        return name

    def fresh_name(self, stem: str) -> str:
        """Return a name that no value of the graph has."""
        taken = {*self._constants, *(name for node in self.nodes for name in [*node.input, *node.output])}
        return next(
            name for name in (f"{stem}.{index}" for index in range(len(taken) + 1)) if name not in taken
        )

    def fresh_node(self, stem: str) -> str:
        """Return a name that no node of the graph has."""
        taken = {node.name for node in self.nodes}
        names = (stem, *(f"{stem}.{index}" for index in range(len(taken) + 1)))
        return next(name for name in names if name not in taken)

    def has_subgraphs(self) -> bool:
        """Whether a node holds a graph of its own, which may read values that `readers` does not see."""
        kinds = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)
        return any(entry.type in kinds for node in self.nodes for entry in node.attribute)

    def producers(self) -> dict[str, onnx.NodeProto]:
        """Return the node that makes each value."""
        return {name: node for node in self.nodes for name in node.output if name}

    def readers(self) -> dict[str, list[onnx.NodeProto]]:
        """Return the nodes that read each value, once for each time they do."""
        found: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in self.nodes:
            for name in node.input:
                found[name].append(node)
        return found

    def layers(self, kinds: Sequence[str] = LAYERS) -> Iterator[Layer]:
        """Yield every node with constant float weights, in the graph's order."""
        for node in self.nodes:
            if node.op_type not in kinds or node.domain or not self._is_float(node.input[1]):
                continue
            has_bias = len(node.input) > 2 and self._is_float(node.input[2])
            yield Layer(node, node.input[2] if has_bias else None, len(self._constants[node.input[1]].dims))

    def _is_float(self, name: str) -> bool:
        return name in self._constants and self._constants[name].data_type == onnx.TensorProto.FLOAT

    def remove(self, nodes: Sequence[onnx.NodeProto]) -> None:
        """Remove nodes, and the initializers that nobody reads any more."""
        for node in nodes:
            self.nodes.remove(node)
        read = {name for node in self.nodes for name in node.input} | self.output_names
        for name in [name for name in self._constants if name not in read]:
            self.model.graph.initializer.remove(self._constants.pop(name))

    def sort(self) -> None:
        """Put every node behind those it reads from; nodes that may stay where they are do."""
        known = {*self._constants, *(entry.name for entry in self.model.graph.input), ""}
        waiting, ordered = list(self.nodes), []
        while waiting:
            late = []
            for node in waiting:
                if all(name in known for name in node.input):
                    known.update(node.output)
                    ordered.append(node)
                else:
                    late.append(node)
            if len(late) == len(waiting):
                raise CompressionError("expected a graph without cycles", where="quantize")
            waiting = late
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in ordered]
        del self.nodes[:]
        self.nodes.extend(copies)

    def save(self, path: Path) -> None:
        """Write the graph for a session; not checked, not what ships."""
        path.write_bytes(self.model.SerializeToString(deterministic=True))


def _without_constant_nodes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Turn `Constant` nodes that hold tensors into initializers, as quantizers expect them."""
    kept = []
    for node in model.graph.node:
        value = next((entry.t for entry in node.attribute if entry.name == "value"), None)
        if node.op_type == "Constant" and value is not None:
            tensor = onnx.TensorProto()
            tensor.CopyFrom(value)
            tensor.name = node.output[0]
            model.graph.initializer.append(tensor)
        else:
            kept.append(node)
    del model.graph.node[:]
    model.graph.node.extend(kept)
    return model


def read_graph(path: Path) -> Graph:
    """Read an ONNX file for editing; the file itself is never changed.

    Raises:
        CompressionError: if it is no ONNX file.
    """
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(path, load_external_data=False)
    except (OSError, DecodeError, ValueError) as error:
        raise CompressionError(
            f"expected an ONNX file, got {type(error).__name__}: {error}", where=str(path)
        ) from error
    return Graph(_without_constant_nodes(clean_model(model)))
