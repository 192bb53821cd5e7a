# SPDX-License-Identifier: Apache-2.0
"""Static int8 quantization of an ONNX file: uint8 activations, int8 weights with one scale a channel.

The result is a QDQ graph. Signed activations would leave most convolutions in float on CPUs, so activations
are uint8; and a file whose layers do not run in integers is refused rather than called int8.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from checks.errors import CompressionError, ParamsError
from checks.evidence import Output
from pipeline.compress.bias_correction import add_missing_biases, correct_biases
from pipeline.compress.calibration import find_ranges
from pipeline.compress.equalization import equalize_layers
from pipeline.compress.folding import fold_batch_norms, fold_input_scale
from pipeline.compress.graphs import Graph, read_graph
from pipeline.compress.integers import count_integer_layers, expect_integers
from pipeline.compress.pooling import pool_planes
from pipeline.compress.portable import make_portable
from pipeline.compress.precision_configs import StaticInt8
from pipeline.compress.qdq import quantized_layers, to_qdq
from pipeline.compress.sensitivity import rank_layers
from pipeline.models.onnx_file import compact_model, save_onnx

__all__ = ["integer_share", "quantize_static_int8"]


def integer_share(path: Path) -> tuple[int, int]:
    """Return how many convolutions of the file ONNX Runtime runs in integers, and how many there are.

    Raises:
        CompressionError: if ONNX Runtime cannot load the file.
    """
    found = count_integer_layers(path)
    return found.integer_convolutions, found.convolutions


def _declared_float(graph: Graph, kept: list[str]) -> dict[str, int]:
    """Count what may run in floats: kept layers, and products of two activations."""
    convolutions = sum(layer.name in kept for layer in graph.layers(("Conv", "ConvTranspose")))
    weighted = {layer.name for layer in graph.layers(("Gemm", "MatMul"))}
    free = sum(node.op_type in ("Gemm", "MatMul") and node.name not in weighted for node in graph.nodes)
    # ONNX Runtime has no integer kernel for transposed convolutions.
    convolutions += sum(node.op_type == "ConvTranspose" and node.name not in kept for node in graph.nodes)
    return {"float_convolutions": convolutions, "float_products": free + len(weighted & set(kept))}


def _kept_float(graph: Graph, config: StaticInt8) -> list[str]:
    """The first convolution, if it is to stay float."""
    if not config.float_first:
        return []
    layers = list(graph.layers())
    if len(layers) < 2 or layers[0].node.op_type != "Conv":
        kind = layers[0].node.op_type if layers else "no layer"
        raise ParamsError(
            f"expected a convolution first, and layers after it, got {kind} first of {len(layers)}",
            where="quantize.float_first",
            hint="leave float_first out for this variant",
        )
    return [layers[0].name]


def quantize_static_int8(
    source: Path,
    destination: Path,
    images: npt.NDArray[np.float32],
    config: StaticInt8,
    *,
    output: Output = "logits",
    fold: bool = True,
) -> dict[str, Any]:
    """Quantize the ONNX file `source` and write the int8 file `destination`.

    Args:
        source: A float32 file with weights inside.
        destination: Where the int8 file goes; no metadata, same bytes every time.
        images: `(N, C, H, W)` raw pixels of the calibration split, N >= 32.
        config: How to calibrate, and what to do besides.
        output: What the file answers, `logits` or `probabilities`.
        fold: Whether the scale of pixels may become part of the first convolution.

    Returns:
        How many `convolutions` and matrix `products` there are and how many of them run in integers. Where
        that was asked for: the ranking of layers, those that stay float; how many pairs of layers were
        equalized, norms folded, biases corrected, channels rescaled to be portable.

    Raises:
        CompressionError: if there is too little to calibrate on, quantization fails, or layers stay float
            that were not asked to.
    """
    graph = read_graph(source)
    figures: dict[str, Any] = {}
    if folded := fold_batch_norms(graph):
        figures["folded_norms"] = folded
    if fold:
        fold_input_scale(graph)
    pool_planes(graph)
    if config.equalize:
        figures["equalized_pairs"] = equalize_layers(graph)
    if config.correct_bias:
        add_missing_biases(graph)
    ranges = find_ranges(graph, images, config)
    kept = _kept_float(graph, config)
    if config.keep_float:
        ranking = [
            entry for entry in rank_layers(graph, ranges, images, output=output) if entry.node not in kept
        ]
        if len(ranking) <= config.keep_float:
            raise ParamsError(
                f"expected keep_float below the number of layers {len(ranking)} that could stay float, "
                f"got {config.keep_float}",
                where="quantize.keep_float",
            )
        kept += [entry.node for entry in ranking[: config.keep_float]]
        figures["sensitivity"] = [{"layer": entry.layer, "divergence": entry.divergence} for entry in ranking]
    if kept:
        weights = {layer.name: layer.weight for layer in graph.layers()}
        figures["kept_float"] = [weights[name] for name in kept]
    made = to_qdq(graph, ranges, keep_float=kept)
    if not quantized_layers(made):
        raise CompressionError(
            "expected layers with weights to quantize, got none", where="quantize", hint="use precision fp32"
        )
    if config.portable:
        figures["rescaled_channels"] = make_portable(made, graph)
    if config.correct_bias:
        figures["corrected_layers"] = correct_biases(made, graph, images)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "int8.onnx"
        save_onnx(compact_model(made.model), path)
        found = expect_integers(path, **_declared_float(graph, kept))
        destination.write_bytes(path.read_bytes())
    return {
        "convolutions": found.convolutions,
        "integer_convolutions": found.integer_convolutions,
        "products": found.products,
        "integer_products": found.integer_products,
        **figures,
    }
