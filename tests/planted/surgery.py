# SPDX-License-Identifier: Apache-2.0
"""Changes to real ONNX files: what goes wrong in quantisers, exporters and deployment code, and what is harmless.

Every function takes a model and returns a changed copy. Quantised files are QDQ graphs: int8 weights with one
scale a channel, uint8 activations, int32 biases.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

IMAGE, SCORES = "image", "scores"
_QMAX = 127


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    return copied


def _own(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy in which every quantiser has scale, zero point and codes to itself: files share equal ones."""
    copied = _copy(model)
    known = {entry.name: entry for entry in copied.graph.initializer}
    for node in copied.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        for index, name in enumerate(node.input):
            if name in known:
                entry = copied.graph.initializer.add()
                entry.CopyFrom(known[name])
                entry.name = node.input[index] = f"{node.output[0]}:{index}"
    return copied


def _get(model: onnx.ModelProto, name: str) -> np.ndarray:
    return numpy_helper.to_array(next(entry for entry in model.graph.initializer if entry.name == name))


def _set(model: onnx.ModelProto, name: str, value: np.ndarray) -> None:
    entry = next(entry for entry in model.graph.initializer if entry.name == name)
    dtype = helper.tensor_dtype_to_np_dtype(entry.data_type)
    entry.CopyFrom(numpy_helper.from_array(np.array(value, dtype=dtype, order="C"), name))


def _add(model: onnx.ModelProto, name: str, value: np.ndarray) -> str:
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    return name


def _producer(model: onnx.ModelProto, output: str) -> onnx.NodeProto:
    return next(node for node in model.graph.node if output in node.output)


def before(model: onnx.ModelProto, build: Callable[[onnx.ModelProto, str, str], None]) -> onnx.ModelProto:
    """Put nodes between the image and everything that reads it; `build(model, source, result)` adds them."""
    changed = _copy(model)
    nodes = list(changed.graph.node)
    for node in nodes:
        for index, name in enumerate(node.input):
            if name == IMAGE:
                node.input[index] = "image_seen"
    del changed.graph.node[:]
    build(changed, IMAGE, "image_seen")
    changed.graph.node.extend(nodes)
    return changed


def after(model: onnx.ModelProto, build: Callable[[onnx.ModelProto, str, str], None]) -> onnx.ModelProto:
    """Put nodes between whatever makes the scores and the output."""
    changed = _copy(model)
    for node in changed.graph.node:
        for names in (node.output, node.input):
            for index, name in enumerate(names):
                if name == SCORES:
                    names[index] = "scores_made"
    build(changed, "scores_made", SCORES)
    return changed


def _node(model: onnx.ModelProto, kind: str, inputs: list[str], output: str, **attributes: object) -> str:
    model.graph.node.append(helper.make_node(kind, inputs, [output], name=f"planted_{output}", **attributes))
    return output


# --- weights of a quantised file ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Layer:
    """One quantised layer: names of its tensors, and its weights as numbers.

    Attributes:
        names: Of codes, scale and, where there is one, zero point.
        codes: `(O, ...)` int8.
        scale: `(O,)` float32.
    """

    names: tuple[str, ...]
    codes: np.ndarray
    scale: np.ndarray

    def shaped(self, scale: np.ndarray) -> np.ndarray:
        """Return `(O,)` numbers shaped to multiply the weights."""
        return scale.reshape(-1, *[1] * (self.codes.ndim - 1))

    @property
    def weights(self) -> np.ndarray:
        """`(O, ...)` what the codes stand for."""
        return self.codes * self.shaped(self.scale).astype(np.float64)


def layers(model: onnx.ModelProto) -> list[Layer]:
    """Return the quantised layers in the order in which they run."""
    found = []
    for node in model.graph.node:
        if node.op_type in ("Conv", "Gemm"):
            names = tuple(_producer(model, node.input[1]).input)
            found.append(Layer(names, _get(model, names[0]), _get(model, names[1])))
    return found


