# SPDX-License-Identifier: Apache-2.0
"""The bundled data: 1,797 scanned handwritten digits of 8x8 pixels, as scikit-learn ships them.

Optical Recognition of Handwritten Digits (Alpaydin and Kaynak 1998), UCI Machine Learning Repository,
doi.org/10.24432/C50P49, CC BY 4.0.
"""

from __future__ import annotations

import numpy as np

from pipeline.data.source import SourceExamples


def digits() -> SourceExamples:
    """Return all digits; pixels count the dark dots of a 4x4 cell, from 0 to 16."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = bunch.images.astype(np.uint8)[:, None]
    return SourceExamples(
        ids=[f"digit-{index:04d}" for index in range(len(images))],
        pixels=images,
        pixel_max=16,
        labels=[str(label) for label in bunch.target],
        source="UCI Optical Recognition of Handwritten Digits, doi:10.24432/C50P49",
        license="CC-BY-4.0",
        consent="not-required",
    )
