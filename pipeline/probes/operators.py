# SPDX-License-Identifier: Apache-2.0
"""ONNX operators, opsets 13 to 23, as differentiable torch functions (https://onnx.ai/onnx/operators/).

Rounding is straight-through: forward it
rounds, backward it is the identity, so that gradients reach the pixels through int8 models
(Bengio, Leonard and Courville 2013, https://arxiv.org/abs/1308.3432).

Imports torch at its top; import it inside functions.
"""

# ruff: noqa: TID253 - this module defines torch functions, and stages import it inside `run`

from __future__ import annotations

from collections.abc import Callable, Mapping

import onnx
import torch
from torch import Tensor
from torch.nn import functional

from checks.errors import ProbeError
from pipeline.probes.call import Call
from pipeline.probes.windows import average_pool, convolve, max_pool

__all__ = ["OPERATORS"]

Operator = Callable[[Call], Tensor]


def _unary(name: str) -> Operator:
    function = getattr(torch, name)
    return lambda call: function(call.tensor(0))


def _binary(name: str) -> Operator:
    function = getattr(torch, name)
    return lambda call: function(call.tensor(0), call.tensor(1))


def _identity(call: Call) -> Tensor:
    return call.tensor(0)


def _divide(call: Call) -> Tensor:
    left, right = call.tensor(0), call.tensor(1)
    return left / right if left.is_floating_point() else torch.div(left, right, rounding_mode="trunc")


def _scale_shape(parameter: Tensor, value: Tensor, axis: int) -> Tensor:
    """Shape a per-channel scale or zero point so that it applies along `axis`."""
    if parameter.numel() == 1:
        return parameter.reshape(())
    shape = [1] * value.ndim
    shape[axis] = -1
    return parameter.reshape(shape)


_RANGES = {
    torch.uint8: (0, 255),
    torch.int8: (-128, 127),
    torch.uint16: (0, 65535),
    torch.int16: (-32768, 32767),
}
_CODES = {
    onnx.TensorProto.UINT8: torch.uint8,
    onnx.TensorProto.INT8: torch.int8,
    onnx.TensorProto.UINT16: torch.uint16,
    onnx.TensorProto.INT16: torch.int16,
}


def _quantize(call: Call) -> Tensor:
    call.refuse("block_size", 0)
    value, scale, zero = call.tensor(0), call.tensor(1), call.optional(2)
    wanted = call.get("output_dtype", 0)
    kind = zero.dtype if zero is not None else _CODES.get(wanted or onnx.TensorProto.UINT8)
    if kind not in _RANGES:
        raise ProbeError(f"expected {call.op} to 8- or 16-bit integers, got {kind or wanted}")
    axis = call.get("axis", 1)
    scaled = value / _scale_shape(scale, value, axis)
    # Straight-through: the value is exactly the rounded one, the gradient that of `scaled`.
    codes = scaled.round().detach() + (scaled - scaled.detach())
    if zero is not None:
        codes = codes + _scale_shape(zero.to(value.dtype), value, axis)
    return codes.clamp(*_RANGES[kind])


def _dequantize(call: Call) -> Tensor:
    call.refuse("block_size", 0)
    codes, scale, zero = call.tensor(0), call.tensor(1), call.optional(2)
    axis = call.get("axis", 1)
    value = codes.to(scale.dtype)
    if zero is not None:
        value = value - _scale_shape(zero.to(scale.dtype), value, axis)
    return value * _scale_shape(scale, value, axis)


def _integer_product(call: Call) -> Tensor:
    """Multiply codes less their zero points, in floats: exact below 2^24, and with a gradient."""
    left, right = call.tensor(0), call.tensor(1).to(torch.float32)
    left_zero, right_zero = call.optional(2), call.optional(3)
    if left_zero is not None and left_zero.numel() > 1:
        raise ProbeError(f"expected one zero point of the left matrix of {call.op}, got {left_zero.numel()}")
    left = left.to(torch.float32)
    if left_zero is not None:
        left = left - left_zero.to(torch.float32)
    if right_zero is not None:
        right = right - right_zero.to(torch.float32)
    return left @ right


