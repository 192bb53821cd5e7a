# SPDX-License-Identifier: Apache-2.0
"""Portable weights: no pair of products leaves 16 bits, which a processor without VNNI would saturate."""

import itertools

import numpy as np
import pytest

from pipeline.compress.graphs import read_graph
from pipeline.compress.portable import is_portable, saturating_channels
from pipeline.compress.precision_configs import StaticInt8
from pipeline.compress.qdq import quantized_layers
from pipeline.compress.static_int8 import quantize_static_int8
from tests.onnx_nets import answers, images_of, residual_net


def _saturates(row):
    """Emulate `vpmaddubsw` with the worst activations on every pair: does saturation change a sum?"""
    for one, two in itertools.combinations(row.astype(np.int64), 2):
        for left, right in itertools.product((0, 255), repeat=2):
            exact = left * one + right * two
            if np.clip(exact, -32768, 32767) != exact:
                return True
    return False


def test_channels_that_saturate_are_found_and_no_others():
    rng = np.random.default_rng(0)
    rows = rng.integers(-70, 71, (200, 6)).astype(np.int8)
    rows[0] = [127, -127, 1, 1, 1, 1]
    rows[1] = [64, 64, 0, 0, 0, 0]
    rows[2] = [65, 64, 0, 0, 0, 0]
    rows[3] = [-64, -64, 0, 0, 0, 0]
    rows[4] = [-65, -64, 0, 0, 0, 0]
    came = saturating_channels(rows.reshape(200, 2, 3, 1), 0)
    assert came.tolist() == [_saturates(row) for row in rows]
    assert came[:5].tolist() == [False, False, True, False, True]
    np.testing.assert_array_equal(saturating_channels(rows.T.copy(), 1), came)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder, images = tmp_path_factory.mktemp("net"), images_of(96)
    residual_net(folder / "float.onnx")
    figures = {}
    for name, portable in (("plain", False), ("portable", True)):
        figures[name] = quantize_static_int8(
            folder / "float.onnx", folder / f"{name}.onnx", images, StaticInt8(portable=portable)
        )
    return folder, images, figures


def test_a_portable_file_cannot_saturate_and_still_agrees(made):
    folder, images, figures = made
    assert not is_portable(read_graph(folder / "plain.onnx"))
    assert is_portable(read_graph(folder / "portable.onnx"))
    assert 0 < figures["portable"]["rescaled_channels"] <= 12 * 3 + 4
    want, came = (answers(folder / f"{name}.onnx", images) for name in ("float", "portable"))
    assert np.abs(want - came).mean() < 0.02 * np.abs(want).mean() + 0.02


def test_channels_that_fit_keep_their_scales(made):
    folder, _, figures = made
    plain, portable = (read_graph(folder / f"{name}.onnx") for name in ("plain", "portable"))
    changed = 0
    for one, two in zip(quantized_layers(plain), quantized_layers(portable), strict=True):
        codes = plain.constant(one.weight)
        kept = plain.constant(one.scale) == portable.constant(two.scale)
        np.testing.assert_array_equal(~kept, saturating_channels(codes, one.axis))
        changed += int((~kept).sum())
        moved = (
            np.moveaxis(codes, one.axis, 0)[kept],
            np.moveaxis(portable.constant(two.weight), two.axis, 0)[kept],
        )
        np.testing.assert_array_equal(*moved)
        # An int32 bias is stored at the product of both scales, or it adds another number.
        product = float(portable.constant(two.input_scale)) * portable.constant(two.scale)
        if two.bias_scale:
            np.testing.assert_allclose(portable.constant(two.bias_scale), product, rtol=1e-6)
    assert changed == figures["portable"]["rescaled_channels"]
