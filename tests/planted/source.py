# SPDX-License-Identifier: Apache-2.0
"""Sources of the planted-defect suite: the bundled digits with capture conditions, and frames of them.

Copied into each project folder and loaded by path, as a user's source is.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.data.source import SourceExamples

CLOSED = ("3", "8", "9")
"""Digits whose strokes enclose, or nearly enclose, the same upper loop; they are taken for each other."""

_ORIGIN = {
    "source": "UCI Optical Recognition of Handwritten Digits, doi:10.24432/C50P49",
    "license": "CC-BY-4.0",
    "consent": "not-required",
}


def conditions(pixels: np.ndarray, labels: list[str]) -> dict[str, list[str]]:
    """Return the slice columns: `light`, the faintest and the boldest quarter, and `glyph`."""
    ink = pixels.mean(axis=(1, 2, 3))
    # Fixed numbers, the quartiles of all digits: edges must not move with the examples at hand.
    light = np.array(["dim", "normal", "bright"])[np.searchsorted([4.453125, 5.28125], ink, side="right")]
    return {"light": light.tolist(), "glyph": ["closed" if label in CLOSED else "open" for label in labels]}


def digits() -> SourceExamples:
    """Return all digits, each a unit of its own."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels = bunch.images.astype(np.uint8)[:, None]
    labels = [str(label) for label in bunch.target]
    return SourceExamples(
        ids=[f"digit-{index:04d}" for index in range(len(pixels))],
        pixels=pixels,
        pixel_max=16,
        labels=labels,
        columns=conditions(pixels, labels),
        **_ORIGIN,
    )


def frames() -> SourceExamples:
    """Return what lies in `frames.npz` beside this file: frames, each of a subject."""
    with np.load(Path(__file__).with_name("frames.npz"), allow_pickle=False) as arrays:
        pixels, labels = arrays["pixels"], arrays["labels"].tolist()
        return SourceExamples(
            ids=arrays["ids"].tolist(),
            pixels=pixels,
            pixel_max=16,
            labels=labels,
            units=arrays["units"].tolist(),
            splits=arrays["splits"].tolist(),
            columns=conditions(pixels, labels),
            **_ORIGIN,
        )