def _over_space(call: Call, reduce: Callable[..., Tensor]) -> Tensor:
    value = call.tensor(0)
    return reduce(value, dim=tuple(range(2, value.ndim)), keepdim=True)


def _reduce(reduce: Callable[..., Tensor]) -> Operator:
    def apply(call: Call) -> Tensor:
        value, axes = call.tensor(0), call.integers("axes", 1)
        if not axes and call.get("noop_with_empty_axes", 0):
            return value
        return reduce(value, dim=tuple(axes or range(value.ndim)), keepdim=bool(call.get("keepdims", 1)))

    return apply


def _gemm(call: Call) -> Tensor:
    left, right, bias = call.tensor(0), call.tensor(1), call.optional(2)
    left = left.T if call.get("transA", 0) else left
    right = right.T if call.get("transB", 0) else right
    product: Tensor = call.get("alpha", 1.0) * (left @ right)
    return product if bias is None else product + call.get("beta", 1.0) * bias


def _clip(call: Call) -> Tensor:
    value, low, high = call.tensor(0), call.optional(1), call.optional(2)
    return value if low is None and high is None else torch.clamp(value, low, high)


def _flatten(call: Call) -> Tensor:
    value, axis = call.tensor(0), call.get("axis", 1)
    axis = axis + value.ndim if axis < 0 else axis
    rows = 1
    for size in value.shape[:axis]:
        rows *= size
    return value.reshape(rows, -1)


def _reshape(call: Call) -> Tensor:
    value = call.tensor(0)
    shape = [int(size) for size in call.tensor(1).tolist()]
    if not call.get("allowzero", 0):
        shape = [value.shape[index] if size == 0 else size for index, size in enumerate(shape)]
    return value.reshape(shape)


def _transpose(call: Call) -> Tensor:
    value = call.tensor(0)
    return value.permute(call.get("perm", list(reversed(range(value.ndim)))))


def _concat(call: Call) -> Tensor:
    return torch.cat([call.tensor(index) for index in range(len(call.inputs))], dim=call.get("axis"))


def _pad(call: Call) -> Tensor:
    value, pads, fill = call.tensor(0), call.integers("pads", 1) or [], call.optional(2)
    axes = call.integers("axes", 3)
    axes = list(range(value.ndim)) if axes is None else axes
    ends = {axis % value.ndim: (pads[index], pads[index + len(axes)]) for index, axis in enumerate(axes)}
    call.refuse("mode", "constant", "reflect", "edge")
    mode = "replicate" if call.get("mode") == "edge" else call.get("mode", "constant")
    first = 0 if mode == "constant" else 2
    if any(ends.get(axis, (0, 0)) != (0, 0) for axis in range(first)):
        raise ProbeError(f"expected {mode} Pad of height and width alone, got pads {pads}")
    flat = [end for axis in reversed(range(first, value.ndim)) for end in ends.get(axis, (0, 0))]
    if mode == "constant":
        return functional.pad(value, flat, value=0.0 if fill is None else float(fill))
    return functional.pad(value, flat, mode=mode)


def _batch_normalize(call: Call) -> Tensor:
    call.refuse("training_mode", 0)
    value, scale, bias, mean, variance = (call.tensor(index) for index in range(5))
    return functional.batch_norm(value, mean, variance, scale, bias, False, 0.0, call.get("epsilon", 1e-5))


def _layer_normalize(call: Call) -> Tensor:
    value, axis = call.tensor(0), call.get("axis", -1)
    shape = value.shape[axis:]
    return functional.layer_norm(value, shape, call.tensor(1), call.optional(2), call.get("epsilon", 1e-5))


def _cast(call: Call) -> Tensor:
    kinds = onnx.TensorProto
    types = {
        kinds.FLOAT: torch.float32,
        kinds.FLOAT16: torch.float16,
        kinds.DOUBLE: torch.float64,
        kinds.INT8: torch.int8,
        kinds.UINT8: torch.uint8,
        kinds.INT32: torch.int32,
        kinds.INT64: torch.int64,
        kinds.BOOL: torch.bool,
    }
    if call.get("to") not in types:
        raise ProbeError(f"expected Cast to a number or boolean, got type {call.get('to')}")
    return call.tensor(0).to(types[call.get("to")])


