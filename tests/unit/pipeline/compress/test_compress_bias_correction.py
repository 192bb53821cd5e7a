# SPDX-License-Identifier: Apache-2.0
"""Bias correction brings the mean output of every layer nearer to the float one."""

import numpy as np
import pytest

from pipeline.compress.bias_correction import add_missing_biases, correct_biases, mean_outputs
from pipeline.compress.calibration import find_ranges
from pipeline.compress.graphs import read_graph
from pipeline.compress.precision_configs import StaticInt8
from pipeline.compress.qdq import to_qdq
from tests.onnx_nets import answers, images_of, residual_net

LAYERS = ("stem", "one", "two", "head")


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    path = residual_net(tmp_path_factory.mktemp("net") / "m.onnx")
    graph, images = read_graph(path), images_of(96)
    add_missing_biases(graph)
    # Ranges that clip shift means; that is what the correction is for.
    ranges = find_ranges(graph, images, StaticInt8(calibration="percentile", percentile=97.0))
    return path, graph, images, ranges


def _shifts(made, graph, images):
    """Mean absolute shift of the channels of each layer."""
    outputs = {node.name: node.output[0] for node in graph.nodes}
    own = {node.name: node.output[0] for node in made.nodes}
    want = mean_outputs(graph, [outputs[name] for name in LAYERS], images)
    came = mean_outputs(made, [own[name] for name in LAYERS], images)
    return {name: np.abs(want[outputs[name]] - came[own[name]]).mean() for name in LAYERS}


def test_every_layers_mean_comes_nearer(case):
    _, graph, images, ranges = case
    before = _shifts(to_qdq(graph, ranges), graph, images)
    made = to_qdq(graph, ranges)
    assert correct_biases(made, graph, images) == 4
    after = _shifts(made, graph, images)
    assert all(after[name] < 0.2 * before[name] for name in LAYERS), (before, after)


def test_means_are_numpys(case):
    path, graph, images, _ = case
    [(name, mean)] = mean_outputs(graph, ["scores"], images).items()
    assert name == "scores"
    np.testing.assert_allclose(mean, answers(path, images).mean(axis=0), rtol=1e-4)


def test_added_biases_change_nothing(case, tmp_path):
    path, graph, images, _ = case
    graph.save(tmp_path / "b.onnx")
    np.testing.assert_array_equal(answers(path, images), answers(tmp_path / "b.onnx", images))
