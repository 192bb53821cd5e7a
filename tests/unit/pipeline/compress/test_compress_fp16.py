# SPDX-License-Identifier: Apache-2.0
"""Float16: half the bytes, the same answers to three digits, and never infinity."""

import numpy as np
import onnx
import pytest

from checks.errors import CompressionError
from pipeline.compress.calibration import run_on
from pipeline.compress.fp16 import convert_float16
from pipeline.compress.graphs import read_graph
from pipeline.models.cost import measure_cost
from pipeline.probes.session import open_session, predict
from pipeline.probes.twin import build_twin
from tests.onnx_nets import answers, images_of, residual_net


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder, images = tmp_path_factory.mktemp("net"), images_of(40)
    source = residual_net(folder / "float.onnx", width=48)
    figures = convert_float16(source, folder / "half.onnx", images)
    return source, folder / "half.onnx", images, figures


def test_half_the_bytes_and_the_same_answers(files):
    source, path, images, _ = files
    assert path.stat().st_size < 0.52 * source.stat().st_size
    want = answers(source, images)
    # Signature and types are what every probe expects.
    came = predict(open_session(path), images, 16)
    np.testing.assert_allclose(came, want, atol=0.01 * np.abs(want).max())
    assert not np.array_equal(came, want)


def test_weights_are_the_nearest_halves_and_none_is_float32(files):
    source, path, _, _ = files
    kinds = {tensor.data_type for tensor in onnx.load(path).graph.initializer}
    assert kinds == {onnx.TensorProto.FLOAT16, onnx.TensorProto.INT64}
    half, graph = read_graph(path), read_graph(source)
    stored = {half.constant(tensor.name).tobytes() for tensor in half.model.graph.initializer}
    for name in ("stem.weight", "one.weight", "head.bias"):
        assert graph.constant(name).astype(np.float16).tobytes() in stored


def test_largest_activation_is_recorded(files):
    source, _, images, figures = files
    graph = read_graph(source)
    names = ["image", *(node.output[0] for node in graph.nodes)]
    largest = max(np.abs(value).max() for values in run_on(graph, names, images) for value in values.values())
    assert figures["largest_activation"] == pytest.approx(float(largest), rel=1e-5)


def test_cost_counts_the_same_layers(files):
    one, two = (measure_cost(path) for path in files[:2])
    assert (one.macs, one.parameters) == (two.macs, two.parameters)


def test_a_twin_computes_the_same(files):
    import torch

    _, path, images, _ = files
    twin = build_twin(path)
    pixels = torch.from_numpy(images).requires_grad_()
    scores = twin(pixels)
    np.testing.assert_allclose(scores.detach().numpy(), answers(path, images), atol=0.02)
    scores[:, 0].sum().backward()
    assert pixels.grad.abs().sum() > 0


def test_it_repeats(files, tmp_path):
    source, path, images, _ = files
    convert_float16(source, tmp_path / "again.onnx", images)
    assert (tmp_path / "again.onnx").read_bytes() == path.read_bytes()


def test_a_weight_or_an_activation_that_overflows_is_refused(files, tmp_path):
    source, _, images, _ = files
    graph = read_graph(source)
    weight = graph.constant("one.weight")
    weight[3, 0, 0, 0] = 70_000
    graph.set_constant("one.weight", weight)
    graph.save(tmp_path / "large.onnx")
    with pytest.raises(CompressionError, match="constant one.weight"):
        convert_float16(tmp_path / "large.onnx", tmp_path / "x.onnx", images)
    with pytest.raises(CompressionError, match="expected values within 65504.*got"):
        convert_float16(source, tmp_path / "x.onnx", images * 10_000)
    assert not (tmp_path / "x.onnx").exists()
