# SPDX-License-Identifier: Apache-2.0
"""Layers kept float are the most sensitive ones, and do run in floats."""

import numpy as np
import pytest
from scipy.special import rel_entr, softmax

from checks.errors import CompressionError, ParamsError
from pipeline.compress.calibration import find_ranges
from pipeline.compress.graphs import read_graph
from pipeline.compress.integers import expect_integers
from pipeline.compress.precision_configs import StaticInt8
from pipeline.compress.qdq import to_qdq
from pipeline.compress.sensitivity import divergence, rank_layers
from pipeline.compress.static_int8 import integer_share, quantize_static_int8
from tests.onnx_nets import answers, images_of, residual_net


def test_divergence_is_scipys():
    rng = np.random.default_rng(0)
    one, two = rng.normal(size=(2, 50, 4))
    want = rel_entr(softmax(one, axis=1), softmax(two, axis=1)).sum(axis=1).mean()
    assert divergence(one, two) == pytest.approx(want)
    assert divergence(softmax(one, axis=1), softmax(two, axis=1), "probabilities") == pytest.approx(want)
    assert divergence(one, one + 3) == pytest.approx(0, abs=1e-12)


@pytest.fixture(scope="module")
def spoiled(tmp_path_factory):
    """A net of which one layer has an outlier that ruins the scale of its channels."""
    path = residual_net(tmp_path_factory.mktemp("net") / "m.onnx")
    graph = read_graph(path)
    weight = graph.constant("one.weight")
    weight[:, 0, 0, 0] *= 300
    graph.set_constant("one.weight", weight)
    graph.save(path)
    return path, images_of(96)


def test_ranking_is_by_what_each_layer_alone_does(spoiled, tmp_path):
    path, images = spoiled
    graph = read_graph(path)
    ranges = find_ranges(graph, images, StaticInt8())
    ranking = rank_layers(graph, ranges, images)
    assert {entry.node for entry in ranking} == {"stem", "one", "two", "head"}
    assert ranking[0].layer == "one.weight"
    for entry in ranking:
        to_qdq(graph, ranges, only=[entry.node]).save(tmp_path / "one.onnx")
        want = divergence(answers(path, images), answers(tmp_path / "one.onnx", images))
        assert entry.divergence == pytest.approx(want, rel=1e-3, abs=1e-9)
    assert [entry.divergence for entry in ranking] == sorted((e.divergence for e in ranking), reverse=True)


def test_the_worst_stay_float_and_the_answers_gain(spoiled, tmp_path):
    path, images = spoiled
    want, errors = answers(path, images), []
    for kept in range(3):
        config = StaticInt8(keep_float=kept)
        figures = quantize_static_int8(path, tmp_path / "int8.onnx", images, config)
        errors.append(np.abs(answers(tmp_path / "int8.onnx", images) - want).mean())
        if kept:
            assert figures["kept_float"] == [entry["layer"] for entry in figures["sensitivity"][:kept]]
            floats = sum(name != "head.weight" for name in figures["kept_float"])
            # ONNX Runtime would quantize a float convolution between quantized ones, unasked.
            assert integer_share(tmp_path / "int8.onnx") == (3 - floats, 3)
    assert errors[1] < 0.7 * errors[0]


def test_keeping_all_layers_float_is_refused(spoiled, tmp_path):
    path, images = spoiled
    with pytest.raises(
        ParamsError, match="keep_float below the number of layers 4 that could stay float, got 4"
    ):
        quantize_static_int8(path, tmp_path / "x.onnx", images, StaticInt8(keep_float=4))
    assert not (tmp_path / "x.onnx").exists()


def test_what_should_stay_float_and_does_not_is_refused(spoiled, tmp_path):
    path, images = spoiled
    quantize_static_int8(path, tmp_path / "int8.onnx", images, StaticInt8())
    expect_integers(tmp_path / "int8.onnx")
    with pytest.raises(CompressionError, match="1 convolutions to stay float, got 0"):
        expect_integers(tmp_path / "int8.onnx", float_convolutions=1)
    with pytest.raises(CompressionError, match="every convolution to run in integers, got 0 of 3"):
        expect_integers(path)
