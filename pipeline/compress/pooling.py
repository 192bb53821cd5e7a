# SPDX-License-Identifier: Apache-2.0
"""A mean over the plane becomes GlobalAveragePool, which computes the same and has an integer kernel."""

from __future__ import annotations

import numpy as np
import onnx

from pipeline.compress.graphs import Graph, attribute_of

__all__ = ["pool_planes"]

_PLANE = {2, 3}
_RANK = 4
_PASSED = ("Flatten", "Identity", "LogSoftmax", "Reshape", "Softmax", "Squeeze")


def _axes(graph: Graph, node: onnx.NodeProto) -> set[int]:
    """Axes that a ReduceMean of four dimensions goes over, as far as they are known."""
    if len(node.input) > 1 and graph.is_constant(node.input[1]):
        return {int(axis) % _RANK for axis in np.ravel(graph.constant(node.input[1]))}
    return {axis % _RANK for entry in node.attribute if entry.name == "axes" for axis in entry.ints}


def _makes_scores(graph: Graph, node: onnx.NodeProto) -> bool:
    """Whether nothing but changes of shape, or a softmax, lies between what a node makes and the scores."""
    readers, waiting = graph.readers(), [node.output[0]]
    while waiting:
        value = waiting.pop()
        if value in graph.output_names:
            return True
        waiting += [name for reader in readers[value] if reader.op_type in _PASSED for name in reader.output]
    return False


def pool_planes(graph: Graph) -> int:
    """Replace every mean over height and width, in place.

    ReduceMean has no integer kernel in ONNX Runtime: between two quantized layers it costs a conversion to
    floats of the whole plane, and one back. A mean that makes the scores is left: they would be rounded.

    Returns:
        How many there were.
    """
    if graph.has_subgraphs():
        return 0
    inferred = onnx.shape_inference.infer_shapes(graph.model).graph
    planes = {
        entry.name
        for entry in [*inferred.input, *inferred.value_info]
        if entry.type.tensor_type.HasField("shape")
        and len(entry.type.tensor_type.shape.dim) == _RANK
        and entry.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    }
    means = [
        node
        for node in graph.nodes
        if node.op_type == "ReduceMean"
        and node.input[0] in planes
        and _axes(graph, node) == _PLANE
        and not _makes_scores(graph, node)
    ]
    for node in means:
        place, output = list(graph.nodes).index(node), node.output[0]
        flat = not attribute_of(node, "keepdims", 1)
        pooled = graph.fresh_name(f"{output}.plane") if flat else output
        graph.nodes.insert(
            place,
            onnx.helper.make_node(
                "GlobalAveragePool", [node.input[0]], [pooled], graph.fresh_node(f"{node.name}.pool")
            ),
        )
        if flat:
            name = graph.fresh_node(f"{node.name}.flatten")
            graph.nodes.insert(place + 1, onnx.helper.make_node("Flatten", [pooled], [output], name, axis=1))
    graph.remove(means)
    return len(means)
