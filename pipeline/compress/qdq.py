# SPDX-License-Identifier: Apache-2.0
"""From a float graph and ranges to a QDQ graph, by ONNX Runtime's quantizer; and layers found again in it.

ONNX Runtime's own calibrators are not used: ranges come from `pipeline.compress.calibration`.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import onnx

from checks.errors import CompressionError
from pipeline.compress.calibration import Range
from pipeline.compress.folding import input_arithmetic
from pipeline.compress.graphs import LAYERS, Graph, Layer, attribute_of

__all__ = ["QuantizedLayer", "quantized_layers", "to_qdq"]

_STAY_FLOAT = ("Softmax", "LogSoftmax")
"""Quantized, rows of probabilities sum to up to 1.016."""


@dataclass(frozen=True)
class QuantizedLayer:
    """A layer of a QDQ graph whose weights are stored as int8.

    Attributes:
        node: The node of the layer.
        weight: Name of the int8 weights.
        scale: Name of their scales, one a channel or one in all.
        axis: Of the weights, along which channels lie.
        input_scale: Name of the scale of its input.
        bias: Name of the int32 biases, if there are any.
        bias_scale: Name of their scales.
    """

    node: onnx.NodeProto
    weight: str
    scale: str
    axis: int
    input_scale: str
    bias: str | None
    bias_scale: str | None


def to_qdq(
    graph: Graph,
    ranges: Mapping[str, Range],
    *,
    only: Collection[str] = (),
    keep_float: Collection[str] = (),
) -> Graph:
    """Quantize a float graph: activations uint8, weights int8 with a scale a channel, biases int32.

    Args:
        graph: Float32; not changed.
        ranges: Of every float activation.
        only: Names of nodes to quantize; none means all.
        keep_float: Names of nodes to leave.

    Returns:
        A QDQ graph with the same node names. Scores stay float where the layer before them can return floats.

    Raises:
        CompressionError: if ONNX Runtime's quantizer fails.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantType
    from onnxruntime.quantization.calibrate import TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    model = onnx.ModelProto()
    model.CopyFrom(onnx.shape_inference.infer_shapes(graph.model))
    # Each operation on pixels would round them once more, and cost more than it does in floats.
    pixels = {node.name for node in input_arithmetic(graph)}
    kept = {*keep_float, *pixels, *(node.name for node in graph.nodes if node.op_type in _STAY_FLOAT)}
    data = {name: (np.float32(low), np.float32(high)) for name, (low, high) in ranges.items()}
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            quantizer = QDQQuantizer(
                model,
                True,
                False,
                QuantType.QInt8,
                QuantType.QUInt8,
                TensorsData(CalibrationMethod.MinMax, data),
                sorted(only),
                sorted(kept),
                sorted({*QLinearOpsRegistry, *QDQRegistry}),
                {},
            )
            quantizer.quantize_model()
            made = quantizer.model.model
    except Exception as error:
        raise CompressionError(
            f"expected the file to quantize, got {type(error).__name__}: {error}",
            where="quantize",
            hint="use precision fp32 for this variant",
        ) from error
    finally:
        logging.disable(previous)
    quantized = Graph(made)
    quantized.sort()
    _free_scores(quantized)
    _hold_float(quantized, keep_float)
    return quantized


def _free_scores(graph: Graph) -> None:
    """Return scores as the last layer computes them: rounded to 256 steps, near winners tie.

    A convolution cannot return floats and still run in integers, so scores straight from one stay rounded.
    """
    producers, readers = graph.producers(), graph.readers()
    scores = next(iter(graph.output_names))
    if scores in producers and producers[scores].op_type in _STAY_FLOAT:
        scores = producers[scores].input[0]
    dequantize = producers.get(scores)
    if dequantize is None or dequantize.op_type != "DequantizeLinear":
        return
    quantize = producers.get(dequantize.input[0])
    if quantize is None or quantize.op_type != "QuantizeLinear" or len(readers[quantize.output[0]]) > 1:
        return
    last = producers.get(quantize.input[0])
    if last is None or last.op_type not in ("Gemm", "MatMul") or len(readers[quantize.input[0]]) > 1:
        return
    graph.remove([quantize, dequantize])
    last.output[0] = scores


def _hold_float(graph: Graph, names: Collection[str]) -> None:
    """Keep ONNX Runtime from quantizing what was kept float, which it does to layers between codes.

    A Clip to what the codes can express changes nothing, and breaks that pattern.
    """
    producers = graph.producers()
    for node in [entry for entry in graph.nodes if entry.name in names]:
        dequantize = producers.get(node.input[0])
        if dequantize is None or dequantize.op_type != "DequantizeLinear":
            continue
        scale, zero = (graph.constant(name).astype(np.float64) for name in dequantize.input[1:3])
        limits = [graph.fresh_name(f"{node.name}.{end}") for end in ("low", "high")]
        for name, code in zip(limits, (0, 255), strict=True):
            # One step beyond the codes, so that no value lies on the edge.
            value = (code - zero + (1 if code else -1)) * scale
            graph.set_constant(name, np.array(value, dtype=np.float32).reshape(()))
        held = graph.fresh_name(node.input[0])
        clip = onnx.helper.make_node("Clip", [node.input[0], *limits], [held], f"{node.name}.hold")
        node.input[0] = held
        graph.nodes.insert(list(graph.nodes).index(node), clip)


def quantized_layers(graph: Graph) -> list[QuantizedLayer]:
    """Return the layers of a QDQ graph whose weights are stored as int8, in the graph's order."""
    producers = graph.producers()

    def source(node: onnx.NodeProto, index: int) -> onnx.NodeProto | None:
        found = producers.get(node.input[index]) if len(node.input) > index else None
        return found if found is not None and found.op_type == "DequantizeLinear" else None

    layers = []
    for node in graph.nodes:
        if node.op_type not in LAYERS:
            continue
        value, weight, bias = (source(node, index) for index in range(3))
        if value is None or weight is None or not graph.is_constant(weight.input[0]):
            continue
        known_bias = bias if bias is not None and graph.is_constant(bias.input[0]) else None
        rank = graph.constant(weight.input[0]).ndim
        per_channel = graph.constant(weight.input[1]).size > 1
        axis = attribute_of(weight, "axis", 1) if per_channel else Layer(node, None, rank).axis
        layers.append(
            QuantizedLayer(
                node,
                weight.input[0],
                weight.input[1],
                axis % rank,
                value.input[1],
                None if known_bias is None else known_bias.input[0],
                None if known_bias is None else known_bias.input[1],
            )
        )
    return layers
