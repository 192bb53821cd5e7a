# SPDX-License-Identifier: Apache-2.0
"""Static int8: every layer runs in integers, and the file agrees with the float one."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from checks.errors import CompressionError, ParamsError
from pipeline.compress.precision_configs import StaticInt8
from pipeline.compress.static_int8 import integer_share, quantize_static_int8
from tests.onnx_nets import answers, images_of, residual_net, write_net


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("int8")
    residual_net(folder / "float.onnx")
    images = images_of(96)
    figures = quantize_static_int8(folder / "float.onnx", folder / "int8.onnx", images, StaticInt8())
    return folder, images, figures


def _quantize(files, tmp_path, **options):
    path = tmp_path / "made.onnx"
    figures = quantize_static_int8(files[0] / "float.onnx", path, files[1], StaticInt8(**options))
    return path, figures


def test_int8_runs_in_integers_and_agrees(files):
    folder, images, figures = files
    assert figures == {
        "convolutions": 3, "integer_convolutions": 3, "products": 1, "integer_products": 1,
    }  # fmt: skip
    assert integer_share(folder / "int8.onnx") == (3, 3)
    assert integer_share(folder / "float.onnx") == (0, 3)
    want, came = (answers(folder / f"{name}.onnx", images) for name in ("float", "int8"))
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


def test_scores_are_not_rounded_to_codes(files):
    folder, images, _ = files
    assert len(np.unique(answers(folder / "int8.onnx", images))) > 256


def test_int8_repeats_byte_for_byte(files, tmp_path):
    path, _ = _quantize(files, tmp_path)
    assert path.read_bytes() == (files[0] / "int8.onnx").read_bytes()


@pytest.mark.parametrize("calibration", ["entropy", "percentile", "mse"])
def test_every_calibrator_finds_ranges_of_its_own_that_work(files, tmp_path, calibration):
    options = {"percentile": 99.0} if calibration == "percentile" else {}
    folder, images, _ = files
    path, _ = _quantize(files, tmp_path, calibration=calibration, **options)
    assert path.read_bytes() != (folder / "int8.onnx").read_bytes()
    came, want = answers(path, images), answers(folder / "float.onnx", images)
    assert np.corrcoef(want.ravel(), came.ravel())[0, 1] > 0.98


@pytest.mark.parametrize("count", [0, 31])
def test_too_little_to_calibrate_on_is_wrong_input(files, tmp_path, count):
    with pytest.raises(ParamsError, match=f"32 calibration images, got {count}"):
        quantize_static_int8(files[0] / "float.onnx", tmp_path / "x", files[1][:count], StaticInt8())
    assert not (tmp_path / "x").exists()


def test_activations_that_are_not_finite_are_an_error(files, tmp_path):
    images = files[1].copy()
    images[40] = np.inf
    with pytest.raises(CompressionError, match="finite activations"):
        quantize_static_int8(files[0] / "float.onnx", tmp_path / "x", images, StaticInt8())


def test_a_file_whose_convolutions_stay_float_is_refused(files, tmp_path, monkeypatch):
    import pipeline.compress.static_int8 as module

    real = module.to_qdq
    monkeypatch.setattr(module, "to_qdq", lambda graph, ranges, **_: real(graph, ranges, only=["head"]))
    with pytest.raises(CompressionError, match="0 of 3"):
        quantize_static_int8(files[0] / "float.onnx", tmp_path / "x", files[1], StaticInt8())
    assert not (tmp_path / "x").exists()


def test_probabilities_still_sum_to_one(tmp_path):
    source = residual_net(tmp_path / "float.onnx", softmax=True)
    images = images_of(96)
    path = tmp_path / "int8.onnx"
    quantize_static_int8(source, path, images, StaticInt8(), output="probabilities")
    np.testing.assert_allclose(answers(path, images).sum(axis=1), 1, atol=1e-5)
    assert integer_share(path) == (3, 3)
    # Logits are not rounded to 256 steps either.
    model = onnx.load(path)
    producers = {name: node for node in model.graph.node for name in node.output}
    assert producers[producers["scores"].input[0]].op_type == "Gemm"


def test_norms_of_foreign_files_are_folded_before(tmp_path):
    source = residual_net(tmp_path / "float.onnx", norms=True)
    images = images_of(96)
    figures = quantize_static_int8(source, tmp_path / "int8.onnx", images, StaticInt8())
    assert figures["folded_norms"] == 3
    assert figures["integer_convolutions"] == 3
    want, came = answers(source, images), answers(tmp_path / "int8.onnx", images)
    assert np.corrcoef(want.ravel(), came.ravel())[0, 1] > 0.98


def test_all_options_together(files, tmp_path):
    folder, images, _ = files
    path, figures = _quantize(
        files, tmp_path, calibration="mse", equalize=True, correct_bias=True, portable=True, keep_float=1
    )
    assert figures["equalized_pairs"] == 2 - 1
    assert figures["corrected_layers"] == 3
    assert figures["rescaled_channels"] > 0
    assert len(figures["kept_float"]) == 1
    want, came = answers(folder / "float.onnx", images), answers(path, images)
    assert np.corrcoef(want.ravel(), came.ravel())[0, 1] > 0.99


def test_the_first_convolution_may_stay_float(files, tmp_path):
    folder, images, _ = files
    path, figures = _quantize(files, tmp_path, float_first=True, keep_float=1)
    assert figures["kept_float"][0] == "stem.weight"
    assert len(figures["kept_float"]) == 2
    assert figures["kept_float"][1] == figures["sensitivity"][0]["layer"] != "stem.weight"
    weights = {entry.name: entry for entry in onnx.load(path).graph.initializer}
    floats = [
        entry
        for entry in weights.values()
        if entry.data_type == onnx.TensorProto.FLOAT and len(entry.dims) == 4
    ]
    stem = numpy_helper.to_array(next(w for w in floats if w.dims[1] == 1))
    # Its scale of pixels is part of it now.
    source = {e.name: numpy_helper.to_array(e) for e in onnx.load(folder / "float.onnx").graph.initializer}
    np.testing.assert_allclose(stem, source["stem.weight"] * source["scale"], rtol=1e-5)
    want = answers(folder / "float.onnx", images)
    plain, _ = _quantize(files, tmp_path)
    rounded = np.abs(answers(plain, images) - want).mean()
    path, _ = _quantize(files, tmp_path, float_first=True)
    assert np.abs(answers(path, images) - want).mean() < rounded


def test_a_file_that_begins_with_no_convolution_has_no_first_one(tmp_path):
    rng = np.random.default_rng(0)
    weights = {"a": rng.normal(size=(64, 8)), "b": rng.normal(size=(8, 4))}
    nodes = [
        helper.make_node("Flatten", ["image"], ["x"]),
        helper.make_node("MatMul", ["x", "a"], ["y"]),
        helper.make_node("MatMul", ["y", "b"], ["scores"]),
    ]
    source = write_net(tmp_path / "a.onnx", nodes, {k: v.astype(np.float32) for k, v in weights.items()})
    with pytest.raises(ParamsError, match="expected a convolution first.*got MatMul first of 2"):
        quantize_static_int8(source, tmp_path / "b.onnx", images_of(64), StaticInt8(float_first=True))
