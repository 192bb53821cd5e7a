# SPDX-License-Identifier: Apache-2.0
"""Norms folded into the layers before them compute what ONNX Runtime computes with both."""

import numpy as np
from onnx import helper

from pipeline.compress.folding import fold_batch_norms
from pipeline.compress.graphs import read_graph
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
