# SPDX-License-Identifier: Apache-2.0
"""Calibrators against searches over the values themselves, and against numpy."""

import numpy as np
import pytest

from checks.errors import ParamsError
from pipeline.compress import calibration
from pipeline.compress.calibration import (
    entropy_range,
    find_ranges,
    mse_range,
    observe,
    percentile_range,
    run_on,
)
from pipeline.compress.graphs import read_graph
from pipeline.compress.precision_configs import StaticInt8
from tests.onnx_nets import images_of, residual_net


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    return read_graph(residual_net(tmp_path_factory.mktemp("net") / "m.onnx"))


def _values(graph, name, images):
    return np.concatenate([values[name].ravel() for values in run_on(graph, [name], images)])


def _error(values, low, high):
    scale = (high - low) / 255
    zero = np.rint(-low / scale)
    codes = np.clip(np.rint(values / scale) + zero, 0, 255)
    return np.mean(((codes - zero) * scale - values) ** 2)


def _heavy_tailed(two_sided):
    values = np.random.default_rng(0).laplace(size=100_000).astype(np.float32)
    return values if two_sided else np.maximum(values, 0)


def _histogram(values):
    """The histogram of values, by numpy."""
    low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
    counts, edges = np.histogram(values, bins=2048, range=(low, high))
    sums, _ = np.histogram(values, bins=2048, range=(low, high), weights=values.astype(np.float64))
    middles = (edges[1:] + edges[:-1]) / 2
    centers = np.where(counts > 0, sums / np.maximum(counts, 1), middles)
    return calibration.Histogram(low, high, counts.astype(float), centers)


@pytest.mark.parametrize("two_sided", [False, True])
def test_mse_finds_what_brute_force_finds(two_sided):
    values = _heavy_tailed(two_sided)
    found = _error(values, *mse_range(_histogram(values)))
    highs = np.linspace(values.max() / 2, values.max(), 20)
    lows = np.linspace(values.min() / 2, values.min(), 20) if two_sided else [0.0]
    best = min(_error(values, low, high) for low in lows for high in highs)
    assert found <= 1.02 * best
    assert found < 0.95 * _error(values, values.min(), values.max())


def test_percentile_is_numpys():
    values = _heavy_tailed(two_sided=True)
    low, high = percentile_range(_histogram(values), 98.0)
    bin_width = float(values.max() - values.min()) / 2048
    assert low == pytest.approx(np.percentile(values, 1), abs=1.01 * bin_width)
    assert high == pytest.approx(np.percentile(values, 99), abs=1.01 * bin_width)
    assert percentile_range(_histogram(values), 100.0) == pytest.approx((values.min(), values.max()))


def test_entropy_neither_keeps_outliers_nor_clips_the_bulk():
    values = np.maximum(np.random.default_rng(0).normal(size=200_000), 0).astype(np.float32)
    values[0] = 12.0
    low, high = entropy_range(_histogram(values))
    assert low == 0
    assert np.quantile(values, 0.999) < high < 8
    # Without an outlier, hardly anything may be clipped: that is what ruins classes.
    low, high = entropy_range(_histogram(values[1:]))
    assert (values[1:] > high).mean() < 0.002


def test_many_zeros_do_not_decide_the_entropy():
    values = np.abs(np.random.default_rng(0).normal(size=50_000)).astype(np.float32)
    sparse = np.concatenate([values, np.zeros(1_000_000, np.float32)])
    assert entropy_range(_histogram(sparse))[1] == pytest.approx(
        entropy_range(_histogram(values))[1], rel=0.15
    )


def test_histograms_hold_all_values_whatever_the_batches(graph, monkeypatch):
    images = images_of(70)
    whole = observe(graph, images)
    monkeypatch.setattr(calibration, "_MAX_BATCH", 3)
    parts = observe(graph, images)
    assert set(whole) == {"image", *(name for node in graph.nodes for name in node.output)}
    for name, histogram in whole.items():
        values = _values(graph, name, images)
        assert histogram.counts.sum() == values.size
        # Kernels may differ in a last bit, which moves values across an edge.
        assert np.abs(histogram.counts - parts[name].counts).sum() <= 0.001 * values.size
        ends = (min(0, values.min()), max(0, values.max()))
        assert (histogram.low, histogram.high) == pytest.approx(ends, rel=1e-5)
        assert histogram.counts @ histogram.centers == pytest.approx(values.astype(float).sum(), rel=1e-6)


def test_batches_shrink_until_their_values_fit(graph, monkeypatch):
    images = images_of(8)
    [one] = run_on(graph, ["stem.relu"], images[:1])
    monkeypatch.setattr(calibration, "_MAX_BYTES", 3 * one["stem.relu"].nbytes)
    assert [len(values["stem.relu"]) for values in run_on(graph, ["stem.relu"], images)] == [3, 3, 2]


def test_minmax_is_numpys(graph):
    images = images_of(40)
    ranges = find_ranges(graph, images, StaticInt8())
    for name in ("image", "one.out", "sum.relu"):
        values = _values(graph, name, images)
        assert ranges[name] == pytest.approx((min(0, values.min()), max(0, values.max())), rel=1e-5)


def test_constant_activations_have_a_range(tmp_path):
    graph = read_graph(residual_net(tmp_path / "m.onnx"))
    graph.set_constant("scale", np.zeros(1, np.float32))
    for name in ("minmax", "entropy", "percentile", "mse"):
        assert find_ranges(graph, images_of(40), StaticInt8(calibration=name))["x"] == (0, 0)


def test_too_few_images_are_refused(graph):
    with pytest.raises(ParamsError, match="at least 32"):
        find_ranges(graph, images_of(31), StaticInt8())
