# SPDX-License-Identifier: Apache-2.0
"""Cross-layer equalization: channels of neighbouring layers are scaled so that their weights range alike.

Nagel et al. 2019, Data-Free Quantization through Weight Equalization and Bias Correction
(https://arxiv.org/abs/1906.04721), section 4.1. What lies between the two layers must commute with
multiplication by a positive number, so the network computes the same before and after.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx

from pipeline.compress.graphs import Graph, Layer

__all__ = ["equalize_layers"]

_PASSED = ("Relu", "LeakyRelu", "MaxPool", "AveragePool")
"""Operations between two convolutions that commute with a positive factor a channel."""
_ROUNDS = 20
_SETTLED = 1e-3
_NEARLY_DEAD = 1e-3
"""Share of its layer's largest weight below which a channel is left as it is."""


def _pairs(graph: Graph) -> list[tuple[Layer, Layer]]:
    """Return pairs of convolutions of which the second alone reads the first."""
    readers, layers = graph.readers(), {layer.name: layer for layer in graph.layers(("Conv",))}
    pairs = []
    for first in layers.values():
        value, node = first.output, first.node
        while len(readers[value]) == 1 and value not in graph.output_names:
            node = readers[value][0]
            if node.op_type not in _PASSED:
                break
            value = node.output[0]
        second = layers.get(node.name)
        bias_known = first.bias is not None or len(first.node.input) == 2
        if second is not None and node is not first.node and node.input[0] == value and bias_known:
            pairs.append((first, second))
    return pairs


def _by_input(weight: npt.NDArray[np.float64], groups: int) -> npt.NDArray[np.float64]:
    """Return the largest |weight| of each input channel; weight `(O, I / groups, ...)`, result `(I,)`."""
    outputs, inputs = weight.shape[:2]
    largest = np.abs(weight).reshape(groups, outputs // groups, inputs, -1).max(axis=(1, 3))
    found: npt.NDArray[np.float64] = largest.reshape(groups * inputs)
    return found


def _scale_inputs(weight: npt.NDArray[np.float64], factor: npt.NDArray[np.float64], groups: int) -> None:
    outputs, inputs = weight.shape[:2]
    view = weight.reshape(groups, outputs // groups, inputs, -1)
    view *= factor.reshape(groups, 1, inputs, 1)


def _equalize(
    first: npt.NDArray[np.float64], second: npt.NDArray[np.float64], groups: int
) -> npt.NDArray[np.float64]:
    """Scale two weights in place and return the factor each output channel of the first was divided by."""
    one = np.abs(first).reshape(len(first), -1).max(axis=1)
    two = _by_input(second, groups)
    # A channel (nearly) without weights on one side says nothing about the scale of the other: it would blow
    # up its bias, and with it the range of the whole activation.
    alive = (one > _NEARLY_DEAD * one.max()) & (two > _NEARLY_DEAD * two.max())
    factor = np.ones(len(first))
    factor[alive] = np.sqrt(one[alive] / two[alive])
    first /= factor.reshape(-1, *[1] * (first.ndim - 1))
    _scale_inputs(second, factor, groups)
    return factor


def equalize_layers(graph: Graph) -> int:
    """Equalize the ranges of every pair of neighbouring convolutions, in place.

    Chains are iterated until no factor moves by more than a thousandth, at most 20 rounds.

    Returns:
        How many pairs there were.
    """
    pairs = _pairs(graph)
    for pair in pairs:
        for layer in pair:
            graph.own_constant(layer.node, 1)
        if len(pair[0].node.input) > 2:
            graph.own_constant(pair[0].node, 2)
    nodes: dict[str, onnx.NodeProto] = {layer.name: layer.node for pair in pairs for layer in pair}
    weights = {name: graph.constant(node.input[1]).astype(np.float64) for name, node in nodes.items()}
    biases = {
        first.name: graph.constant(first.node.input[2]).astype(np.float64)
        for first, _ in pairs
        if len(first.node.input) > 2
    }
    for _ in range(_ROUNDS):
        moved = 0.0
        for first, second in pairs:
            factor = _equalize(weights[first.name], weights[second.name], second.groups)
            if first.name in biases:
                biases[first.name] /= factor
            moved = max(moved, float(np.abs(np.log(factor)).max()))
        if moved < _SETTLED:
            break
    for name, node in nodes.items():
        graph.set_constant(node.input[1], weights[name].astype(np.float32))
        if name in biases:
            graph.set_constant(node.input[2], biases[name].astype(np.float32))
    return len(pairs)
