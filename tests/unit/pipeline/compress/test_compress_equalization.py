# SPDX-License-Identifier: Apache-2.0
"""Equalization: the function stays, ranges of neighbouring layers become alike."""

import numpy as np
import pytest
from onnx import helper

from pipeline.compress.equalization import equalize_layers
from pipeline.compress.graphs import read_graph
from tests.onnx_nets import CLASSES, answers, images_of, residual_net, write_net


def _chain(path, activation="Relu", groups=6):
    """Pointwise, depthwise, pointwise: where equalization matters most."""
    rng = np.random.default_rng(1)
    spread = np.exp(rng.normal(0, 1.5, (6, 1, 1, 1)))
    weights = {
        "a": (rng.normal(size=(6, 1, 1, 1)) * spread).astype(np.float32), "ab": rng.normal(size=6).astype(np.float32),
        "d": (rng.normal(size=(6, 6 // groups, 3, 3)) / spread).astype(np.float32),
        "db": rng.normal(size=6).astype(np.float32),
        "p": rng.normal(size=(CLASSES, 6, 1, 1)).astype(np.float32), "axes": np.array([2, 3]),
    }  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["image", "a", "ab"], ["x0"]),
        helper.make_node(activation, ["x0"], ["x1"]),
        helper.make_node("Conv", ["x1", "d", "db"], ["x2"], group=groups, pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["x2", "p"], ["x3"]),
        helper.make_node("ReduceMean", ["x3", "axes"], ["scores"], keepdims=0),
    ]
    return write_net(path, nodes, weights)


def _equalized(source, path):
    graph = read_graph(source)
    count = equalize_layers(graph)
    graph.save(path)
    return graph, count


@pytest.mark.parametrize("groups", [6, 2, 1])
def test_a_chain_computes_the_same_and_its_ranges_meet(tmp_path, groups):
    source = _chain(tmp_path / "a.onnx", groups=groups)
    graph, count = _equalized(source, tmp_path / "b.onnx")
    assert count == 2
    images = images_of(32)
    want = answers(source, images)
    np.testing.assert_allclose(answers(tmp_path / "b.onnx", images), want, atol=1e-4 * np.abs(want).max())
    before = read_graph(source)
    one, two = (np.abs(g.constant("a")).ravel() for g in (before, graph))
    assert two.max() / two.min() < one.max() / one.min()
    if groups == 6:
        # Of a depthwise layer, row and column of a channel are the same weights.
        depthwise = np.abs(graph.constant("d")).reshape(6, -1).max(axis=1)
        np.testing.assert_allclose(two, depthwise, rtol=0.02)
        np.testing.assert_allclose(np.abs(graph.constant("p")).max(axis=(0, 2, 3)), depthwise, rtol=0.02)


def test_what_does_not_commute_with_scaling_is_left(tmp_path):
    source = _chain(tmp_path / "a.onnx", "Sigmoid")
    graph, count = _equalized(source, tmp_path / "b.onnx")
    assert count == 1
    np.testing.assert_array_equal(graph.constant("a"), read_graph(source).constant("a"))
    images = images_of(32)
    want = answers(source, images)
    np.testing.assert_allclose(answers(tmp_path / "b.onnx", images), want, atol=1e-4 * np.abs(want).max())


def test_a_value_that_others_read_too_is_left(tmp_path):
    source = residual_net(tmp_path / "a.onnx")
    graph, count = _equalized(source, tmp_path / "b.onnx")
    # The stem is read by the block and by its shortcut: only the pair within the block remains.
    assert count == 1
    np.testing.assert_array_equal(graph.constant("stem.weight"), read_graph(source).constant("stem.weight"))
    images = images_of(32)
    np.testing.assert_allclose(answers(tmp_path / "b.onnx", images), answers(source, images), atol=1e-4)


def test_dead_channels_do_no_harm(tmp_path):
    source = _chain(tmp_path / "a.onnx")
    graph = read_graph(source)
    weight = graph.constant("a")
    weight[2] = 0
    graph.set_constant("a", weight)
    graph.save(source)
    _equalized(source, tmp_path / "b.onnx")
    images = images_of(32)
    want = answers(source, images)
    np.testing.assert_allclose(answers(tmp_path / "b.onnx", images), want, atol=1e-4 * np.abs(want).max())


@pytest.mark.parametrize("small", [1e-4, 1e-7])
def test_nearly_dead_channels_do_not_blow_up_a_bias(tmp_path, small):
    source = _chain(tmp_path / "a.onnx")
    graph = read_graph(source)
    weight, bias = graph.constant("a"), graph.constant("ab")
    weight[2], bias[2] = small * np.abs(weight).max(), 0.5
    graph.set_constant("a", weight)
    graph.set_constant("ab", bias)
    graph.save(source)
    equalized, _ = _equalized(source, tmp_path / "b.onnx")
    # One range serves all channels of an activation: a constant of thousands would leave the others nothing.
    assert abs(equalized.constant("ab")[2]) <= 0.5 + 1e-6
    assert np.abs(equalized.constant("ab")).max() < 20
