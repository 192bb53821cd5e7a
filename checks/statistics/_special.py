# SPDX-License-Identifier: Apache-2.0
"""The one door to scipy: `scipy.special`, loaded on first use."""

from __future__ import annotations

from typing import Any


def special() -> Any:
    """Return `scipy.special`, which imports several times faster than `scipy.stats`."""
    from scipy import special as module

    return module


def normal_quantile(probability: float) -> float:
    """Return the standard normal quantile of `probability` in (0, 1)."""
    return float(special().ndtri(probability))


def beta_quantile(probability: float, first: float, second: float) -> float:
    """Return the quantile of the Beta(`first`, `second`) distribution, both parameters > 0."""
    return float(special().betaincinv(first, second, probability))
