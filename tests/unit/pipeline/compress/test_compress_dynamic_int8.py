# SPDX-License-Identifier: Apache-2.0
"""Dynamic int8: products run in integers, convolutions in floats, weights are int8 throughout."""

import numpy as np
import onnx
import pytest
from onnx import helper

from checks.errors import CompressionError
from pipeline.compress.dynamic_int8 import quantize_dynamic_int8
from pipeline.compress.integers import count_integer_layers
from pipeline.models.cost import measure_cost
from pipeline.probes.twin import build_twin
from tests.onnx_nets import CLASSES, answers, images_of, residual_net, write_net


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("net")
    source = residual_net(folder / "float.onnx", width=64)
    figures = quantize_dynamic_int8(source, folder / "int8.onnx")
    return source, folder / "int8.onnx", figures


def test_products_run_in_integers_and_convolutions_do_not(files):
    source, path, figures = files
    assert figures == {"products": 1, "integer_products": 1, "weights_only": 3}
    found = count_integer_layers(path)
    assert (found.convolutions, found.integer_convolutions) == (3, 0)
    assert path.stat().st_size < 0.29 * source.stat().st_size


def test_answers_agree(files):
    images = images_of(64)
    want, came = (answers(path, images) for path in files[:2])
    assert np.abs(want - came).max() < 0.05 * np.abs(want).max()


def test_an_answer_does_not_depend_on_the_images_beside_it(files):
    images = images_of(16)
    images[0] *= 100
    together = answers(files[1], images)
    alone = np.concatenate([answers(files[1], images[index : index + 1]) for index in range(16)])
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-5)


def test_cost_counts_the_same_layers(files):
    one, two = (measure_cost(path) for path in files[:2])
    assert (one.macs, one.parameters) == (two.macs, two.parameters)


def test_a_twin_computes_the_same_with_a_gradient(files):
    import torch

    images = images_of(16)
    pixels = torch.from_numpy(images).requires_grad_()
    scores = build_twin(files[1])(pixels)
    np.testing.assert_allclose(scores.detach().numpy(), answers(files[1], images), atol=0.02)
    scores[:, 1].sum().backward()
    smooth = torch.from_numpy(images).requires_grad_()
    build_twin(files[0])(smooth)[:, 1].sum().backward()
    cosine = torch.nn.functional.cosine_similarity(pixels.grad.flatten(), smooth.grad.flatten(), dim=0)
    assert cosine > 0.98


@pytest.mark.parametrize("opset", [17, 20])
def test_a_product_computes_what_numpy_computes(tmp_path, opset):
    rng = np.random.default_rng(0)
    weights = {"w": rng.normal(size=(CLASSES, 64)), "b": rng.normal(size=CLASSES)}
    weights = {name: value.astype(np.float32) for name, value in weights.items()}
    weights["w"][1] = 0
    nodes = [
        helper.make_node("Flatten", ["image"], ["x"]),
        helper.make_node("Gemm", ["x", "w", "b"], ["scores"], transB=1, alpha=0.5, beta=2.0),
    ]
    source = write_net(tmp_path / "a.onnx", nodes, weights, opset=opset)
    quantize_dynamic_int8(source, tmp_path / "b.onnx")
    images = images_of(32)
    images[5] = 0
    rows = images.reshape(32, 64)
    step = np.maximum(np.abs(rows).max(axis=1, keepdims=True) / 127, 1e-20)
    largest = np.abs(weights["w"]).max(axis=1) / 127
    codes = np.rint(weights["w"] / np.where(largest > 0, largest, 1)[:, None])
    want = 0.5 * step * (np.rint(rows / step) @ codes.T) * largest + 2 * weights["b"]
    np.testing.assert_allclose(answers(tmp_path / "b.onnx", images), want, rtol=1e-3, atol=1e-3)


def test_products_of_matmul_are_found_too(tmp_path):
    rng = np.random.default_rng(0)
    weights = {"w": rng.normal(size=(64, 32)), "v": rng.normal(size=(32, CLASSES)), "b": rng.normal(size=32)}
    nodes = [
        helper.make_node("Flatten", ["image"], ["x"]),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
        helper.make_node("Add", ["y", "b"], ["z"]),
        helper.make_node("Relu", ["z"], ["r"]),
        helper.make_node("MatMul", ["r", "v"], ["scores"]),
    ]
    weights = {name: value.astype(np.float32) for name, value in weights.items()}
    source = write_net(tmp_path / "a.onnx", nodes, weights)
    assert quantize_dynamic_int8(source, tmp_path / "b.onnx")["integer_products"] == 2
    images = images_of(32)
    want = answers(source, images)
    assert np.abs(want - answers(tmp_path / "b.onnx", images)).max() < 0.05 * np.abs(want).max()
    assert measure_cost(tmp_path / "b.onnx").macs == 64 * 32 + 32 * CLASSES
    kinds = {tensor.data_type for tensor in onnx.load(tmp_path / "b.onnx").graph.initializer}
    assert onnx.TensorProto.INT8 in kinds


def test_a_net_without_products_is_refused(tmp_path):
    weights = {"w": np.ones((CLASSES, 1, 1, 1), np.float32), "axes": np.array([2, 3])}
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["x"]),
        helper.make_node("ReduceMean", ["x", "axes"], ["scores"], keepdims=0),
    ]
    source = write_net(tmp_path / "a.onnx", nodes, weights)
    with pytest.raises(CompressionError, match="matrix products"):
        quantize_dynamic_int8(source, tmp_path / "x.onnx")
    assert not (tmp_path / "x.onnx").exists()
