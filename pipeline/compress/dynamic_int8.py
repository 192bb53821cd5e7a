# SPDX-License-Identifier: Apache-2.0
"""Dynamic int8: matrix products in integers with ranges found at run time; convolutions compute in floats.

Two habits of ONNX Runtime's `quantize_dynamic` are not followed. Its dynamic convolution (`ConvInteger`)
is seven times slower than its float one: here weights of convolutions are stored as int8 and computed with as
floats. And its range is that of a whole batch, so that an answer depends on the images that happen to lie
beside it: here each row has a range of its own, as dynamic quantization of language models has for each token
(Yao et al. 2022, ZeroQuant, https://arxiv.org/abs/2206.01861).
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper

from checks.errors import CompressionError
from pipeline.compress.folding import fold_batch_norms
from pipeline.compress.graphs import Graph, Layer, attribute_of, read_graph
from pipeline.compress.integers import expect_integers
from pipeline.compress.weights_int8 import quantize_weight, store_weights_int8
from pipeline.models.onnx_file import compact_model, save_onnx

__all__ = ["quantize_dynamic_int8"]

_PRODUCTS = ("MatMul", "Gemm")
_ZERO = 128
_LEAST_STEP = 1e-20
"""Step of a row of zeros: any will do that is not zero."""


def _float_attribute(node: onnx.NodeProto, name: str) -> float:
    return next((float(entry.f) for entry in node.attribute if entry.name == name), 1.0)


def _fits(graph: Graph, layer: Layer) -> bool:
    """Whether a product is one of rows with a constant matrix, and maybe a constant bias."""
    node = layer.node
    bias_fits = len(node.input) < 3 or layer.bias is not None
    return graph.constant(layer.weight).ndim == 2 and not attribute_of(node, "transA", 0) and bias_fits


def _largest(graph: Graph, source: str, result: str, name: str) -> onnx.NodeProto:
    opset = max(entry.version for entry in graph.model.opset_import if entry.domain in ("", "ai.onnx"))
    if opset < 18:
        return helper.make_node("ReduceMax", [source], [result], name, axes=[-1], keepdims=1)
    axes = graph.fresh_name(f"{name}.axes")
    graph.set_constant(axes, np.array([-1], np.int64))
    return helper.make_node("ReduceMax", [source, axes], [result], name, keepdims=1)


def _to_integers(graph: Graph, layer: Layer) -> None:
    """Replace one product by one of codes: rows are scaled to 127 steps, multiplied, and scaled back."""
    node, stem = layer.node, layer.name
    weight = graph.constant(layer.weight).astype(np.float64)
    weight = weight.T if attribute_of(node, "transB", 0) else weight
    codes, scale = quantize_weight(_float_attribute(node, "alpha") * weight, 1, where=layer.weight)
    constants: dict[str, Any] = {
        "codes": codes,
        "scale": scale.reshape(-1),
        "share": np.array(1 / 127, np.float32),
        "least": np.array(_LEAST_STEP, np.float32),
        "one": np.array(1, np.float32),
        "zero": np.array(_ZERO, np.uint8),
    }
    if layer.bias is not None:
        constants["bias"] = (_float_attribute(node, "beta") * graph.weights(layer.bias)).astype(np.float32)
    name = {key: graph.fresh_name(f"{stem}.{key}") for key in constants}
    for key, value in constants.items():
        graph.set_constant(name[key], value)
    values = ("size", "largest", "step", "safe", "steps", "row", "product", "float", "scaled", "plain")
    name |= {key: graph.fresh_name(f"{stem}.{key}") for key in values}
    last = "plain" if layer.bias is not None else "output"
    name["output"], image = layer.output, node.input[0]

    def make(op: str, inputs: list[str], result: str, **attributes: Any) -> onnx.NodeProto:
        return helper.make_node(op, inputs, [name[result]], f"{stem}.{op}.{result}", **attributes)

    nodes = [
        make("Abs", [image], "size"),
        _largest(graph, name["size"], name["largest"], f"{stem}.largest"),
        make("Mul", [name["largest"], name["share"]], "step"),
        make("Clip", [name["step"], name["least"]], "safe"),
        make("Div", [image, name["safe"]], "steps"),
        make("QuantizeLinear", [name["steps"], name["one"], name["zero"]], "row"),
        make("MatMulInteger", [name["row"], name["codes"], name["zero"]], "product"),
        make("Cast", [name["product"]], "float", to=onnx.TensorProto.FLOAT),
        make("Mul", [name["float"], name["scale"]], "scaled"),
        make("Mul", [name["scaled"], name["safe"]], last),
    ]
    if layer.bias is not None:
        nodes.append(make("Add", [name["plain"], name["bias"]], "output"))
    place = list(graph.nodes).index(node)
    for index, entry in enumerate(nodes):
        graph.nodes.insert(place + index, entry)
    graph.remove([node])


def quantize_dynamic_int8(source: Path, destination: Path) -> dict[str, Any]:
    """Write `destination`, the file `source` with integer matrix products and int8 weights throughout.

    Args:
        source: A float32 ONNX file.
        destination: Where the result goes.

    Returns:
        How many `products` there are, how many of them run as `integer_products`, and how many
        `weights_only` layers store int8 and compute in floats.

    Raises:
        CompressionError: if there is no matrix product with constant weights, or one stays float.
    """
    graph = read_graph(source)
    fold_batch_norms(graph)
    layers = [layer for layer in graph.layers(_PRODUCTS) if _fits(graph, layer)]
    if not layers:
        raise CompressionError(
            "expected matrix products with constant weights, got none",
            where="quantize",
            hint="use method static, or weights for size alone",
        )
    total = sum(node.op_type in _PRODUCTS for node in graph.nodes)
    convolutions = sum(node.op_type in ("Conv", "ConvTranspose") for node in graph.nodes)
    for layer in layers:
        _to_integers(graph, layer)
    stored = store_weights_int8(graph)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "int8.onnx"
        save_onnx(compact_model(graph.model), path)
        found = expect_integers(path, float_convolutions=convolutions, float_products=total - len(layers))
        destination.write_bytes(path.read_bytes())
    return {
        "products": found.products,
        "integer_products": found.integer_products,
        "weights_only": stored,
    }
