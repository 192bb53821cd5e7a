# SPDX-License-Identifier: Apache-2.0
"""Compression: targets are met, what was pruned equals the same channels at zero, int8 runs in integers."""

import copy

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from checks.errors import CompressionError
from pipeline.compress.channels import ChannelPruning, count_macs, prune_channels
from pipeline.compress.static_int8 import StaticInt8, integer_share, quantize_static_int8
from pipeline.models.export import export_onnx
from pipeline.probes.session import open_session, predict


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12), nn.ReLU())
        self.block = nn.Sequential(
            nn.Conv2d(12, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12), nn.ReLU(),
            nn.Conv2d(12, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12),
        )  # fmt: skip
        self.head = nn.Linear(12, 4)

    def forward(self, x):
        x = self.stem(x)
        x = torch.relu(x + self.block(x))
        return self.head(x.mean((2, 3)))


class Shuffle(nn.Module):
    """Channel shuffle, which torch-pruning traces wrongly."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        x = torch.relu(self.first(x))
        n, c, h, w = x.shape
        x = x.reshape(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        return self.head(torch.relu(self.second(x)).mean((2, 3)))


class PaddedShortcut(nn.Module):
    """The option-A shortcut of the first residual networks: channels padded with zeros, no weights."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        x = torch.relu(self.first(x))
        short = nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4))
        return self.head(torch.relu(self.second(x) + short).mean((2, 3)))


def _plain():
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 24, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(24 * 16, 4),
    )  # fmt: skip


def _randomised(module, seed=0):
    torch.manual_seed(seed)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for values in (layer.weight.data, layer.bias.data, layer.running_mean):
                values.copy_(torch.randn_like(values))
            layer.running_var.copy_(torch.rand_like(layer.running_var) + 0.5)
    return module.eval()


def _batch(n=64):
    generator = torch.Generator().manual_seed(3)
    return torch.rand(n, 1, 8, 8, generator=generator) * 16, torch.randint(0, 4, (n,), generator=generator)


@pytest.mark.parametrize("criterion", ["l1", "l2", "batchnorm", "taylor", "random"])
@pytest.mark.parametrize("build", [_plain, Residual])
def test_pruning_meets_its_target_and_changes_nothing_else(build, criterion):
    torch.manual_seed(0)
    module = _randomised(build())
    before = copy.deepcopy(module.state_dict())
    images, labels = _batch()
    with torch.no_grad():
        want = module(images)
    result = prune_channels(module, ChannelPruning(2.0, criterion), images, labels)
    assert result.macs_before == count_macs(module, images[:1])
    assert result.macs_before / 4 < result.macs_after <= result.macs_before / 2
    assert result.module(images).shape == want.shape
    assert sum(after < width for width, after in result.channels.values()) >= 1
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    with torch.no_grad():
        assert torch.equal(module(images), want)


def test_frozen_layers_are_pruned_and_stay_frozen():
    torch.manual_seed(0)
    module = _randomised(Residual())
    module.block[0].weight.requires_grad_(False)
    images, labels = _batch()
    result = prune_channels(module, ChannelPruning(2.0, "taylor"), images, labels)
    assert result.macs_after <= result.macs_before / 2
    assert [parameter.requires_grad for parameter in result.module.parameters()] == [
        parameter.requires_grad for parameter in module.parameters()
    ]


def test_pruning_repeats():
    torch.manual_seed(0)
    module = _randomised(Residual())
    images, labels = _batch()
    first, again = (prune_channels(module, ChannelPruning(3.0), images, labels).module for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))


def test_a_factor_of_one_prunes_nothing():
    module, (images, labels) = _randomised(_plain()), _batch()
    result = prune_channels(module, ChannelPruning(1.0), images, labels)
    assert result.macs_after == result.macs_before
    assert torch.equal(result.module(images), module(images))