def _hard_sigmoid(call: Call) -> Tensor:
    line: Tensor = call.get("alpha", 0.2) * call.tensor(0) + call.get("beta", 0.5)
    return line.clamp(0, 1)


def _gelu(call: Call) -> Tensor:
    return functional.gelu(call.tensor(0), approximate=call.get("approximate", "none"))


def _slice(call: Call) -> Tensor:
    value, starts, ends = call.tensor(0), call.integers("starts", 1) or [], call.integers("ends", 2) or []
    axes = call.integers("axes", 3) or list(range(len(starts)))
    steps = call.integers("steps", 4) or [1] * len(starts)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        taken = torch.arange(*slice(start, end, step).indices(value.shape[axis]))
        value = value.index_select(axis, taken)
    return value


def _squeeze(call: Call) -> Tensor:
    value, axes = call.tensor(0), call.integers("axes", 1)
    return value.squeeze() if axes is None else value.squeeze(tuple(axes))


def _unsqueeze(call: Call) -> Tensor:
    value, axes = call.tensor(0), call.integers("axes", 1) or []
    rank = value.ndim + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        value = value.unsqueeze(axis)
    return value


def _shape(call: Call) -> Tensor:
    return torch.tensor(list(call.tensor(0).shape)[call.get("start", 0) : call.get("end")], dtype=torch.int64)


def _gather(call: Call) -> Tensor:
    value, index, axis = call.tensor(0), call.tensor(1).to(torch.int64), call.get("axis", 0)
    axis = axis % value.ndim
    taken = value.index_select(axis, torch.where(index < 0, index + value.shape[axis], index).reshape(-1))
    return taken.reshape([*value.shape[:axis], *index.shape, *value.shape[axis + 1 :]])


OPERATORS: Mapping[str, Operator] = {
    "Abs": _unary("abs"),
    "Add": _binary("add"),
    "AveragePool": average_pool,
    "BatchNormalization": _batch_normalize,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": _concat,
    "Conv": convolve,
    "DequantizeLinear": _dequantize,
    "Div": _divide,
    "Dropout": _identity,
    "Elu": lambda call: functional.elu(call.tensor(0), call.get("alpha", 1.0)),
    "Erf": _unary("erf"),
    "Exp": _unary("exp"),
    "Flatten": _flatten,
    "Gather": _gather,
    "Gelu": _gelu,
    "Gemm": _gemm,
    "GlobalAveragePool": lambda call: _over_space(call, torch.mean),
    "GlobalMaxPool": lambda call: _over_space(call, torch.amax),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": lambda call: functional.hardswish(call.tensor(0)),
    "Identity": _identity,
    "LayerNormalization": _layer_normalize,
    "LeakyRelu": lambda call: functional.leaky_relu(call.tensor(0), call.get("alpha", 0.01)),
    "LogSoftmax": lambda call: torch.log_softmax(call.tensor(0), call.get("axis", -1)),
    "MatMul": _binary("matmul"),
    "MatMulInteger": _integer_product,
    "MaxPool": max_pool,
    "Mul": _binary("mul"),
    "Neg": _unary("neg"),
    "Pad": _pad,
    "Pow": _binary("pow"),
    "QuantizeLinear": _quantize,
    "ReduceMax": _reduce(torch.amax),
    "ReduceMean": _reduce(torch.mean),
    "ReduceSum": _reduce(torch.sum),
    "Relu": _unary("relu"),
    "Reshape": _reshape,
    "Shape": _shape,
    "Sigmoid": _unary("sigmoid"),
    "Slice": _slice,
    "Softmax": lambda call: torch.softmax(call.tensor(0), call.get("axis", -1)),
    "Softplus": lambda call: functional.softplus(call.tensor(0), threshold=88.0),
    "Sqrt": _unary("sqrt"),
    "Squeeze": _squeeze,
    "Sub": _binary("sub"),
    "Tanh": _unary("tanh"),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
"""Operators by name; `Constant` is no operator here, the graph's reader turns it into a value."""
