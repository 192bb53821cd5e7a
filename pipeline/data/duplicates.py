# SPDX-License-Identifier: Apache-2.0
"""Identical images on both sides of a split: what was learnt must not be what is tested.

Two images are identical if the SHA-256 of their decoded pixels, preceded by their shape, is the same.
Plain numpy: Great Expectations looks at tables, and an image is no column of the manifest.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.data.contents import EXAMPLES, MANIFEST, Contents
from pipeline.data.findings import DataFinding, count_of, escape_unprintable, first_rows, quote

__all__ = ["Duplicates", "find_duplicates", "judge_duplicates", "pixel_digest"]

MAX_GROUPS_NAMED = 3


@dataclass(frozen=True)
class Duplicates:
    """Rows whose images are identical.

    Attributes:
        across: Groups of rows that hold one image in more than one split, in order of the first row.
        within: Groups of rows that hold one image, all in one split.
    """

    across: tuple[tuple[int, ...], ...]
    within: tuple[tuple[int, ...], ...]


def pixel_digest(image: npt.NDArray[Any]) -> bytes:
    """Return the SHA-256 (32 bytes) of an image's shape, type and pixels, whatever its memory layout."""
    digest = hashlib.sha256(f"{image.dtype.str} {image.shape} ".encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.digest()


def find_duplicates(pixels: npt.NDArray[Any], splits: Sequence[str | None]) -> Duplicates:
    """Group the rows whose images are identical.

    Args:
        pixels: `(N, C, H, W)`.
        splits: `(N,)` names of splits.

    Raises:
        ValueError: if the lengths differ.
    """
    if len(pixels) != len(splits):
        raise ValueError(f"expected a split for each of {len(pixels)} images, got {len(splits)}")
    rows_of: dict[bytes, list[int]] = defaultdict(list)
    for row, image in enumerate(pixels):
        rows_of[pixel_digest(image)].append(row)
    groups = [tuple(rows) for rows in rows_of.values() if len(rows) > 1]
    return Duplicates(
        across=tuple(rows for rows in groups if len({splits[row] for row in rows}) > 1),
        within=tuple(rows for rows in groups if len({splits[row] for row in rows}) == 1),
    )


def _note(within: Sequence[tuple[int, ...]], labels: Sequence[str | None] | None) -> str:
    """Repetitions inside one split bias nothing that is judged, so that they are told and do not block."""
    if not within:
        return "no image twice within a split"
    text = f"{count_of(len(within), 'image')} more than once within a split ({sum(map(len, within))} rows)"
    if labels is not None:
        differing = sum(len({labels[row] for row in rows}) > 1 for rows in within)
        text += f", {differing} of them under different labels" if differing else ""
    return text


def _row_of_image(ids: Sequence[str], named: Sequence[str | None]) -> list[int] | None:
    """Row of the manifest that belongs to each image; None if images and rows do not pair up."""
    if list(ids) == list(named):
        return list(range(len(ids)))
    row_of = {name: row for row, name in enumerate(named)}
    if not len(ids) == len(named) == len(row_of) or set(ids) != set(row_of):
        return None
    return [row_of[name] for name in ids]


def judge_duplicates(contents: Contents) -> DataFinding:
    """Judge whether any image lies in more than one split.

    Args:
        contents: The files, as far as they could be read; ids in `examples.npz` name the images.
    """
    check, expected = "images-in-one-split", "no image in more than one split"
    ids, pixels, manifest = contents.ids, contents.pixels, contents.manifest
    if ids is None or pixels is None or pixels.ndim < 1 or len(pixels) != len(ids) or len(ids) == 0:
        return DataFinding.not_judged(check, EXAMPLES, expected, f"{EXAMPLES} has no image for each id")
    if manifest is None or contents.missing("id", "split"):
        return DataFinding.not_judged(check, EXAMPLES, expected, f"{MANIFEST} has no readable ids and splits")
    order = _row_of_image(ids, manifest["id"].tolist())
    if order is None:
        return DataFinding.not_judged(
            check, EXAMPLES, expected, f"images and rows of {MANIFEST} do not pair up"
        )
    splits = manifest["split"].iloc[order].tolist()
    labels = None if contents.missing("label") else manifest["label"].iloc[order].tolist()
    found = find_duplicates(pixels, splits)
    note = _note(found.within, labels)
    if not found.across:
        came = f"{count_of(len(ids), 'image')}, each in one split; {note}"
        return DataFinding(check, True, EXAMPLES, expected, came)
    groups = [
        " = ".join(f"{quote(ids[row])} ({escape_unprintable(str(splits[row]))})" for row in rows[:4])
        for rows in found.across
    ]
    rows = [ids[row] for group in found.across for row in group]
    more = f" and {len(groups) - MAX_GROUPS_NAMED} more" if len(groups) > MAX_GROUPS_NAMED else ""
    named = "; ".join(groups[:MAX_GROUPS_NAMED]) + more
    came = f"{count_of(len(groups), 'image')} in more than one: {named}; {note}"
    return DataFinding(
        check,
        False,
        EXAMPLES,
        expected,
        came,
        hint="give identical images the same unit, or remove the copies from the source",
        rows=first_rows(rows),
        row_count=len(rows),
    )
