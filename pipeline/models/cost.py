# SPDX-License-Identifier: Apache-2.0
"""What an ONNX file costs: bytes, multiply-accumulates, parameters; counted in the file itself."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from math import prod
from pathlib import Path

import onnx

from checks.errors import ModelError

__all__ = ["Cost", "measure_cost"]

_TYPES_OF_WEIGHTS = (
    onnx.TensorProto.FLOAT,
    onnx.TensorProto.FLOAT16,
    onnx.TensorProto.INT8,
    onnx.TensorProto.UINT8,
)


@dataclass(frozen=True)
class Cost:
    """Cost of one ONNX file.

    Attributes:
        bytes: Size of the file.
        gzip_bytes: Size after gzip at level 9.
        macs: Multiply-accumulates of one image in convolutions, matrix products and recurrent layers.
        parameters: Numbers in weights and biases of those operations.
    """

    bytes: int
    gzip_bytes: int
    macs: int
    parameters: int


def _shapes(graph: onnx.GraphProto) -> dict[str, tuple[int, ...]]:
    """Shape of every value for a batch of one; a symbolic dimension counts as 1."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in [*graph.input, *graph.output, *graph.value_info]:
        dims = value.type.tensor_type.shape.dim
        shapes[value.name] = tuple(dim.dim_value if dim.HasField("dim_value") else 1 for dim in dims)
    return shapes


def _macs(node: onnx.NodeProto, shapes: dict[str, tuple[int, ...]]) -> int:
    if node.op_type in ("Conv", "ConvInteger", "ConvTranspose", "QLinearConv"):
        weight = shapes[node.input[3 if node.op_type == "QLinearConv" else 1]]
        output = shapes[node.output[0]]
        spatial = shapes[node.input[0]][2:] if node.op_type == "ConvTranspose" else output[2:]
        return prod(weight) * prod(spatial)
    if node.op_type in ("Gemm", "MatMul", "MatMulInteger", "QLinearMatMul"):
        left, output = shapes[node.input[0]], shapes[node.output[0]]
        transposed = any(item.name == "transA" and item.i for item in node.attribute)
        inner = left[0] if transposed else left[-1]
        return inner * prod(output)
    if node.op_type in ("GRU", "LSTM", "RNN"):
        # Weights `(directions, gates, inputs)` and `(directions, gates, hidden)` are read once a step.
        steps = shapes[node.input[0]][0]
        return steps * (prod(shapes[node.input[1]]) + prod(shapes[node.input[2]]))
    if node.op_type == "Einsum":
        return _einsum_macs(node, [shapes[name] for name in node.input])
    return 0


def _einsum_macs(node: onnx.NodeProto, shapes: list[tuple[int, ...]]) -> int:
    """One a combination of all indices, if two tensors are multiplied; one alone is only rearranged."""
    if len(shapes) < 2:
        return 0
    equation = next((item.s.decode() for item in node.attribute if item.name == "equation"), "")
    letters = [list(part.strip()) for part in equation.replace(" ", "").split("->")[0].split(",")]
    if any("." in part for part in letters) or len(letters) != len(shapes):
        raise ValueError(f"expected an Einsum whose indices all have names, got {equation!r}")
    sizes: dict[str, int] = {}
    for part, shape in zip(letters, shapes, strict=True):
        sizes |= {letter: max(size, sizes.get(letter, 1)) for letter, size in zip(part, shape, strict=True)}
    return prod(sizes.values())


def _depends_on_image(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Nodes that an image changes; what only constants go into is computed once, when the file is loaded."""
    constants = {tensor.name for tensor in graph.initializer}
    alive = {value.name for value in graph.input} - constants
    found = []
    for node in graph.node:
        inner = any(item.type == onnx.AttributeProto.GRAPH for item in node.attribute)
        if inner or alive & set(node.input):
            alive |= set(node.output)
            found.append(node)
    return found


_CODE_INPUTS = {
    "QuantizeLinear": (0,),
    "DequantizeLinear": (0,),
    "QLinearConv": (0, 3, 8),
    "QLinearMatMul": (0, 3),
    "ConvInteger": (0, 1),
    "MatMulInteger": (0, 1),
}
"""Which inputs of an operation on codes are data; the rest are scales and zero points."""


def _quantizer_inputs(graph: onnx.GraphProto) -> set[str]:
    """Names of scales and zero points: they are no parameters; they are few, and bytes count them."""
    kinds = {tensor.name: tensor.data_type for tensor in graph.initializer}
    integers = (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)
    products = {node.output[0] for node in graph.node if node.op_type in ("MatMulInteger", "ConvInteger")}
    # Codes become floats by Cast and Mul where DequantizeLinear would be computed anew in every call.
    scaled = {
        node.output[0]
        for node in graph.node
        if node.op_type == "Cast" and (node.input[0] in products or kinds.get(node.input[0]) in integers)
    }
    found = set()
    for node in graph.node:
        if node.op_type in _CODE_INPUTS:
            data = _CODE_INPUTS[node.op_type]
            found |= {name for index, name in enumerate(node.input) if index not in data}
        elif node.op_type == "Mul" and scaled & set(node.input):
            found |= {name for name in node.input if name in kinds}
    return found


def measure_cost(path: Path) -> Cost:
    """Count what one ONNX file costs.

    Raises:
        ModelError: if the file is not an ONNX model whose shapes can be inferred.
    """
    from google.protobuf.message import DecodeError

    try:
        data = path.read_bytes()
        model = onnx.load_model_from_string(data)
        for value in model.graph.input:
            value.type.tensor_type.shape.dim[0].dim_value = 1
        for value in model.graph.output:
            value.type.tensor_type.shape.dim[0].Clear()
        graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
        shapes = _shapes(graph)
        macs = sum(_macs(node, shapes) for node in _depends_on_image(graph))
    except (
        OSError,
        DecodeError,
        onnx.shape_inference.InferenceError,
        KeyError,
        IndexError,
        ValueError,
    ) as error:
        raise ModelError(
            f"expected an ONNX model, got {type(error).__name__}: {error}", where=str(path)
        ) from error
    quantizer_inputs = _quantizer_inputs(graph)
    parameters = sum(
        prod(tensor.dims)
        for tensor in graph.initializer
        if tensor.name not in quantizer_inputs
        and (tensor.data_type in _TYPES_OF_WEIGHTS or tensor.data_type == onnx.TensorProto.INT32)
        and prod(tensor.dims) > 1
    )
    return Cost(len(data), len(gzip.compress(data, compresslevel=9, mtime=0)), macs, parameters)
