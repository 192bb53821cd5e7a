# SPDX-License-Identifier: Apache-2.0
"""The twin of whole networks: decides like the file does, and has gradients even where the file is int8."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

from checks.errors import ModelError, ProbeError
from pipeline.models.export import export_onnx
from pipeline.probes.session import open_session, predict
from pipeline.probes.twin import build_twin

pytestmark = pytest.mark.xdist_group("digits")


class Residual(nn.Module):
    """Depthwise and pointwise convolutions around a shortcut."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 12, 3, stride=2, padding=1)
        self.depthwise = nn.Sequential(
            nn.Conv2d(12, 12, 3, padding=1, groups=12), nn.BatchNorm2d(12), nn.ReLU6()
        )
        self.pointwise = nn.Conv2d(12, 12, 1)
        self.last = nn.Linear(12, 5)

    def forward(self, image):
        value = self.first(image / 255.0)
        value = torch.relu(value + self.pointwise(self.depthwise(value)))
        return self.last(value.mean((2, 3)))


class Gated(nn.Module):
    """What mobile networks are made of: hard activations, squeeze and excitation, average pooling."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(3, 16, 3, padding="same")
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(16, 16, 1), nn.Hardsigmoid())
        self.last = nn.Sequential(nn.AvgPool2d(3, 2, 1), nn.Flatten(), nn.Dropout(), nn.Linear(16 * 36, 5))

    def forward(self, image):
        value = nn.functional.hardswish(self.convolution((image - 120) / 60))
        return self.last(value * self.gate(value))


class Attention(nn.Module):
    """Patches, layer normalisation and one head of attention."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, stride=4)
        self.norm = nn.LayerNorm(8)
        self.query, self.key, self.value = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.last = nn.Linear(8, 5)

    def forward(self, image):
        tokens = self.norm(self.patches(image / 255.0).flatten(2).transpose(1, 2))
        weights = torch.softmax(self.query(tokens) @ self.key(tokens).transpose(1, 2) / 8**0.5, dim=-1)
        return self.last(nn.functional.gelu(weights @ self.value(tokens)).mean(dim=1))


class Joined(nn.Module):
    """Two branches, sliced and joined; leaky and sigmoid activations; padding by reflection."""

    def __init__(self):
        super().__init__()
        self.left = nn.Sequential(nn.ReflectionPad2d(1), nn.Conv2d(3, 6, 3, stride=2), nn.LeakyReLU(0.1))
        self.right = nn.Sequential(nn.MaxPool2d(3, 2, 1), nn.Conv2d(3, 6, 1), nn.SiLU())
        self.last = nn.Linear(8, 5)

    def forward(self, image):
        image = image / 255.0
        value = torch.cat([self.left(image)[:, 1:5], self.right(image)[:, :4]], dim=1)
        return self.last(value.amax(dim=(2, 3)))


IMAGES = np.random.default_rng(3).uniform(0, 255, (300, 3, 12, 12)).astype(np.float32)


def _decisions_and_scores(path, images):
    scores = predict(open_session(path), images, 64)
    with torch.no_grad():
        twins = build_twin(path)(torch.from_numpy(images)).numpy()
    return scores, twins


def _gradients(path, images):
    leaf = torch.from_numpy(images).requires_grad_(True)  # noqa: FBT003
    scores = build_twin(path)(leaf)
    nn.functional.cross_entropy(scores, scores.argmax(dim=1)).backward()
    return leaf.grad.numpy()


@pytest.mark.parametrize("network", [Residual, Gated, Attention, Joined])
def test_exported_networks_have_twins_at_fp32_and_int8(tmp_path, network, quantize):
    with torch.random.fork_rng():
        torch.manual_seed(5)
        export_onnx(network(), (3, 12, 12), tmp_path / "fp32.onnx")
    scores, twins = _decisions_and_scores(tmp_path / "fp32.onnx", IMAGES)
    np.testing.assert_allclose(twins, scores, rtol=1e-4, atol=1e-4)
    quantize(tmp_path / "fp32.onnx", tmp_path / "int8.onnx", IMAGES)
    assert any(node.op_type == "QuantizeLinear" for node in onnx.load(tmp_path / "int8.onnx").graph.node)
    codes, code_twins = _decisions_and_scores(tmp_path / "int8.onnx", IMAGES)
    # Untrained networks score classes almost alike, so ties of codes decide now and then.
    assert np.mean(codes.argmax(1) == code_twins.argmax(1)) >= 0.97
    spread = scores.std()
    assert np.abs(codes - code_twins).max() < 0.25 * spread
    assert np.abs(codes - scores).max() > 0