def test_channel_counts_are_multiples_when_asked():
    torch.manual_seed(0)
    images, labels = _batch()
    result = prune_channels(_randomised(_plain()), ChannelPruning(2.0, "l2", round_to=4), images, labels)
    assert all(after % 4 == 0 for _, after in result.channels.values())
    assert result.macs_after <= result.macs_before / 2


@pytest.mark.parametrize("build", [Shuffle, PaddedShortcut])
def test_what_cannot_be_traced_is_pruned_right_or_refused(build):
    torch.manual_seed(0)
    module, (images, labels) = _randomised(build()), _batch()
    before = copy.deepcopy(module.state_dict())
    with pytest.raises(CompressionError):
        prune_channels(module, ChannelPruning(2.0, "l2"), images, labels)
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())


def test_a_target_out_of_reach_says_what_was_reached():
    images, labels = _batch()
    with pytest.raises(CompressionError, match="reached"):
        prune_channels(_randomised(_plain()), ChannelPruning(100.0, "l2"), images, labels)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("int8")
    torch.manual_seed(0)
    export_onnx(_randomised(Residual()), (1, 8, 8), folder / "float.onnx")
    images = _batch(128)[0].numpy()
    figures = quantize_static_int8(folder / "float.onnx", folder / "int8.onnx", images, StaticInt8())
    return folder, images, figures


def test_int8_runs_in_integers_and_agrees(files):
    folder, images, figures = files
    assert figures == {"convolutions": 3, "integer_convolutions": 3}
    assert integer_share(folder / "int8.onnx") == (3, 3)
    assert integer_share(folder / "float.onnx") == (0, 3)
    want = predict(open_session(folder / "float.onnx"), images, 32)
    came = predict(open_session(folder / "int8.onnx"), images, 32)
    assert not np.array_equal(want, came)
    assert np.corrcoef(want.ravel(), came.ravel())[0, 1] > 0.99


def test_int8_weights_are_int8_per_channel_and_activations_uint8(files):
    model = onnx.load(files[0] / "int8.onnx")
    kinds = {tensor.name: tensor for tensor in model.graph.initializer}
    weights = [
        tensor
        for tensor in kinds.values()
        if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) == 4
    ]
    assert len(weights) == 3
    dequantized = [node for node in model.graph.node if node.op_type == "DequantizeLinear"]
    scales = [
        kinds[node.input[1]] for node in dequantized if node.input[0] in {tensor.name for tensor in weights}
    ]
    assert sorted(list(scale.dims) for scale in scales) == [[12], [12], [12]]
    zero_points = [kinds[node.input[2]] for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert {tensor.data_type for tensor in zero_points} == {onnx.TensorProto.UINT8}


def test_int8_repeats_byte_for_byte(files, tmp_path):
    folder, images, _ = files
    quantize_static_int8(folder / "float.onnx", tmp_path / "again.onnx", images, StaticInt8())
    assert (tmp_path / "again.onnx").read_bytes() == (folder / "int8.onnx").read_bytes()
    quantize_static_int8(folder / "float.onnx", tmp_path / "other.onnx", images, StaticInt8("percentile"))
    assert (tmp_path / "other.onnx").read_bytes() != (folder / "int8.onnx").read_bytes()


def test_nothing_to_calibrate_on_is_an_error(files, tmp_path):
    with pytest.raises(CompressionError, match="calibration"):
        quantize_static_int8(files[0] / "float.onnx", tmp_path / "x", files[1][:0], StaticInt8())
    assert not (tmp_path / "x").exists()


def test_a_file_whose_convolutions_stay_float_is_refused(files, tmp_path, monkeypatch):
    import onnxruntime.quantization as quantization

    real = quantization.quantize_static
    monkeypatch.setattr(
        quantization, "quantize_static", lambda *a, **k: real(*a, **{**k, "op_types_to_quantize": ["Gemm"]})
    )
    with pytest.raises(CompressionError, match="0 of 3"):
        quantize_static_int8(files[0] / "float.onnx", tmp_path / "x", files[1], StaticInt8())
