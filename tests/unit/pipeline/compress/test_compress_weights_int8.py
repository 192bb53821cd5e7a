# SPDX-License-Identifier: Apache-2.0
"""Weights stored as int8: a quarter of the bytes, computed in floats from the rounded weights."""

import numpy as np
import onnx
import pytest
from onnx import helper

from checks.errors import CompressionError
from pipeline.compress.graphs import read_graph
from pipeline.compress.weights_int8 import quantize_weights_int8
from pipeline.models.cost import measure_cost
from pipeline.probes.session import create_session
from pipeline.probes.twin import build_twin
from tests.onnx_nets import answers, images_of, residual_net, write_net


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("net")
    source = residual_net(folder / "float.onnx", width=64)
    figures = quantize_weights_int8(source, folder / "int8.onnx")
    return source, folder / "int8.onnx", figures


def test_a_quarter_of_the_bytes(files):
    source, path, figures = files
    assert figures == {"layers": 4}
    assert path.stat().st_size < 0.28 * source.stat().st_size


def test_it_computes_with_the_rounded_weights(files, tmp_path):
    source, path, _ = files
    graph = read_graph(source)
    for layer in graph.layers():
        weight = graph.constant(layer.weight)
        largest = np.abs(weight).max(axis=tuple(range(1, weight.ndim)), keepdims=True)
        rounded = np.rint(weight / (largest / 127)) * (largest / 127)
        graph.set_constant(layer.weight, rounded.astype(np.float32))
    graph.save(tmp_path / "rounded.onnx")
    images = images_of(32)
    want = answers(tmp_path / "rounded.onnx", images)
    np.testing.assert_allclose(answers(path, images), want, atol=1e-4)
    assert not np.allclose(answers(source, images), want, atol=1e-4)


def test_the_weights_are_floats_before_the_first_call(files, tmp_path):
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    ort.InferenceSession(str(files[1]), options, providers=["CPUExecutionProvider"])
    kinds = {node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node}
    assert not kinds & {"DequantizeLinear", "Cast"}


def test_cost_counts_the_same_layers(files):
    one, two = (measure_cost(path) for path in files[:2])
    assert (one.macs, one.parameters) == (two.macs, two.parameters)


def test_a_twin_computes_the_same(files):
    import torch

    images = images_of(16)
    with torch.no_grad():
        came = build_twin(files[1])(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(came, answers(files[1], images), atol=1e-4)


@pytest.mark.parametrize("groups", [1, 2])
def test_transposed_convolutions_and_shared_weights(tmp_path, groups):
    rng = np.random.default_rng(0)
    weights = {"w": rng.normal(size=(4, 4 // groups, 2, 2)), "a": rng.normal(size=(4, 1, 1, 1))}
    weights = {name: value.astype(np.float32) for name, value in weights.items()} | {"axes": np.array([2, 3])}
    nodes = [
        helper.make_node("Conv", ["image", "a"], ["x"]),
        helper.make_node("ConvTranspose", ["x", "w"], ["y"], group=groups),
        helper.make_node("ConvTranspose", ["y", "w"], ["z"], group=groups),
        helper.make_node("ReduceMean", ["z", "axes"], ["scores"], keepdims=0),
    ]
    source = write_net(tmp_path / "a.onnx", nodes, weights)
    assert quantize_weights_int8(source, tmp_path / "b.onnx") == {"layers": 2}
    images = images_of(8)
    want = answers(source, images)
    np.testing.assert_allclose(answers(tmp_path / "b.onnx", images), want, atol=0.02 * np.abs(want).max())
    create_session(tmp_path / "b.onnx")


def test_nothing_to_store_and_weights_that_are_not_finite_are_refused(files, tmp_path):
    graph = read_graph(files[0])
    weight = graph.constant("one.weight")
    weight[0, 0, 0, 0] = np.nan
    graph.set_constant("one.weight", weight)
    graph.save(tmp_path / "nan.onnx")
    with pytest.raises(CompressionError, match="finite weights.*|layer one.weight"):
        quantize_weights_int8(tmp_path / "nan.onnx", tmp_path / "x.onnx")
    pool = [
        helper.make_node("Flatten", ["image"], ["flat"]),
        helper.make_node("Slice", ["flat", "from", "to", "axis"], ["scores"]),
    ]
    ends = {"from": np.array([0]), "to": np.array([4]), "axis": np.array([1])}
    write_net(tmp_path / "none.onnx", pool, ends)
    with pytest.raises(CompressionError, match="got none"):
        quantize_weights_int8(tmp_path / "none.onnx", tmp_path / "x.onnx")
    assert not (tmp_path / "x.onnx").exists()
