# SPDX-License-Identifier: Apache-2.0
"""A file is refused for being slow only where every pair of sessions says so, by a time that can matter."""

import numpy as np
import pytest

import pipeline.compress.speed as speed
from checks.errors import CompressionError
from pipeline.compress.speed import Speed, compare_speed, refuse_slower
from tests.onnx_nets import images_of, residual_net


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return residual_net(tmp_path_factory.mktemp("net") / "m.onnx")


def _timed(monkeypatch, *pairs):
    """Sessions whose pairs answer these ratios and differences in turn."""
    answers = iter(pairs)
    monkeypatch.setattr(speed, "_compare_once", lambda files, images: next(answers))


def test_slower_in_every_pair_is_refused(path, monkeypatch):
    _timed(monkeypatch, *[(1.2, 1e-3)] * 14)
    with pytest.raises(CompressionError, match="1.20 times its time at 1 images"):
        refuse_slower(path, path, images_of(2), [1])


def test_one_pair_that_keeps_up_acquits_at_once(path, monkeypatch):
    _timed(monkeypatch, (1.2, 1e-3), (1.04, 1e-4))
    found = compare_speed(path, path, images_of(2), batch_size=1)
    assert found.ratios == (1.2, 1.04)
    assert found.lower == 1.04
    assert not found.is_slower


def test_microseconds_do_not_count(path, monkeypatch):
    _timed(monkeypatch, *[(1.5, 2e-5)] * 7)
    refuse_slower(path, path, images_of(2), [1])


@pytest.mark.parametrize(
    ("ratios", "difference", "slower"),
    [((1.06, 1.2), 1e-3, True), ((1.05, 1.2), 1e-3, False), ((1.06, 1.2), 4e-5, False), ((0.5,), -1, False)],
)
def test_what_is_slower(ratios, difference, slower):
    assert Speed(1, ratios, difference).is_slower is slower


def test_a_file_is_not_slower_than_itself(path):
    refuse_slower(path, path, images_of(3))


def test_few_images_fill_a_batch_and_slow_nets_get_a_smaller_one(path, monkeypatch):
    seen = []
    monkeypatch.setattr(speed, "_compare_once", lambda files, images: seen.append(images) or (0.5, -1.0))
    images = images_of(3)
    assert compare_speed(path, path, images, batch_size=8).batch_size == 8
    np.testing.assert_array_equal(seen[0], images[[0, 1, 2, 0, 1, 2, 0, 1]])
    monkeypatch.setattr(speed, "_MOST_SECONDS", 0.0)
    assert compare_speed(path, path, images, batch_size=8).batch_size == 1