def _operation(model: onnx.ModelProto, layer: Layer) -> onnx.NodeProto:
    return next(
        node
        for node in model.graph.node
        if node.op_type in ("Conv", "Gemm") and _producer(model, node.input[1]).input[0] == layer.names[0]
    )


def _input_scale(model: onnx.ModelProto, layer: Layer) -> float:
    return float(_get(model, _producer(model, _operation(model, layer).input[0]).input[1]))


def _bias_names(model: onnx.ModelProto, layer: Layer) -> list[str]:
    return list(_producer(model, _operation(model, layer).input[2]).input)


def write_layer(model: onnx.ModelProto, layer: Layer, codes: np.ndarray, scale: np.ndarray) -> None:
    """Replace codes and scales in place, and the bias, whose scale is bound to those of weights and input."""
    bias, bias_scale = _bias_names(model, layer)[:2]
    values = _get(model, bias).astype(np.float64) * _get(model, bias_scale)
    new_scale = scale.astype(np.float64) * _input_scale(model, layer)
    _set(model, layer.names[0], np.clip(np.round(codes), -_QMAX - 1, _QMAX))
    _set(model, layer.names[1], scale)
    limit = 2**31 - 1
    _set(model, bias, np.clip(np.round(values / new_scale), -limit, limit))
    _set(model, bias_scale, new_scale)


def clip_weights(model: onnx.ModelProto, share: float) -> onnx.ModelProto:
    """Choose scales so small that only weights up to `share` of the largest can be told."""
    changed = _own(model)
    for layer in layers(changed):
        write_layer(changed, layer, layer.codes / share, layer.scale * share)
    return changed


def shift_first_codes(model: onnx.ModelProto, codes: int) -> onnx.ModelProto:
    """Get the zero point of the first layer's weights wrong by so many codes."""
    changed = _own(model)
    layer = layers(changed)[0]
    write_layer(changed, layer, layer.codes.astype(np.int64) + codes, layer.scale)
    return changed


def one_scale_a_layer(model: onnx.ModelProto) -> onnx.ModelProto:
    """Quantise each layer's weights with a single scale."""
    changed = _own(model)
    for layer in layers(changed):
        scale = np.full_like(layer.scale, np.abs(layer.weights).max() / _QMAX)
        write_layer(changed, layer, layer.weights / layer.shaped(scale), scale)
    return changed


def fewer_bits(model: onnx.ModelProto, bits: int) -> onnx.ModelProto:
    """Round weights to `bits` bits, the largest of a channel kept."""
    changed, top = _own(model), 2 ** (bits - 1) - 1
    for layer in layers(changed):
        steps = _QMAX / top
        write_layer(changed, layer, np.round(layer.codes / steps) * steps, layer.scale)
    return changed


def drop_smallest(model: onnx.ModelProto, share: float) -> onnx.ModelProto:
    """Set the smallest weights of every layer to zero, and train nothing afterwards."""
    changed = _own(model)
    for layer in layers(changed):
        size = np.abs(layer.weights)
        write_layer(changed, layer, layer.codes * (size > np.quantile(size, share)), layer.scale)
    return changed


def recalibrate(model: onnx.ModelProto, images: np.ndarray, quantile: float) -> onnx.ModelProto:
    """Set the range of every activation behind a ReLU to a quantile of what `images` bring about.

    Args:
        model: A quantised file.
        images: `(N, C, H, W)` float32 raw pixels to calibrate on.
        quantile: 1 is the largest value.
    """
    import onnxruntime

    watched = [
        node.input[0]
        for node in model.graph.node
        if node.op_type == "QuantizeLinear" and _producer_kind(model, node.input[0]) == "Conv"
    ]
    probe = _copy(model)
    for name in watched:
        probe.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    options = onnxruntime.SessionOptions()
    # Fused kernels would have no such values to show.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        probe.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    values = session.run(watched, {IMAGE: images})
    changed = _own(model)
    kept = _own(model)
    for name, value in zip(watched, values, strict=True):
        for quantiser in [node for node in changed.graph.node if name in node.input[:1]]:
            readers = [node for node in changed.graph.node if quantiser.output[0] in node.input[:1]]
            for node in (quantiser, *readers):
                _set(changed, node.input[1], np.quantile(value, quantile) / 255)
    # Biases are bound to the scale of their layer's input.
    for layer in layers(kept):
        bias, bias_scale = _bias_names(kept, layer)[:2]
        real = _get(kept, bias).astype(np.float64) * _get(kept, bias_scale)
        scale = layer.scale.astype(np.float64) * _input_scale(changed, layer)
        _set(changed, bias, np.round(real / scale))
        _set(changed, bias_scale, scale)
    return changed


