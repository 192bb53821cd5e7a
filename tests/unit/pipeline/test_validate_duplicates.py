# SPDX-License-Identifier: Apache-2.0
"""Exact duplicates of images: which rows are grouped, and by what."""

from __future__ import annotations

import hashlib
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.contents import Contents
from pipeline.data.duplicates import find_duplicates, judge_duplicates, pixel_digest
from pipeline.data.findings import DataFinding


def images(*values: int) -> npt.NDArray[np.uint8]:
    """Return one constant image a value."""
    return np.stack([np.full((1, 2, 3), value, dtype=np.uint8) for value in values])


def test_groups_across_splits_are_apart_from_groups_within_one() -> None:
    found = find_duplicates(images(1, 2, 1, 3, 2, 2), ["train", "train", "test", "test", "train", "train"])

    assert found.across == ((0, 2),)
    assert found.within == ((1, 4, 5),)


def test_different_images_are_no_duplicates() -> None:
    assert find_duplicates(images(1, 2, 3), ["train", "test", "train"]).across == ()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["train", "test", "validation"])), max_size=12))
def test_groups_are_those_of_comparing_every_pair(rows: list[tuple[int, str]]) -> None:
    pixels = images(*(value for value, _ in rows)) if rows else np.zeros((0, 1, 2, 3), dtype=np.uint8)
    found = find_duplicates(pixels, [split for _, split in rows])

    pairs = {(a, b) for a, b in combinations(range(len(rows)), 2) if np.array_equal(pixels[a], pixels[b])}
    grouped = {pair for group in (*found.across, *found.within) for pair in combinations(group, 2)}
    assert grouped == pairs
    assert all(len({rows[row][1] for row in group}) > 1 for group in found.across)
    assert all(len({rows[row][1] for row in group}) == 1 for group in found.within)


def test_digest_is_sha256_of_type_shape_and_pixels() -> None:
    image = np.arange(6, dtype=np.uint8).reshape(1, 2, 3)

    assert pixel_digest(image) == hashlib.sha256(b"|u1 (1, 2, 3) " + bytes(range(6))).digest()
    assert pixel_digest(image) != pixel_digest(image.reshape(1, 3, 2))
    assert pixel_digest(image) != pixel_digest(image.view(np.int8))


def test_digest_looks_at_pixels_and_not_at_memory() -> None:
    image = np.arange(24, dtype=np.uint8).reshape(1, 4, 6)

    assert pixel_digest(image[:, ::2, ::-1]) == pixel_digest(image[:, ::2, ::-1].copy())


def test_a_split_for_each_image_is_needed() -> None:
    with pytest.raises(ValueError, match="expected a split for each of 2 images, got 1"):
        find_duplicates(images(1, 2), ["train"])


def judge(pixels: Any, ids: list[str], **columns: list[Any]) -> DataFinding:
    """Judge images whose manifest has these columns."""
    import pandas as pd

    manifest = pd.DataFrame(columns, dtype=object)
    return judge_duplicates(Contents(None, manifest, {}, tuple(ids), pixels, {}, None, ()))


def test_images_find_their_rows_by_id() -> None:
    splits = {"c": "train", "a": "test", "b": "train"}
    leaking = judge(images(5, 5, 6), ["a", "c", "b"], id=list(splits), split=list(splits.values()))
    clean = judge(images(6, 5, 5), ["a", "c", "b"], id=list(splits), split=list(splits.values()))

    assert not leaking.passed
    assert leaking.rows == ("a", "c")
    assert "'a' (test) = 'c' (train)" in leaking.came
    assert clean.passed
    assert "1 image more than once within a split (2 rows)" in clean.came


@pytest.mark.parametrize(
    ("ids", "columns"),
    [
        (["a", "b"], {"id": ["a", "x"], "split": ["train", "test"]}),
        (["a", "b"], {"id": ["a", "a"], "split": ["train", "test"]}),
        (["a", "a"], {"id": ["a", "b"], "split": ["train", "test"]}),
        (["a", "b"], {"id": ["a"], "split": ["train"]}),
        (["a", "b"], {"id": ["a", "b"]}),
        (["a"], {"id": ["a"], "split": ["train"]}),
        ([], {"id": [], "split": []}),
    ],
)
def test_what_does_not_pair_up_is_no_pass(ids: list[str], columns: dict[str, list[str]]) -> None:
    finding = judge(images(1, 2), ids, **columns)

    assert not finding.passed
    assert not finding.judged


def test_an_id_with_two_images_is_no_pass() -> None:
    finding = judge(images(1, 2, 3), ["a", "b", "a"], id=["a", "b"], split=["train", "test"])

    assert not finding.passed
    assert not finding.judged


def test_no_images_are_no_pass() -> None:
    finding = judge(np.zeros((0, 1, 2, 3), dtype=np.uint8), [], id=[], split=[])

    assert not finding.passed


def test_many_groups_are_counted_and_few_are_named() -> None:
    ids = [f"i{row:02d}" for row in range(40)]
    finding = judge(images(*(row // 2 for row in range(40))), ids, id=ids, split=["train", "test"] * 20)

    assert finding.row_count == 40
    assert finding.rows == tuple(ids[:20])
    assert "20 images in more than one" in finding.came
    assert "and 17 more" in finding.came
