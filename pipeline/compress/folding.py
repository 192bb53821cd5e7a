# SPDX-License-Identifier: Apache-2.0
"""BatchNormalization becomes part of the layer before it, as inference computes it anyway."""

from __future__ import annotations

import numpy as np
import onnx

from pipeline.compress.graphs import Graph, Layer

__all__ = ["fold_batch_norms"]


def _shape_along(values: np.ndarray, axis: int, rank: int) -> np.ndarray:
    shape = [1] * rank
    shape[axis] = -1
    return values.reshape(shape)


def _fold(graph: Graph, layer: Layer, norm: onnx.NodeProto) -> None:
    gamma, beta, mean, variance = (graph.constant(name).astype(np.float64) for name in norm.input[1:5])
    epsilon = next((entry.f for entry in norm.attribute if entry.name == "epsilon"), 1e-5)
    factor = gamma / np.sqrt(variance + epsilon)
    weight = graph.constant(graph.own_constant(layer.node, 1)).astype(np.float64)
    if layer.bias is None:
        bias = np.zeros_like(factor)
        # Node inputs are positional: a layer without bias has two.
        layer.node.input.append(graph.fresh_name(f"{layer.weight}.bias"))
    else:
        bias = graph.constant(graph.own_constant(layer.node, 2)).astype(np.float64)
    scaled = weight * _shape_along(factor, layer.axis, weight.ndim)
    graph.set_constant(layer.node.input[1], scaled.astype(np.float32))
    graph.set_constant(layer.node.input[2], ((bias - mean) * factor + beta).astype(np.float32))
    layer.node.output[0] = norm.output[0]


def fold_batch_norms(graph: Graph) -> int:
    """Fold every BatchNormalization that directly follows a Conv or Gemm, in place.

    `y = gamma (W x + b - mean) / sqrt(variance + epsilon) + beta` is a layer with other weights (Jacob et al.
    2018, https://arxiv.org/abs/1712.05877, section 3.2).

    Returns:
        How many were folded; one whose layer others read too is left.
    """
    readers = graph.readers()
    done = []
    for layer in list(graph.layers(("Conv", "Gemm"))):
        after = readers[layer.output]
        alone = len(after) == 1 and layer.output not in graph.output_names
        if not alone or after[0].op_type != "BatchNormalization" or after[0].input[0] != layer.output:
            continue
        norm = after[0]
        plain = layer.bias is not None or len(layer.node.input) == 2
        # Gemm's alpha and beta would have to be folded too; nobody exports them with a norm behind.
        plain &= not any(entry.name in ("alpha", "beta") and entry.f != 1 for entry in layer.node.attribute)
        if plain and all(graph.is_constant(name) for name in norm.input[1:5]):
            _fold(graph, layer, norm)
            done.append(norm)
    graph.remove(done)
    return len(done)