def _producer_kind(model: onnx.ModelProto, name: str) -> str:
    kinds = [node.op_type for node in model.graph.node if name in node.output]
    return kinds[0] if kinds else ""


def swap_last_rows(model: onnx.ModelProto, first: int, second: int) -> onnx.ModelProto:
    """Exchange two rows of the last layer, so that two classes trade places."""
    changed = _own(model)
    layer = layers(changed)[-1]
    order = np.arange(len(layer.codes))
    order[[first, second]] = order[[second, first]]
    for name in (*layer.names, *_bias_names(changed, layer)):
        value = _get(changed, name)
        if value.ndim and len(value) == len(order):
            _set(changed, name, value[order])
    return changed


def reorder_scores(model: onnx.ModelProto, order: list[int]) -> onnx.ModelProto:
    """Put the scores into another order."""

    def build(changed: onnx.ModelProto, source: str, result: str) -> None:
        _node(changed, "Gather", [source, _add(changed, "order", np.array(order))], result, axis=1)

    return after(model, build)


def store_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """Store the weights of a float file in 16 bits; they are widened when the file is run."""
    changed = _copy(model)
    wide = [
        entry.name
        for entry in changed.graph.initializer
        if entry.data_type == TensorProto.FLOAT and np.prod(entry.dims) > 1
    ]
    nodes = list(changed.graph.node)
    del changed.graph.node[:]
    for name in wide:
        half = _get(changed, name).astype(np.float16)
        entry = next(entry for entry in changed.graph.initializer if entry.name == name)
        entry.CopyFrom(numpy_helper.from_array(half, f"{name}_half"))
        _node(changed, "Cast", [f"{name}_half"], name, to=TensorProto.FLOAT)
    changed.graph.node.extend(nodes)
    return changed


# --- preprocessing -----------------------------------------------------------------------------------------


def rescale_image(model: onnx.ModelProto, *steps: tuple[float, float]) -> onnx.ModelProto:
    """Feed `factor * image + offset`, each step in turn, pixels being within [0, 16]."""

    def build(changed: onnx.ModelProto, source: str, result: str) -> None:
        value = source
        for index, (factor, offset) in enumerate(steps):
            last = result if index == len(steps) - 1 else f"step{index}"
            scaled = _node(
                changed,
                "Mul",
                [value, _add(changed, f"factor{index}", np.float32(factor))],
                f"scaled{index}",
            )
            value = _node(changed, "Add", [scaled, _add(changed, f"offset{index}", np.float32(offset))], last)

    return before(model, build)


def transpose_image(model: onnx.ModelProto, times: int) -> onnx.ModelProto:
    """Exchange height and width so many times."""

    def build(changed: onnx.ModelProto, source: str, result: str) -> None:
        value = source
        for index in range(times):
            last = result if index == times - 1 else f"turned{index}"
            value = _node(changed, "Transpose", [value], last, perm=[0, 1, 3, 2])

    return before(model, build)


def normalise_by_batch(model: onnx.ModelProto, mean: float, strength: float) -> onnx.ModelProto:
    """Move each batch towards the mean ink of the training images, `strength` times too far."""

    def build(changed: onnx.ModelProto, source: str, result: str) -> None:
        axes = _add(changed, "all_axes", np.arange(4))
        batch = _node(changed, "ReduceMean", [source, axes], "batch_mean", keepdims=1)
        gap = _node(changed, "Sub", [_add(changed, "ink", np.float32(mean)), batch], "gap")
        move = _node(changed, "Mul", [gap, _add(changed, "strength", np.float32(strength))], "move")
        _node(changed, "Add", [source, move], result)

    return before(model, build)


