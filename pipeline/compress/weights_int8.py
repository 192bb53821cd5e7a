# SPDX-License-Identifier: Apache-2.0
"""Weights stored as int8 with one scale a channel, arithmetic in floats: a quarter of the bytes.

Weights are expanded by Cast and Mul rather than by DequantizeLinear: ONNX Runtime computes the former once,
when it loads the file, but the latter in every call, in front of convolutions it then cannot lay out well.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from checks.errors import CompressionError
from pipeline.compress.folding import fold_batch_norms
from pipeline.compress.graphs import LAYERS, Graph, Layer, read_graph
from pipeline.models.onnx_file import compact_model, save_onnx

__all__ = ["quantize_weight", "quantize_weights_int8", "store_weights_int8"]


def quantize_weight(
    weight: npt.NDArray[np.float64], axis: int, *, where: str
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Quantize weights symmetrically.

    Args:
        weight: The weights.
        axis: Along which each has a scale of its own.
        where: Name of the layer, for messages.

    Returns:
        Codes in [-127, 127], and scales shaped to be multiplied with them.

    Raises:
        CompressionError: if a weight is NaN or infinite.
    """
    if not np.isfinite(weight).all():
        raise CompressionError(
            "expected finite weights, got NaN or infinity", where=f"quantize, layer {where}"
        )
    others = tuple(index for index in range(weight.ndim) if index != axis)
    largest = np.abs(weight).max(axis=others, keepdims=True)
    scale = np.where(largest > 0, largest / 127, 1.0).astype(np.float32)
    return np.clip(np.rint(weight / scale), -127, 127).astype(np.int8), scale


def _channel_axis(layer: Layer) -> int:
    """Axis of scales; a transposed convolution with groups repeats its outputs, so inputs are scaled."""
    return 0 if layer.node.op_type == "ConvTranspose" and layer.groups > 1 else layer.axis


def store_weights_int8(graph: Graph, kinds: Collection[str] = LAYERS) -> int:
    """Store the weights of layers as int8, in place, each with a Cast and a Mul that make floats of them.

    Args:
        graph: Float32.
        kinds: Operations whose weights are stored so.

    Returns:
        How many weights were.

    Raises:
        CompressionError: if a weight is NaN or infinite.
    """
    expanded: dict[str, str] = {}
    nodes = []
    for layer in list(graph.layers(tuple(kinds))):
        if layer.weight not in expanded:
            weight = graph.constant(layer.weight).astype(np.float64)
            codes, scale = quantize_weight(weight, _channel_axis(layer), where=layer.weight)
            names = [
                graph.fresh_name(f"{layer.weight}.{part}") for part in ("codes", "scale", "cast", "float")
            ]
            graph.set_constant(names[0], codes)
            graph.set_constant(names[1], scale)
            kind = onnx.TensorProto.FLOAT
            nodes.append(onnx.helper.make_node("Cast", [names[0]], [names[2]], f"{layer.name}.cast", to=kind))
            nodes.append(
                onnx.helper.make_node("Mul", [names[2], names[1]], [names[3]], f"{layer.name}.scale")
            )
            expanded[layer.weight] = names[3]
        layer.node.input[1] = expanded[layer.weight]
    for index, node in enumerate(nodes):
        graph.nodes.insert(index, node)
    graph.remove([])
    return len(expanded)


def quantize_weights_int8(source: Path, destination: Path) -> dict[str, Any]:
    """Write `destination`, the file `source` with the weights of its layers stored as int8.

    Args:
        source: A float32 ONNX file.
        destination: Where the result goes.

    Returns:
        `layers`: how many weights were stored so.

    Raises:
        CompressionError: if there are no layers with weights, or one is not finite.
    """
    graph = read_graph(source)
    fold_batch_norms(graph)
    count = store_weights_int8(graph)
    if not count:
        raise CompressionError(
            "expected layers with weights to quantize, got none", where="quantize", hint="use precision fp32"
        )
    save_onnx(compact_model(graph.model), destination)
    return {"layers": count}
