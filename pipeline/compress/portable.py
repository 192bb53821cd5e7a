# SPDX-License-Identifier: Apache-2.0
"""Weights that give the same answer on every processor.

Without VNNI, x86 multiplies uint8 by int8 with `vpmaddubsw`, which adds two neighbouring products in 16 bits
and saturates: up to 255 * (127 + 127) = 64770 becomes 32767. Which weights are neighbours depends on how a
library packs them, so here any two weights of a channel may be.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.compress.graphs import Graph
from pipeline.compress.qdq import QuantizedLayer, quantized_layers

__all__ = ["is_portable", "make_portable", "saturating_channels"]

_LARGEST_PAIR = 128
"""255 * 128 = 32640 fits in 16 bits, 255 * 129 = 32895 does not; -128 on the other side fits too."""


def saturating_channels(codes: npt.NDArray[np.int8], axis: int) -> npt.NDArray[np.bool_]:
    """Return which output channels could saturate: any two weights, times 255, leave 16 bits.

    Codes of activations are never negative, so a sum of two products is largest for the two largest weights
    of one sign.

    Args:
        codes: int8 weights.
        axis: Along which output channels lie.

    Returns:
        One boolean a channel.
    """
    rows = np.moveaxis(codes, axis, 0).reshape(codes.shape[axis], -1).astype(np.int64)
    if rows.shape[1] < 2:
        return np.zeros(len(rows), dtype=np.bool_)
    ordered = np.sort(rows, axis=1)
    above = np.maximum(ordered[:, -2:], 0).sum(axis=1)
    below = np.minimum(ordered[:, :2], 0).sum(axis=1)
    unfit: npt.NDArray[np.bool_] = (above > _LARGEST_PAIR) | (below < -_LARGEST_PAIR)
    return unfit


def is_portable(graph: Graph) -> bool:
    """Return whether no channel of a QDQ graph can saturate."""
    return not any(
        saturating_channels(graph.constant(layer.weight).astype(np.int8), layer.axis).any()
        for layer in quantized_layers(graph)
    )


def _codes(
    weight: npt.NDArray[np.float64], scale: npt.NDArray[np.float64], axis: int
) -> npt.NDArray[np.int8]:
    shape = [1] * weight.ndim
    shape[axis] = -1
    return np.clip(np.rint(weight / scale.reshape(shape)), -128, 127).astype(np.int8)


def _coarser(
    weight: npt.NDArray[np.float64], scale: npt.NDArray[np.float64], axis: int
) -> npt.NDArray[np.float64]:
    """Return scales at which no channel saturates, larger only where they must be."""
    rows = np.sort(np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1), axis=1)
    above = np.maximum(rows[:, -2:], 0).sum(axis=1)
    below = -np.minimum(rows[:, :2], 0).sum(axis=1)
    # Two codes may each round up by a half.
    safe = np.maximum(above, below) / (_LARGEST_PAIR - 1)
    unfit = saturating_channels(_codes(weight, scale, axis), axis)
    return np.where(unfit, np.maximum(safe, scale), scale)


def _rescale(graph: Graph, layer: QuantizedLayer, original: Graph) -> int:
    node = next(entry for entry in original.nodes if entry.name == layer.node.name)
    weight = original.constant(node.input[1]).astype(np.float64)
    old = np.broadcast_to(graph.constant(layer.scale).astype(np.float64), weight.shape[layer.axis]).copy()
    scale = _coarser(weight, old, layer.axis).astype(np.float32)
    changed = int((scale != old.astype(np.float32)).sum())
    if graph.constant(layer.scale).size == 1:
        scale = np.array(scale.max(), dtype=np.float32)
    codes = _codes(weight, np.atleast_1d(scale).astype(np.float64), layer.axis)
    graph.set_constant(layer.weight, codes)
    graph.set_constant(layer.scale, scale)
    if layer.bias is not None and layer.bias_scale is not None:
        shape = graph.constant(layer.bias_scale).shape
        steps = np.broadcast_to(scale.astype(np.float64) * float(graph.constant(layer.input_scale)), shape)
        bias = original.constant(node.input[2]).astype(np.float64).reshape(graph.constant(layer.bias).shape)
        limits = np.iinfo(np.int32)
        graph.set_constant(layer.bias_scale, steps.astype(np.float32))
        graph.set_constant(
            layer.bias, np.clip(np.rint(bias / steps), limits.min, limits.max).astype(np.int32)
        )
    return changed


def make_portable(graph: Graph, original: Graph) -> int:
    """Give coarser scales to the channels that could saturate, in place; others keep theirs.

    Args:
        graph: A QDQ graph.
        original: The float graph it was made from, with the same node names.

    Returns:
        How many channels were changed.
    """
    changed = 0
    for layer in quantized_layers(graph):
        if saturating_channels(graph.constant(layer.weight).astype(np.int8), layer.axis).any():
            changed += _rescale(graph, layer, original)
    return changed
