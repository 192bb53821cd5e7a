# SPDX-License-Identifier: Apache-2.0
"""Static int8: every convolution runs in integers, and the file agrees with the float one."""

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from checks.errors import CompressionError
from pipeline.compress.configs import StaticInt8
from pipeline.compress.static_int8 import integer_share, quantize_static_int8
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
    quantize_static_int8(
        folder / "float.onnx", tmp_path / "other.onnx", images, StaticInt8(calibration="percentile")
    )
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
