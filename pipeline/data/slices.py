# SPDX-License-Identifier: Apache-2.0
"""Slice columns computed from the pixels, so that slices are real properties of real images.

With ink `p(y, x)` in [0, 1] (the mean over channels), mass `m = sum p`, centroid `(cy, cx)` and central
moments `u_ab = sum p (x - cx)^a (y - cy)^b / m` (Hu 1962, IRE Trans. Inf. Theory 8:179):

    stroke_weight   m / (H W)             share of the image that is ink
    slant           u_11 / u_02           horizontal shear per row, the slope used to deskew digits
    size            sqrt(u_20 + u_02)     root-mean-square distance of the ink from its centroid, pixels

Each is cut into terciles whose edges are taken from examples that are not in the test split.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["FORMULAS", "LEVELS", "measure_slices", "tercile_edges", "tercile_levels"]

Doubles = npt.NDArray[np.float64]

LEVELS = {
    "stroke_weight": ("light", "medium", "bold"),
    "slant": ("backward", "upright", "forward"),
    "size": ("small", "medium", "large"),
}
"""Names of the terciles, lowest first."""

FORMULAS = {
    "stroke_weight": "share of the image that is ink, m / (H W)",
    "slant": "horizontal shear of the ink per row, u_11 / u_02, negated so that leaning right is positive",
    "size": "root-mean-square distance of the ink from its centroid, sqrt(u_20 + u_02), in pixels",
}
"""What each slice column measures, in words."""


def measure_slices(pixels: npt.NDArray[np.uint8], pixel_max: int) -> dict[str, Doubles]:
    """Measure every slice property of every image.

    Args:
        pixels: `(N, C, H, W)` from 0 to `pixel_max`.
        pixel_max: The value of a saturated pixel.

    Returns:
        Name to `(N,)` float64; an image without ink measures 0 throughout.
    """
    ink = pixels.mean(axis=1, dtype=np.float64) / pixel_max
    _, height, width = ink.shape
    ys, xs = np.arange(height, dtype=np.float64), np.arange(width, dtype=np.float64)
    mass = ink.sum(axis=(1, 2))
    safe = np.where(mass > 0, mass, 1.0)
    cy = (ink.sum(axis=2) @ ys) / safe
    cx = (ink.sum(axis=1) @ xs) / safe
    dy = ys[None, :] - cy[:, None]
    dx = xs[None, :] - cx[:, None]
    u20 = (ink.sum(axis=1) * dx**2).sum(axis=1) / safe
    u02 = (ink.sum(axis=2) * dy**2).sum(axis=1) / safe
    u11 = np.einsum("nyx,ny,nx->n", ink, dy, dx) / safe
    return {
        "stroke_weight": mass / (height * width),
        # Rows count downwards, so ink that leans right has a negative u_11.
        "slant": -u11 / np.where(u02 > 0, u02, 1.0),
        "size": np.sqrt(u20 + u02),
    }


def tercile_edges(values: Doubles) -> tuple[float, float]:
    """Return the two values that cut `(N,)` values into three equal parts."""
    low, high = np.quantile(values, [1 / 3, 2 / 3])
    return float(low), float(high)


def tercile_levels(values: Doubles, edges: tuple[float, float], names: tuple[str, str, str]) -> list[str]:
    """Return the tercile of each of `(N,)` values; a value on an edge belongs to the lower part."""
    return [names[int(index)] for index in np.searchsorted(np.asarray(edges), values, side="left")]
