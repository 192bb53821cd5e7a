# SPDX-License-Identifier: Apache-2.0
"""What scales becomes part of a layer beside it: norms of the one before, scaled pixels of the first one."""

from __future__ import annotations

import numpy as np
import onnx

from pipeline.compress.graphs import Graph, Layer

__all__ = ["fold_batch_norms", "fold_input_scale", "input_arithmetic"]

_ELEMENTWISE = ("Add", "Div", "Mul", "Sub")
_RANK = 4
_ALIKE = 1.5
"""Largest ratio of two channels' scales; a factor of 2 would cost the one a bit."""


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


def input_arithmetic(graph: Graph) -> list[onnx.NodeProto]:
    """Return what is done to pixels first, with constants alone: nodes in a row from the graph's input."""
    readers, value = graph.readers(), graph.model.graph.input[0].name
    found: list[onnx.NodeProto] = []
    while len(readers[value]) == 1 and value not in graph.output_names:
        node = readers[value][0]
        constant = next((name for name in node.input if name != value), "")
        if node.op_type not in _ELEMENTWISE or len(node.input) != 2 or not graph.is_constant(constant):
            break
        if node.op_type in ("Div", "Sub") and node.input[0] != value:
            break
        found.append(node)
        value = node.output[0]
    return found


def _as_affine(
    graph: Graph, nodes: list[onnx.NodeProto], channels: int
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return scale and shift `(C,)` that the nodes come to, or None if they are not one a channel."""
    scale, shift = np.ones(channels), np.zeros(channels)
    for node in nodes:
        name = next(entry for entry in node.input if graph.is_constant(entry))
        value = graph.constant(name).astype(np.float64)
        if (
            value.ndim > 4
            or value.size not in (1, channels)
            or (value.size > 1 and value.shape[-3:] != (channels, 1, 1))
        ):
            return None
        value = np.broadcast_to(value.reshape(-1), channels)
        match node.op_type:
            case "Add":
                shift = shift + value
            case "Sub":
                shift = shift - value
            case "Mul":
                scale, shift = scale * value, shift * value
            case _:
                with np.errstate(divide="ignore", invalid="ignore"):
                    scale, shift = scale / value, shift / value
    return (scale, shift) if np.isfinite(scale).all() and scale.all() else None


def fold_input_scale(graph: Graph) -> bool:
    """Make the scale of pixels part of the convolution that reads them, in place; their shift stays.

    `W (s x + t) = (W s) (x + t / s)`, at the borders too, since zeros are what is padded either way. That is
    one operation less. Scales that differ much are left: one range for all would round the small ones.

    Returns:
        Whether there was anything to fold.
    """
    nodes = input_arithmetic(graph)
    if not nodes or graph.has_subgraphs():
        return False
    readers = graph.readers()[nodes[-1].output[0]]
    first = next((layer for layer in graph.layers(("Conv",)) if readers == [layer.node]), None)
    if (
        first is None
        or nodes[-1].output[0] in graph.output_names
        or first.node.input[0] != nodes[-1].output[0]
    ):
        return False
    weight = graph.weights(first.weight).astype(np.float64)
    channels = weight.shape[1] * first.groups
    shape = [entry.dim_value for entry in graph.model.graph.input[0].type.tensor_type.shape.dim]
    affine = _as_affine(graph, nodes, channels)
    if affine is None or len(shape) != _RANK or shape[1] != channels:
        return False
    scale, shift = affine
    if np.abs(scale).max() > _ALIKE * np.abs(scale).min():
        return False
    groups = weight.reshape(first.groups, -1, *weight.shape[1:])
    scaled = groups * scale.reshape(first.groups, 1, -1, *[1] * (weight.ndim - 2))
    graph.set_constant(graph.own_constant(first.node, 1), scaled.reshape(weight.shape).astype(np.float32))
    pixels = graph.model.graph.input[0].name
    first.node.input[0] = pixels
    graph.remove(nodes)
    if shift.any():
        offset, shifted = graph.fresh_name("shift"), graph.fresh_name(pixels)
        graph.set_constant(
            offset, (shift / scale).astype(np.float32).reshape(1, -1, *[1] * (weight.ndim - 2))
        )
        graph.nodes.insert(
            0, onnx.helper.make_node("Add", [pixels, offset], [shifted], graph.fresh_node("shift"))
        )
        first.node.input[0] = shifted
    return True
