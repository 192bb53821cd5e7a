# SPDX-License-Identifier: Apache-2.0
"""Bias correction: quantization shifts the mean of a layer's output, and a bias can shift it back.

Nagel et al. 2019 (https://arxiv.org/abs/1906.04721, section 4.2, with calibration images) and Finkelstein et
al. 2019, Fighting Quantization Bias With Bias (https://arxiv.org/abs/1906.03193).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pipeline.compress.calibration import run_on
from pipeline.compress.graphs import Graph
from pipeline.compress.qdq import quantized_layers

__all__ = ["add_missing_biases", "correct_biases", "mean_outputs"]


_MOST = 256
"""Images; means are compared on the same ones, so that few tell enough."""


def add_missing_biases(graph: Graph) -> None:
    """Give every convolution and Gemm without a bias one of zeros, in place."""
    for layer in list(graph.layers(("Conv", "Gemm"))):
        if len(layer.node.input) == 2:
            name = graph.fresh_name(f"{layer.weight}.bias")
            graph.set_constant(name, np.zeros(graph.constant(layer.weight).shape[layer.axis], np.float32))
            layer.node.input.append(name)


def mean_outputs(
    graph: Graph, names: Sequence[str], images: npt.NDArray[np.float32]
) -> dict[str, npt.NDArray[np.float64]]:
    """Return the mean of each channel (axis 1) of the named values over images and positions."""
    sums: dict[str, npt.NDArray[np.float64]] = {}
    for values in run_on(graph, names, images):
        for name, value in values.items():
            axes = tuple(axis for axis in range(value.ndim) if axis != 1)
            part = value.mean(axis=axes, dtype=np.float64) * len(value)
            sums[name] = sums.get(name, np.zeros_like(part)) + part
    return {name: value / len(images) for name, value in sums.items()}


def correct_biases(graph: Graph, original: Graph, images: npt.NDArray[np.float32]) -> int:
    """Move the int32 biases so that each layer's mean output is that of the float graph, in place.

    Layer after layer, so that each is corrected for what is left of the errors before it.

    Args:
        graph: A QDQ graph.
        original: The float graph it was made from, with the same node names.
        images: `(N, C, H, W)` raw pixels of the calibration split; the first 256 are used.

    Returns:
        How many layers were corrected; those without a bias are left.
    """
    images = images[:_MOST]
    outputs = {node.name: str(node.output[0]) for node in original.nodes}
    layers = [layer for layer in quantized_layers(graph) if layer.node.op_type in ("Conv", "Gemm")]
    layers = [layer for layer in layers if layer.bias is not None]
    if not layers:
        return 0
    want = mean_outputs(original, [outputs[layer.node.name] for layer in layers], images)
    corrected = 0
    for layer in layers:
        if layer.bias is None or layer.bias_scale is None:
            continue
        value = str(layer.node.output[0])
        came = mean_outputs(graph, [value], images)[value]
        missing = want[outputs[layer.node.name]] - came
        bias = graph.constant(layer.bias)
        steps = np.rint(missing / graph.constant(layer.bias_scale).astype(np.float64))
        limits = np.iinfo(np.int32)
        moved = np.clip(bias.astype(np.float64) + steps.reshape(bias.shape), limits.min, limits.max)
        graph.set_constant(layer.bias, moved.astype(np.int32))
        corrected += 1
    return corrected
