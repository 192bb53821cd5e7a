# SPDX-License-Identifier: Apache-2.0
"""Norms folded into the layers before them compute what ONNX Runtime computes with both."""

import numpy as np
import pytest
from onnx import helper

from pipeline.compress.folding import fold_batch_norms, fold_input_scale
from pipeline.compress.graphs import read_graph
from pipeline.compress.pooling import pool_planes
from tests.onnx_nets import CLASSES, answers, images_of, residual_net, write_net


def test_norms_disappear_and_answers_stay(tmp_path):
    source = residual_net(tmp_path / "a.onnx", norms=True)
    graph = read_graph(source)
    assert fold_batch_norms(graph) == 3
    assert not any(node.op_type == "BatchNormalization" for node in graph.nodes)
    graph.save(tmp_path / "b.onnx")
    images = images_of(32)
    want = answers(source, images, "disabled")
    np.testing.assert_allclose(answers(tmp_path / "b.onnx", images, "disabled"), want, atol=1e-4)
    assert np.abs(want).max() > 0.1


def test_weights_that_two_layers_share_are_folded_for_one(tmp_path):
    rng = np.random.default_rng(0)
    weights = {"w": rng.normal(size=(4, 64)), "g": rng.normal(size=4), "b": rng.normal(size=4)}
    weights |= {"m": rng.normal(size=4), "v": rng.random(4) + 0.5}
    nodes = [
        helper.make_node("Flatten", ["image"], ["x"]),
        helper.make_node("Gemm", ["x", "w"], ["one"], transB=1),
        helper.make_node("BatchNormalization", ["one", "g", "b", "m", "v"], ["two"]),
        helper.make_node("Gemm", ["x", "w"], ["three"], transB=1),
        helper.make_node("Add", ["two", "three"], ["scores"]),
    ]
    weights = {name: value.astype(np.float32) for name, value in weights.items()}
    source = write_net(tmp_path / "a.onnx", nodes, weights)
    graph = read_graph(source)
    assert fold_batch_norms(graph) == 1
    graph.save(tmp_path / "b.onnx")
    images = images_of(16)
    want = answers(source, images)
    assert want.shape[1] == CLASSES
    np.testing.assert_allclose(answers(tmp_path / "b.onnx", images), want, rtol=1e-4, atol=1e-4)


def test_a_norm_whose_layer_others_read_is_left(tmp_path):
    source = residual_net(tmp_path / "a.onnx", norms=True)
    graph = read_graph(source)
    norm = next(node for node in graph.nodes if node.op_type == "BatchNormalization")
    relu = next(node for node in graph.nodes if node.op_type == "Add")
    relu.input[1] = norm.input[0]
    assert fold_batch_norms(graph) == 2


_SCALED = [("Mul", 1 / 255), ("Sub", [0.3, 0.5]), ("Div", [0.2, 0.25])]


def _scaled_net(path, steps, *, groups=1, first="Conv"):
    """Steps on pixels, and a convolution that pads: at the borders a shift would show."""
    rng = np.random.default_rng(0)
    weights = {"w": rng.normal(size=(CLASSES, 2 // groups, 3, 3)), "axes": np.array([2, 3])}
    nodes, value = [], "image"
    for index, (kind, constant) in enumerate(steps):
        constant = np.asarray(constant, np.float32)
        weights[f"c{index}"] = constant.reshape(-1, 1, 1) if constant.ndim == 1 else constant
        nodes.append(helper.make_node(kind, [value, f"c{index}"], [f"x{index}"]))
        value = f"x{index}"
    if first == "Relu":
        nodes.append(helper.make_node("Relu", [value], ["relu"]))
        value = "relu"
    nodes.append(helper.make_node("Conv", [value, "w"], ["y"], pads=[1, 1, 1, 1], group=groups))
    nodes.append(helper.make_node("ReduceMean", ["y", "axes"], ["scores"], keepdims=0))
    weights = {k: v if k == "axes" else np.asarray(v, np.float32) for k, v in weights.items()}
    return write_net(path, nodes, weights, channels=2)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(
    ("steps", "left"),
    [
        (_SCALED, ["Add"]),
        ([("Mul", 1 / 255)], []),
        ([("Add", [-3.0, 4.0]), ("Mul", [0.14, -0.1])], ["Add"]),
    ],
)
def test_the_scale_of_pixels_becomes_part_of_the_first_convolution(tmp_path, steps, left, groups):
    source = _scaled_net(tmp_path / "a.onnx", steps, groups=groups)
    graph = read_graph(source)
    assert fold_input_scale(graph)
    graph.save(tmp_path / "b.onnx")
    assert [node.op_type for node in graph.nodes] == [*left, "Conv", "ReduceMean"]
    images = images_of(16, channels=2)
    want = answers(source, images)
    np.testing.assert_allclose(answers(tmp_path / "b.onnx", images), want, atol=1e-4 * np.abs(want).max())


def test_scales_that_differ_much_and_grey_images_are_left(tmp_path):
    wide = _scaled_net(tmp_path / "a.onnx", [("Div", [0.2, 0.01])])
    assert not fold_input_scale(read_graph(wide))
    rng = np.random.default_rng(0)
    weights = {
        "c": np.ones((3, 1, 1), np.float32),
        "w": rng.normal(size=(CLASSES, 3, 3, 3)).astype(np.float32),
    }
    weights["axes"] = np.array([2, 3])
    nodes = [
        helper.make_node("Mul", ["image", "c"], ["x"]),
        helper.make_node("Conv", ["x", "w"], ["y"]),
        helper.make_node("ReduceMean", ["y", "axes"], ["scores"], keepdims=0),
    ]
    # One channel becomes three: the constant does more than scale.
    graph = read_graph(write_net(tmp_path / "b.onnx", nodes, weights, channels=1))
    assert not fold_input_scale(graph)


def test_names_that_are_taken_are_not_taken_again(tmp_path):
    source = _scaled_net(tmp_path / "a.onnx", [("Mul", 0.1), ("Add", [1.0, 2.0])])
    graph = read_graph(source)
    graph.nodes[-1].name = "shift"
    assert fold_input_scale(graph)
    assert len({node.name for node in graph.nodes}) == len(graph.nodes)


def test_what_a_graph_within_a_node_may_read_is_left(tmp_path):
    source = _scaled_net(tmp_path / "a.onnx", [("Mul", 0.1)])
    graph = read_graph(source)
    empty = helper.make_graph([helper.make_node("Identity", ["x0"], ["inner"])], "body", [], [])
    node = helper.make_node("If", ["yes"], ["unread"], then_branch=empty, else_branch=empty)
    graph.nodes.append(node)
    assert not fold_input_scale(graph)
    assert pool_planes(graph) == 0


@pytest.mark.parametrize(
    ("steps", "first"),
    [([("Mul", 0.0)], "Conv"), ([("Mul", 0.1)], "Relu"), ([], "Conv"), ([("Div", 0.0)], "Conv")],
)
def test_what_is_no_scale_of_pixels_is_left(tmp_path, steps, first):
    source = _scaled_net(tmp_path / "a.onnx", steps, first=first)
    graph = read_graph(source)
    before = graph.model.SerializeToString(deterministic=True)
    assert not fold_input_scale(graph)
    assert graph.model.SerializeToString(deterministic=True) == before
