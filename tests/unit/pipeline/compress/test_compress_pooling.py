# SPDX-License-Identifier: Apache-2.0
"""Means over the plane are pooled: the same answers, and an integer kernel in ONNX Runtime."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper

from pipeline.compress.graphs import read_graph
from pipeline.compress.pooling import pool_planes
from pipeline.compress.precision_configs import StaticInt8
from pipeline.compress.static_int8 import quantize_static_int8
from tests.onnx_nets import answers, images_of, residual_net, write_net


def _mean(path, axes, keepdims, opset=20):
    weights = {"w": np.random.default_rng(0).normal(size=(4, 1, 3, 3)).astype(np.float32)}
    inputs, named = ["y"], {}
    if opset < 18:
        named["axes"] = axes
    else:
        weights["axes"] = np.array(axes)
        inputs.append("axes")
    nodes = [helper.make_node("Conv", ["image", "w"], ["y"])]
    nodes += [helper.make_node("ReduceMean", inputs, ["z"], keepdims=int(keepdims), **named)]
    if keepdims:
        nodes += [helper.make_node("Flatten", ["z"], ["flat"])]
    weights["head"] = np.random.default_rng(1).normal(size=(4, 4)).astype(np.float32)
    nodes += [helper.make_node("Gemm", ["flat" if keepdims else "z", "head"], ["scores"])]
    return write_net(path, nodes, weights, opset=opset)


@pytest.mark.parametrize("opset", [13, 20])
@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("axes", [[2, 3], [-1, -2]])
def test_a_mean_over_the_plane_is_pooled(tmp_path, axes, keepdims, opset):
    source = _mean(tmp_path / "a.onnx", axes, keepdims, opset)
    graph = read_graph(source)
    assert pool_planes(graph) == 1
    graph.save(tmp_path / "b.onnx")
    onnx.checker.check_model(onnx.load(tmp_path / "b.onnx"), full_check=True)
    images = images_of(16)
    np.testing.assert_allclose(
        answers(tmp_path / "b.onnx", images), answers(source, images), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("after", [[], ["Softmax"]])
def test_a_mean_that_makes_the_scores_is_left_and_they_are_not_rounded(tmp_path, after):
    rng = np.random.default_rng(0)
    weights = {"a": rng.normal(size=(8, 1, 3, 3)), "b": 0.001 * rng.normal(size=(4, 8, 3, 3))}
    weights = {name: value.astype(np.float32) for name, value in weights.items()} | {"axes": np.array([2, 3])}
    nodes = [
        helper.make_node("Conv", ["image", "a"], ["x"]),
        helper.make_node("Relu", ["x"], ["y"]),
        helper.make_node("Conv", ["y", "b"], ["z"]),
        helper.make_node("ReduceMean", ["z", "axes"], ["m" if after else "scores"], keepdims=0),
        *(helper.make_node(kind, ["m"], ["scores"]) for kind in after),
    ]
    source = write_net(tmp_path / "a.onnx", nodes, weights)
    assert pool_planes(read_graph(source)) == 0
    images = images_of(500)
    quantize_static_int8(source, tmp_path / "b.onnx", images, StaticInt8())
    assert len(np.unique(answers(tmp_path / "b.onnx", images))) > 400


def test_means_of_whole_numbers_are_left(tmp_path):
    nodes = [
        helper.make_node("Cast", ["image"], ["whole"], to=onnx.TensorProto.INT32),
        helper.make_node("ReduceMean", ["whole", "axes"], ["mean"], keepdims=0),
        helper.make_node("Cast", ["mean"], ["float"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Gemm", ["float", "w"], ["scores"]),
    ]
    weights = {"axes": np.array([2, 3]), "w": np.ones((1, 4), np.float32)}
    assert pool_planes(read_graph(write_net(tmp_path / "a.onnx", nodes, weights))) == 0


def test_other_means_are_left(tmp_path):
    nodes = [
        helper.make_node("ReduceMean", ["image", "axes"], ["row"], keepdims=0),
        helper.make_node("Flatten", ["row"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w"], ["scores"]),
    ]
    weights = {"axes": np.array([1, 2]), "w": np.ones((8, 4), np.float32)}
    graph = read_graph(write_net(tmp_path / "a.onnx", nodes, weights))
    assert pool_planes(graph) == 0


def test_pixels_are_rounded_once_where_their_scales_are_not_folded(tmp_path):
    rng = np.random.default_rng(0)
    weights = {"std": np.array([0.01, 0.3]).reshape(2, 1, 1), "w": rng.normal(size=(4, 2, 3, 3))}
    weights |= {"mean": np.array([0.5, 4.0]).reshape(2, 1, 1), "head": rng.normal(size=(4, 4))}
    weights = {name: value.astype(np.float32) for name, value in weights.items()} | {"axes": np.array([2, 3])}
    nodes = [
        helper.make_node("Sub", ["image", "mean"], ["x"]),
        helper.make_node("Mul", ["x", "std"], ["y"]),
        helper.make_node("Conv", ["y", "w"], ["z"]),
        helper.make_node("ReduceMean", ["z", "axes"], ["m"], keepdims=0),
        helper.make_node("Gemm", ["m", "head"], ["scores"]),
    ]
    source = write_net(tmp_path / "a.onnx", nodes, weights, channels=2)
    quantize_static_int8(source, tmp_path / "b.onnx", images_of(64, channels=2), StaticInt8())
    kinds = [node.op_type for node in onnx.load(tmp_path / "b.onnx").graph.node]
    assert kinds[:3] == ["Sub", "Mul", "QuantizeLinear"]


def test_nothing_between_first_and_last_layer_runs_in_floats(tmp_path):
    source = residual_net(tmp_path / "a.onnx")
    quantize_static_int8(source, tmp_path / "b.onnx", images_of(64), StaticInt8())
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(tmp_path / "c.onnx")
    ort.InferenceSession(str(tmp_path / "b.onnx"), options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(tmp_path / "c.onnx").graph.node]
    # The scale of pixels is gone into the first convolution; the scores come out of the last product as floats.
    assert kinds.count("QuantizeLinear") == 1
    assert "DequantizeLinear" not in kinds
    assert "QLinearGlobalAveragePool" in kinds
    assert not {"Mul", "QLinearMul", "ReduceMean"} & set(kinds)