def test_the_trained_network_decides_like_its_files(digits):
    for path in (digits.fp32, digits.int8):
        scores, twins = _decisions_and_scores(path, digits.images)
        assert np.mean(scores.argmax(1) == digits.labels) > 0.9
        assert np.mean(scores.argmax(1) == twins.argmax(1)) >= 0.998
        np.testing.assert_allclose(twins, scores, atol=0.02 * np.abs(scores).max())


def test_gradients_pass_through_eight_bits(digits):
    fp32, int8 = _gradients(digits.fp32, digits.images), _gradients(digits.int8, digits.images)
    assert np.isfinite(int8).all()
    assert np.mean(np.abs(int8).max(axis=(1, 2, 3)) > 0) > 0.99
    cosines = (fp32 * int8).sum((1, 2, 3)) / np.maximum(
        np.sqrt((fp32**2).sum((1, 2, 3)) * (int8**2).sum((1, 2, 3))), 1e-30
    )
    assert np.median(cosines) > 0.9


def test_the_twin_carries_the_weights_of_the_file_it_was_made_from(tmp_path, digits):
    model = onnx.load(digits.int8)
    codes = [entry for entry in model.graph.initializer if entry.data_type == onnx.TensorProto.INT8]
    weight = max(codes, key=lambda entry: np.prod(entry.dims))
    array = numpy_helper.to_array(weight)
    weight.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(np.flip(array)), weight.name))
    (tmp_path / "other.onnx").write_bytes(model.SerializeToString())
    scores, twins = _decisions_and_scores(tmp_path / "other.onnx", digits.images)
    original, _ = _decisions_and_scores(digits.int8, digits.images)
    assert np.mean(scores.argmax(1) == twins.argmax(1)) >= 0.99
    assert np.mean(scores.argmax(1) == original.argmax(1)) < 0.9


def test_one_image_and_many_score_alike(digits):
    twin = build_twin(digits.int8)
    with torch.no_grad():
        many = twin(torch.from_numpy(digits.images[:8]))
        one = torch.cat([twin(image[None]) for image in torch.from_numpy(digits.images[:8])])
    np.testing.assert_allclose(one.numpy(), many.numpy(), atol=1e-4)


def test_an_operation_without_a_twin_is_named(write_onnx):
    path = write_onnx("m.onnx", [helper.make_node("Sin", ["image"], ["scores"], name="wave")])
    with pytest.raises(ProbeError, match="Sin") as caught:
        build_twin(path)
    assert "wave" in str(caught.value)
    assert caught.value.hint


def test_an_operation_of_another_domain_is_not_taken_for_onnxs_own(write_onnx):
    node = helper.make_node("Relu", ["image"], ["scores"], domain="com.example")
    with pytest.raises(ProbeError, match=r"com\.example\.Relu"):
        build_twin(write_onnx("m.onnx", [node], domains=("com.example",)))


@pytest.mark.parametrize(
    ("nodes", "options", "named"),
    [
        ([helper.make_node("Relu", ["image"], ["scores"])], {"opset": 12}, "opset"),
        ([helper.make_node("Add", ["image", "nowhere"], ["scores"])], {}, "nowhere"),
        ([helper.make_node("Relu", ["image"], ["elsewhere"])], {}, "scores"),
        ([helper.make_node("Constant", [], ["scores"], value_string="text")], {}, "value_string"),
    ],
)
def test_graphs_that_are_not_whole_are_refused(write_onnx, nodes, options, named):
    with pytest.raises(ProbeError, match=named):
        build_twin(write_onnx("m.onnx", nodes, **options))


def test_weights_that_torch_cannot_hold_are_refused(write_onnx):
    model = onnx.load(
        write_onnx("m.onnx", [helper.make_node("Add", ["image", "w"], ["scores"])], {"w": np.float32(1)})
    )
    model.graph.initializer[0].CopyFrom(helper.make_tensor("w", onnx.TensorProto.FLOAT8E4M3FN, [1], [1.0]))
    path = write_onnx("m.onnx", [])
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ProbeError, match="FLOAT8E4M3FN"):
        build_twin(path)


def test_shapes_that_do_not_fit_are_told_with_the_node(linear_onnx):
    twin = build_twin(linear_onnx("m.onnx", np.zeros((64, 2)), [0, 0]))
    with pytest.raises(ProbeError, match="Gemm"):
        twin(torch.zeros(1, 1, 4, 4))


def test_a_file_that_is_no_model_is_refused(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"\xff" * 100)
    with pytest.raises(ModelError):
        build_twin(tmp_path / "m.onnx")


def test_importing_the_pool_does_not_import_torch():
    code = "import sys, pipeline.probes.attack; assert not {'torch', 'art'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