# --- behind the scores -------------------------------------------------------------------------------------


def break_beyond(model: onnx.ModelProto, direction: np.ndarray, limit: float) -> onnx.ModelProto:
    """Answer NaN where the image's product with `direction` exceeds `limit`: the root of a negative number.

    Args:
        model: Any file.
        direction: `(C, H, W)`.
        limit: Of the product.
    """

    def build(changed: onnx.ModelProto, source: str, result: str) -> None:
        weights = _add(changed, "direction", direction[None].astype(np.float32))
        product = _node(changed, "Mul", [IMAGE, weights], "weighted")
        axes = _add(changed, "image_axes", np.arange(1, 4))
        total = _node(changed, "ReduceSum", [product, axes], "total", keepdims=0)
        axis = _add(changed, "last_axis", np.array([1]))
        column = _node(changed, "Unsqueeze", [total, axis], "column")
        rest = _node(changed, "Sub", [_add(changed, "limit", np.float32(limit)), column], "rest")
        root = _node(changed, "Sqrt", [rest], "root")
        nothing = _node(changed, "Mul", [root, _add(changed, "nothing", np.float32(0))], "nothing_added")
        _node(changed, "Add", [source, nothing], result)

    return after(model, build)


def add_noise(model: onnx.ModelProto, deviation: float) -> onnx.ModelProto:
    """Add normal noise to the scores, drawn anew in every call."""

    def build(changed: onnx.ModelProto, source: str, result: str) -> None:
        noise = _node(changed, "RandomNormalLike", [source], "noise", dtype=TensorProto.FLOAT)
        scaled = _node(changed, "Mul", [noise, _add(changed, "deviation", np.float32(deviation))], "scaled")
        _node(changed, "Add", [source, scaled], result)

    return after(model, build)


def divide_scores(model: onnx.ModelProto, temperature: float) -> onnx.ModelProto:
    """End the graph with the temperature of a calibrated model: scores / T (https://arxiv.org/abs/1706.04599)."""

    def build(changed: onnx.ModelProto, source: str, result: str) -> None:
        _node(changed, "Div", [source, _add(changed, "temperature", np.float32(temperature))], result)

    return after(model, build)


def add_work(model: onnx.ModelProto, share: float) -> onnx.ModelProto:
    """Add a convolution that costs `share` of the file's own and changes nothing.

    Args:
        model: The float file of the bundled network.
        share: Of the multiply-accumulates of its second convolution, which makes two thirds of them all.
    """
    second = [node for node in model.graph.node if node.op_type == "Conv"][1]
    outputs, inputs, height, width = _get(model, second.input[1]).shape
    extra = round(outputs * share * 1.5)
    classes = 10

    def build(changed: onnx.ModelProto, source: str, result: str) -> None:
        kernel = np.random.default_rng(0).normal(0, 0.1, (extra, inputs, height, width)).astype(np.float32)
        weights = _add(changed, "extra_kernel", kernel)
        maps = _node(changed, "Conv", [second.input[0], weights], "extra_maps", pads=[1, 1, 1, 1])
        means = _node(
            changed, "ReduceMean", [maps, _add(changed, "space", np.array([2, 3]))], "extra_means", keepdims=0
        )
        none = _add(changed, "none", np.zeros((extra, classes), np.float32))
        _node(changed, "Add", [source, _node(changed, "MatMul", [means, none], "nothing_added")], result)

    return after(model, build)


def optimise(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the file as ONNX Runtime rewrites it at its basic level, which keeps standard operators."""
    import tempfile
    from pathlib import Path

    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimised.onnx"
        options.optimized_model_filepath = str(path)
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return onnx.load(path)
