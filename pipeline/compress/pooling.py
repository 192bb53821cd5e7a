# SPDX-License-Identifier: Apache-2.0
"""A mean over the plane becomes GlobalAveragePool: the same number, and an operation with integer kernels."""

from __future__ import annotations

import numpy as np
import onnx

from pipeline.compress.graphs import Graph, attribute_of

__all__ = ["pool_planes"]

_PLANE = {2, 3}
_RANK = 4


def _axes(graph: Graph, node: onnx.NodeProto) -> set[int]:
    """Axes that a ReduceMean of four dimensions goes over, as far as they are known."""
    if len(node.input) > 1 and graph.is_constant(node.input[1]):
        return {int(axis) % _RANK for axis in np.ravel(graph.constant(node.input[1]))}
    return {axis % _RANK for entry in node.attribute if entry.name == "axes" for axis in entry.ints}


def pool_planes(graph: Graph) -> int:
    """Replace every mean over height and width, in place.

    ReduceMean has no integer kernel in ONNX Runtime: between two quantized layers it costs a conversion to
    floats of the whole plane, and one back.

    Returns:
        How many there were.
    """
    inferred = onnx.shape_inference.infer_shapes(graph.model).graph
    ranks = {
        entry.name: len(entry.type.tensor_type.shape.dim)
        for entry in [*inferred.input, *inferred.value_info]
        if entry.type.tensor_type.HasField("shape")
    }
    means = [
        node
        for node in graph.nodes
        if node.op_type == "ReduceMean" and ranks.get(node.input[0]) == _RANK and _axes(graph, node) == _PLANE
    ]
    for node in means:
        place, output = list(graph.nodes).index(node), node.output[0]
        flat = not attribute_of(node, "keepdims", 1)
        pooled = graph.fresh_name(f"{output}.plane") if flat else output
        graph.nodes.insert(
            place, onnx.helper.make_node("GlobalAveragePool", [node.input[0]], [pooled], f"{node.name}.pool")
        )
        if flat:
            flatten = onnx.helper.make_node("Flatten", [pooled], [output], f"{node.name}.flatten", axis=1)
            graph.nodes.insert(place + 1, flatten)
    graph.remove(means)
    return len(means)
