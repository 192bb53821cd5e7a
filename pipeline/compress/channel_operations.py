# SPDX-License-Identifier: Apache-2.0
"""What each ATen operation does to the atoms of its operands.

An operation that is not here freezes everything it is given: what nobody thought through is never pruned.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import prod

import numpy as np

from pipeline.compress import channel_shapes as shapes
from pipeline.compress.axes import Axis, Value, fixed
from pipeline.compress.channel_walk import (
    Arguments,
    Layer,
    Operation,
    Result,
    Term,
    Walk,
    first_of,
    places_of,
    tensors_of,
)

__all__ = ["OPERATIONS"]


def _pointwise(walk: Walk, arguments: Arguments) -> Value:
    return walk.broadcast(tensors_of(arguments))


def _convolution(walk: Walk, arguments: Arguments) -> Value:
    image, weight, bias = arguments["input"], arguments["weight"], arguments.get("bias")
    groups = int(arguments.get("groups") or 1)
    outputs, inputs = weight.axes[0], weight.axes[1]
    if len(inputs) == 1 and groups > 1:  # depthwise: an input goes with all outputs made from it
        multiple = len(outputs) // groups
        walk.join(np.repeat(image.axes[1], multiple), outputs)
    else:
        walk.join(walk.fold(image.axes[1], groups), inputs)
        walk.fold(outputs, groups)
    return _convolved(walk, image, weight, bias, outputs)


def _transposed_convolution(walk: Walk, arguments: Arguments) -> Value:
    image, weight, bias = arguments["input"], arguments["weight"], arguments.get("bias")
    groups = int(arguments.get("groups") or 1)
    walk.join(image.axes[1], weight.axes[0])
    each = weight.axes[1]
    if len(each) == 1 and groups > 1:
        inputs = image.axes[1].reshape(groups, -1)
        for column in inputs.T[1:]:
            walk.join(inputs[:, 0], column)
        outputs = inputs[:, 0]
    else:
        walk.fold(image.axes[1], groups)
        outputs = np.tile(each, groups)
    return _convolved(walk, image, weight, bias, outputs, transposed=True)


def _convolved(
    walk: Walk, image: Value, weight: Value, bias: Value | None, outputs: Axis, *, transposed: bool = False
) -> Value:
    walk.freeze(*image.axes[2:], *weight.axes[2:])
    if bias is not None:
        walk.join(bias.axes[0], outputs)
    else:
        walk.biases.append(Term(1, (outputs,)))
    walk.layers.append(Layer(walk.layer, "convolution", outputs))
    spatial = walk.shape[2:]
    counted = image.shape[2:] if transposed else spatial
    walk.macs.append(Term(prod(weight.shape[2:]) * prod(counted), weight.axes[:2]))
    return Value((image.axes[0], outputs, *map(fixed, spatial)))


def _linear(walk: Walk, arguments: Arguments) -> Value:
    value, weight, bias = arguments["input"], arguments["weight"], arguments.get("bias")
    transposed = Value(weight.axes[::-1], weight.weight)
    made = _product(walk, value, transposed)
    if bias is not None:
        walk.join(bias.axes[0], made.axes[-1])
    return made


def _product(walk: Walk, left: Value, right: Value) -> Value:
    row = left if len(left.axes) > 1 else Value((fixed(1), *left.axes), left.weight)
    column = right if len(right.axes) > 1 else Value((*right.axes, fixed(1)), right.weight)
    walk.join(row.axes[-1], column.axes[-2])
    around: tuple[Axis, ...] = ()
    if len(row.axes) > 2 or len(column.axes) > 2:
        empty = (fixed(1), fixed(1))
        around = walk.broadcast([Value((*row.axes[:-2], *empty)), Value((*column.axes[:-2], *empty))]).axes[
            :-2
        ]
    outer, outputs = row.axes[-2], column.axes[-1]
    if right.weight and not left.weight:
        walk.layers.append(Layer(walk.layer, "linear", outputs))
    elif left.weight and not right.weight:
        walk.layers.append(Layer(walk.layer, "linear", outer))
    walk.macs.append(Term(1 / walk.batch, (*around, outer, row.axes[-1], outputs)))
    axes = [*around, *([outer] if len(left.axes) > 1 else []), *([outputs] if len(right.axes) > 1 else [])]
    return Value(tuple(axes), left.weight and right.weight)


def _matmul(walk: Walk, arguments: Arguments) -> Value:
    left, right = tensors_of(arguments)
    return _product(walk, left, right)


def _added_product(walk: Walk, arguments: Arguments) -> Value:
    added, left, right = tensors_of(arguments)
    return walk.broadcast([_product(walk, left, right), added])


def _attention(walk: Walk, arguments: Arguments) -> Value:
    query, key, value = arguments["query"], arguments["key"], arguments["value"]
    if arguments.get("scale") is None:  # 1 / sqrt(width): another width, another function
        walk.freeze(query.axes[-1], key.axes[-1])
    turned = Value((*key.axes[:-2], key.axes[-1], key.axes[-2]))
    scores = _product(walk, Value(query.axes), turned)
    walk.freeze(scores.axes[-1])
    mask = arguments.get("attn_mask")
    if mask is not None:
        scores = walk.broadcast([scores, mask])
    return _product(walk, scores, Value(value.axes))


def _einsum(walk: Walk, arguments: Arguments) -> Value:
    values = tensors_of(arguments["tensors"])
    inputs, _, output = arguments["equation"].replace(" ", "").partition("->")
    terms = inputs.split(",")
    if "." in inputs or not output or any(len(set(term)) != len(term) for term in terms):
        raise NotImplementedError
    seen: dict[str, Axis] = {}
    for term, value in zip(terms, values, strict=True):
        for label, axis in zip(term, value.axes, strict=True):
            if label in seen and len(seen[label]) != len(axis):
                raise NotImplementedError
            walk.join(seen.setdefault(label, axis), axis)
    if len(values) == 2:
        for value, other, term in zip(values, values[::-1], terms, strict=True):
            if value.weight and not other.weight:
                walk.layers += [Layer(walk.layer, "linear", seen[label]) for label in term if label in output]
        walk.macs.append(Term(1 / walk.batch, tuple(seen.values())))
    return Value(tuple(seen[label] for label in output), all(value.weight for value in values))


def _batch_norm(walk: Walk, arguments: Arguments) -> Value:
    value = arguments["input"]
    for name in ("weight", "bias", "running_mean", "running_var"):
        if arguments.get(name) is not None:
            walk.join(arguments[name].axes[0], value.axes[1])
    if arguments.get("weight") is not None:
        walk.norms.append(arguments["weight"].axes[0])
    return Value(value.axes)


def _group_norm(walk: Walk, arguments: Arguments) -> Value:
    value = arguments["input"]
    if arguments["num_groups"] != len(value.axes[1]):
        walk.freeze(value.axes[1])
    for name in ("weight", "bias"):
        if arguments.get(name) is not None:
            walk.join(arguments[name].axes[0], value.axes[1])
    return Value(value.axes)


def _layer_norm(walk: Walk, arguments: Arguments) -> Value:
    value = arguments["input"]
    depth = len(arguments["normalized_shape"])
    walk.freeze(*value.axes[-depth:])
    for name in ("weight", "bias"):
        if arguments.get(name) is not None:
            walk.freeze(*arguments[name].axes)
    return Value(value.axes)


def _along(walk: Walk, arguments: Arguments) -> Value:
    """Mix the positions of one dimension: they must all stay."""
    value = first_of(arguments)
    walk.freeze(value.axes[arguments["dim"]])
    return Value(value.axes, value.weight)


def _spatial(depth: int) -> Operation:
    def operation(walk: Walk, arguments: Arguments) -> Result:
        value = first_of(arguments)
        walk.freeze(*value.axes[-depth:])
        made = Value((*value.axes[:-depth], *map(fixed, walk.shape[-depth:])), value.weight)
        return (made, made) if walk.several else made

    return operation


def _reduction(*, exact: bool) -> Operation:
    """Reduce dimensions; a sum is the same without the zeros, everything else needs all positions."""

    def operation(walk: Walk, arguments: Arguments) -> Value:
        value = first_of(arguments)
        places = places_of(arguments, len(value.axes))
        if not exact:
            walk.freeze(*(value.axes[place] for place in places))
        kept = [
            fixed(1) if place in places else axis
            for place, axis in enumerate(value.axes)
            if place not in places or arguments.get("keepdim")
        ]
        return Value(tuple(kept), value.weight)

    return operation


def _prelu(walk: Walk, arguments: Arguments) -> Value:
    value, weight = tensors_of(arguments)
    if len(weight.axes[0]) > 1:
        walk.join(weight.axes[0], value.axes[1])
    return value


def _constant(walk: Walk, _: Arguments) -> Value:
    return Value(tuple(map(fixed, walk.shape)), weight=True)


def _same(names: str, operation: Operation) -> Iterable[tuple[str, Operation]]:
    return ((name, operation) for name in names.split())


OPERATIONS: Mapping[str, Operation] = dict(
    (
        *_same(
            "relu relu6 hardtanh gelu silu sigmoid tanh hardswish hardsigmoid leaky_relu elu celu selu "
            "softplus softsign mish exp exp2 expm1 log log1p sqrt rsqrt neg abs clamp clamp_min clamp_max "
            "clone contiguous dropout alpha_dropout feature_dropout to _to_copy detach alias lift_fresh_copy "
            "pow square sin cos erf round floor ceil trunc sign reciprocal zeros_like ones_like type_as "
            "add sub rsub mul div true_divide maximum minimum where lerp addcmul addcdiv eq ne gt ge lt le "
            "logical_and logical_or logical_not logsigmoid log_sigmoid hardshrink softshrink threshold copy "
            "masked_fill float double identity positive nan_to_num isnan",
            _pointwise,
        ),
        *_same("conv1d conv2d conv3d convolution", _convolution),
        *_same("conv_transpose1d conv_transpose2d conv_transpose3d", _transposed_convolution),
        ("linear", _linear),
        *_same("matmul mm bmm mv", _matmul),
        *_same("addmm baddbmm", _added_product),
        ("einsum", _einsum),
        ("scaled_dot_product_attention", _attention),
        *_same("batch_norm instance_norm", _batch_norm),
        ("group_norm", _group_norm),
        *_same("layer_norm rms_norm", _layer_norm),
        *_same("softmax log_softmax _softmax _log_softmax cumsum cumprod flip logcumsumexp", _along),
        *_same("max_pool1d avg_pool1d adaptive_avg_pool1d upsample_nearest1d upsample_linear1d", _spatial(1)),
        *_same(
            "max_pool2d avg_pool2d adaptive_avg_pool2d adaptive_max_pool2d max_pool2d_with_indices lp_pool2d "
            "upsample_nearest2d upsample_bilinear2d upsample_bicubic2d _upsample_nearest_exact2d "
            "_upsample_bilinear2d_aa",
            _spatial(2),
        ),
        *_same("max_pool3d avg_pool3d adaptive_avg_pool3d upsample_nearest3d", _spatial(3)),
        ("sum", _reduction(exact=True)),
        *_same("mean amax amin var std norm linalg_vector_norm logsumexp prod", _reduction(exact=False)),
        *_same("reshape view _unsafe_view flatten unflatten view_as", shapes.reshape),
        ("permute", shapes.permute),
        *_same("transpose t swapaxes numpy_T", shapes.transpose),
        ("unsqueeze", shapes.unsqueeze),
        ("squeeze", shapes.squeeze),
        *_same("expand expand_as broadcast_to", shapes.expand),
        ("repeat", shapes.repeat),
        *_same("cat concat concatenate", shapes.cat),
        ("stack", shapes.stack),
        *_same("split split_with_sizes chunk tensor_split unsafe_split unsafe_chunk", shapes.split),
        ("unbind", shapes.unbind),
        ("select", shapes.select),
        *_same("slice narrow", shapes.cut_out),
        *_same("pad constant_pad_nd", shapes.pad),
        ("pixel_shuffle", shapes.pixel_shuffle),
        *_same("channel_shuffle native_channel_shuffle", shapes.channel_shuffle),
        ("glu", shapes.glu),
        ("prelu", _prelu),
        *_same(
            "zeros ones full arange empty scalar_tensor new_zeros new_ones new_full eye linspace", _constant
        ),
    )
)
"""Name of an ATen operation, without its overload and without the `_` of those in place."""
