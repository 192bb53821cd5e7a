# SPDX-License-Identifier: Apache-2.0
"""Small ONNX classifiers written node by node, and images for them."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from pipeline.probes.session import create_session

PIXEL_MAX = 16.0
CLASSES = 4


def images_of(count=64, channels=1, size=8, seed=3):
    """Raw pixels of which some images are much brighter than others."""
    rng = np.random.default_rng(seed)
    level = rng.uniform(0.2, 1, (count, channels, 1, 1))
    return (rng.random((count, channels, size, size)) * level * PIXEL_MAX).astype(np.float32)


def write_net(path, nodes, weights, channels=1, size=8, opset=20):
    """Write nodes from `image` to `scores`; returns the path."""
    kind = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("image", kind, ["batch", channels, size, size])],
        [helper.make_tensor_value_info("scores", kind, ["batch", CLASSES])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    path.write_bytes(model.SerializeToString())
    return path


def residual_net(path, *, softmax=False, norms=False, seed=0, width=12):
    """A stem, a residual block and a linear layer; 3 convolutions, 1 Gemm."""
    rng = np.random.default_rng(seed)

    def draw(*shape):
        # Channels of very different size, as training leaves them.
        spread = np.exp(rng.normal(0, 0.7, (shape[0], *[1] * (len(shape) - 1))))
        return (rng.normal(size=shape) * spread / np.sqrt(np.prod(shape[1:]))).astype(np.float32)

    weights = {
        "stem.weight": draw(width, 1, 3, 3), "stem.bias": draw(width),
        "one.weight": draw(width, width, 3, 3), "one.bias": draw(width),
        "two.weight": draw(width, width, 3, 3),
        "head.weight": draw(CLASSES, width), "head.bias": draw(CLASSES),
        "scale": np.array([1 / 5], np.float32), "axes": np.array([2, 3]),
    }  # fmt: skip
    pads = {"pads": [1, 1, 1, 1], "kernel_shape": [3, 3]}

    def norm(name):
        if not norms:
            return []
        for part in ("gamma", "beta", "mean"):
            weights[f"{name}.{part}"] = rng.normal(size=width).astype(np.float32)
        weights[f"{name}.var"] = (rng.random(width) + 0.5).astype(np.float32)
        inputs = [f"{name}.conv", *(f"{name}.{part}" for part in ("gamma", "beta", "mean", "var"))]
        return [helper.make_node("BatchNormalization", inputs, [f"{name}.out"], epsilon=1e-3)]

    after = ".conv" if norms else ".out"
    nodes = [
        helper.make_node("Mul", ["image", "scale"], ["x"]),
        helper.make_node("Conv", ["x", "stem.weight", "stem.bias"], [f"stem{after}"], "stem", **pads),
        *norm("stem"),
        helper.make_node("Relu", ["stem.out"], ["stem.relu"]),
        helper.make_node("Conv", ["stem.relu", "one.weight", "one.bias"], [f"one{after}"], "one", **pads),
        *norm("one"),
        helper.make_node("Relu", ["one.out"], ["one.relu"]),
        helper.make_node("Conv", ["one.relu", "two.weight"], [f"two{after}"], "two", **pads),
        *norm("two"),
        helper.make_node("Add", ["two.out", "stem.relu"], ["sum"]),
        helper.make_node("Relu", ["sum"], ["sum.relu"]),
        helper.make_node("ReduceMean", ["sum.relu", "axes"], ["mean"], keepdims=0),
        helper.make_node("Gemm", ["mean", "head.weight", "head.bias"], ["logits" if softmax else "scores"],
                         "head", transB=1),
    ]  # fmt: skip
    if softmax:
        nodes.append(helper.make_node("Softmax", ["logits"], ["scores"], axis=1))
    return write_net(path, nodes, weights)


def answers(path, images, optimization="all"):
    """What ONNX Runtime makes of images."""
    return create_session(path, optimization=optimization).run(None, {"image": images})[0]
