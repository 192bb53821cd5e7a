# SPDX-License-Identifier: Apache-2.0
"""How many weights of an ONNX file are zero; of an int8 file, how many of its codes stand for zero."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from google.protobuf.message import DecodeError
from onnx import numpy_helper

from checks.errors import ModelError

__all__ = ["measure_sparsity"]

_WEIGHTS = {
    "Conv": (1,),
    "ConvTranspose": (1,),
    "Gemm": (0, 1),
    "MatMul": (0, 1),
    "ConvInteger": (1,),
    "MatMulInteger": (0, 1),
    "QLinearConv": (3,),
    "QLinearMatMul": (0, 3),
}
"""Which inputs of an operation may be its weights."""

_ZERO_POINTS = {
    ("DequantizeLinear", 0): 2,
    ("ConvInteger", 1): 3,
    ("MatMulInteger", 0): 2,
    ("MatMulInteger", 1): 3,
    ("QLinearConv", 3): 5,
    ("QLinearMatMul", 0): 2,
    ("QLinearMatMul", 3): 5,
}
"""Operation and input of codes to the input that names the code of zero."""

_CARRIERS = {
    "DequantizeLinear": (0,),
    "Cast": (0,),
    "Identity": (0,),
    "Mul": (0, 1),
    "Reshape": (0,),
    "Squeeze": (0,),
    "Transpose": (0,),
    "Unsqueeze": (0,),
}
"""Operations between a constant and the layer it is the weight of, and which inputs carry it."""

_KINDS = (
    onnx.TensorProto.FLOAT,
    onnx.TensorProto.FLOAT16,
    onnx.TensorProto.BFLOAT16,
    onnx.TensorProto.INT8,
    onnx.TensorProto.UINT8,
)

_Codes = npt.NDArray[np.int64]


def _constants(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    found = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        value = next((entry.t for entry in node.attribute if entry.name == "value"), None)
        if node.op_type == "Constant" and value is not None:
            found[node.output[0]] = value
    return found


def _inputs(node: onnx.NodeProto, places: tuple[int, ...]) -> Iterator[tuple[str, int, onnx.NodeProto]]:
    return ((node.input[place], place, node) for place in places if place < len(node.input))


def _weights(
    graph: onnx.GraphProto, constants: Mapping[str, onnx.TensorProto]
) -> dict[str, tuple[onnx.NodeProto, int]]:
    """Name of each constant that is the weight of a layer, with who reads it first and as which input."""
    makers = {name: node for node in graph.node for name in node.output if node.op_type in _CARRIERS}
    waiting = [entry for node in graph.node for entry in _inputs(node, _WEIGHTS.get(node.op_type, ()))]
    found: dict[str, tuple[onnx.NodeProto, int]] = {}
    seen: set[str] = set()
    while waiting:
        name, place, reader = waiting.pop()
        if name in constants:
            kind, rank = constants[name].data_type, len(constants[name].dims)
            # A scale has the rank of its weight where Mul applies it; it is the float beside the codes.
            if kind in _KINDS and rank > 1 and reader.op_type != "Mul":
                found[name] = (reader, place)
        elif name in makers and name not in seen:
            seen.add(name)
            waiting += _inputs(makers[name], _CARRIERS[makers[name].op_type])
    return found


def _zero(reader: onnx.NodeProto, place: int, rank: int, constants: Mapping[str, onnx.TensorProto]) -> _Codes:
    """Return the code of zero, so that it broadcasts against the codes."""
    index = _ZERO_POINTS.get((reader.op_type, place))
    if index is None or index >= len(reader.input) or reader.input[index] not in constants:
        return np.zeros((), np.int64)
    zero: npt.NDArray[np.int64] = numpy_helper.to_array(constants[reader.input[index]]).astype(np.int64)
    if zero.size == 1 or (zero == zero.flat[0]).all():
        return np.asarray(zero.flat[0])
    axes = {"DequantizeLinear": 1, "ConvInteger": 0, "QLinearConv": 0}
    axis = next(
        (entry.i for entry in reader.attribute if entry.name == "axis"), axes.get(reader.op_type, rank - 1)
    )
    return zero.reshape([-1 if dim == axis % rank else 1 for dim in range(rank)])


def measure_sparsity(path: Path) -> float:
    """Return the share of zeros in the weights of convolutions and matrix products, biases left out.

    Args:
        path: An ONNX file, of floats or of codes; a code stands for zero where it is its zero point.

    Returns:
        A share in [0, 1]; 0 for a file without weights.

    Raises:
        ModelError: if the file is not an ONNX model.
    """
    try:
        graph = onnx.load(path, load_external_data=False).graph
        constants = _constants(graph)
        zeros = total = 0
        for name, (reader, place) in _weights(graph, constants).items():
            values = numpy_helper.to_array(constants[name])
            zeros += int((values == _zero(reader, place, values.ndim, constants)).sum())
            total += values.size
    except (OSError, DecodeError, ValueError) as error:
        raise ModelError(
            f"expected an ONNX model, got {type(error).__name__}: {error}", where=str(path)
        ) from error
    return zeros / max(1, total)
