# SPDX-License-Identifier: Apache-2.0
"""The worst chance of a false PASS of rules on two groups, enumerated: no simulation, no sampling error.

    python benchmarks/gate_gaps.py

Every table that two groups of these sizes can show is judged, and weighted by its probability for a candidate
exactly at the limit; of many such candidates the worst is printed. Beside the level that the gate draws its
bounds at (`small_groups_level`, and the fewest units and successes) stands the level alpha itself.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln, xlogy
from scipy.stats import binom

from checks.statistics.paired import tango_bounds_many
from checks.statistics.pairs import FEWEST_SUCCESSES, FEWEST_UNITS, small_groups_level
from checks.statistics.proportions import difference_upper, ratio_slack

Floats = npt.NDArray[np.float64]
Booleans = npt.NDArray[np.bool_]

ALPHA = 0.05
SIZES = ((20, 20), (20, 100), (20, 500), (50, 50), (50, 500), (99, 500), (100, 100), (100, 1000))
SIZES += ((199, 1000), (200, 200), (200, 1000), (500, 500))
CHANGE_SIZES = ((20, 100), (20, 300), (50, 300), (99, 300), (100, 300), (200, 300))
_NEGLIGIBLE = 1e-9


def _both_ways(sizes: tuple[int, int]) -> Iterator[tuple[int, int]]:
    yield sizes
    if sizes[0] != sizes[1]:
        yield sizes[::-1]


def _worst_of_rates(passes: Booleans, first: Floats, second: Floats) -> float:
    """Return the largest chance that a table passes, of pairs of rates `(P,)`."""
    n_first, n_second = (size - 1 for size in passes.shape)
    weight = binom.pmf(np.arange(n_first + 1), n_first, first[:, np.newaxis])
    other = binom.pmf(np.arange(n_second + 1), n_second, second[:, np.newaxis])
    return float(np.einsum("pi,ij,pj->p", weight, passes.astype(np.float64), other, optimize=True).max())


def ratio_size(sizes: tuple[int, int], level: float, fewest: int, ratio: float = 0.8) -> float:
    """Return the worst false PASS of "no rate is below `ratio` times another"."""
    rates = np.concatenate([np.linspace(0.002, 0.1, 50), np.linspace(0.11, 0.998, 90)])
    worst = 0.0
    for n_g, n_h in _both_ways(sizes):
        g, h = (grid.ravel() for grid in np.meshgrid(np.arange(n_g + 1), np.arange(n_h + 1), indexing="ij"))
        slack = ratio_slack(g, np.full(g.size, n_g), h, np.full(g.size, n_h), ratio, level)
        passes = (slack > 0) & (g >= fewest) & (h >= fewest)
        worst = max(worst, _worst_of_rates(passes.reshape(n_g + 1, n_h + 1), ratio * rates, rates))
    return worst


def difference_size(sizes: tuple[int, int], level: float) -> float:
    """Return the worst false PASS of "no two rates differ by 0.05", and by 0.1, 0.2."""
    worst = 0.0
    for n_g, n_h in _both_ways(sizes):
        g, h = (grid.ravel() for grid in np.meshgrid(np.arange(n_g + 1), np.arange(n_h + 1), indexing="ij"))
        upper = difference_upper(g, np.full(g.size, n_g), h, np.full(g.size, n_h), level)
        for limit in (0.05, 0.1, 0.2):
            rates = np.concatenate([np.linspace(0, 0.1, 50), np.linspace(0.11, 1, 90)])
            rates = rates[rates + limit <= 1]
            passes = (upper < limit).reshape(n_g + 1, n_h + 1)
            worst = max(worst, _worst_of_rates(passes, rates + limit, rates))
    return worst


def _changes(n: int, loss: float, gain: float, level: float) -> tuple[Floats, Floats, Floats, Floats]:
    """Return weight, change and both its limits, of every table of losses and gains that can matter."""
    losses, gains = (grid.ravel() for grid in np.meshgrid(np.arange(n + 1), np.arange(n + 1), indexing="ij"))
    kept = losses + gains <= n
    losses, gains = losses[kept], gains[kept]
    rest = n - losses - gains
    log = gammaln(n + 1) - gammaln(losses + 1) - gammaln(gains + 1) - gammaln(rest + 1)
    weight = np.exp(log + xlogy(losses, loss) + xlogy(gains, gain) + xlogy(rest, 1 - loss - gain))
    likely = weight > _NEGLIGIBLE
    losses, gains = losses[likely], gains[likely]
    low, high = tango_bounds_many(losses, gains, np.full_like(losses, n), level)
    return weight[likely], (gains - losses) / n, low, high


def change_gap_size(sizes: tuple[int, int], level: float) -> float:
    """Return the worst false PASS of "compression parts no two groups by tau", of many tau."""
    worst = 0.0
    for n_g, n_h in _both_ways(sizes):
        for tau in (0.02, 0.05, 0.08, 0.1, 0.15, 0.2, 0.3):
            for gain, spared in ((0.0, 0.0), (0.005, 0.0), (0.02, 0.005)):
                loss = tau + gain
                g = _changes(n_g, loss, gain, level)
                h = _changes(n_h, spared, spared, level)
                one = h[1] - g[1][:, None] + np.hypot(h[3] - h[1], (g[1] - g[2])[:, None])
                other = g[1][:, None] - h[1] + np.hypot((g[3] - g[1])[:, None], h[1] - h[2])
                passes = (one < tau) & (other < tau)
                worst = max(worst, float(g[0] @ passes @ h[0]))
    return worst


def main() -> int:
    """Print one table a statistic."""
    print(f"Two groups, alpha {ALPHA}, at least {FEWEST_UNITS} units in each.\n")
    print("| units | level | difference | difference, at alpha | ratio | ratio, at alpha |")
    print("|---|---|---|---|---|---|")
    for sizes in SIZES:
        level = small_groups_level(sizes, ALPHA)
        figures = (
            difference_size(sizes, level),
            difference_size(sizes, ALPHA),
            ratio_size(sizes, level, FEWEST_SUCCESSES),
            ratio_size(sizes, ALPHA, 0),
        )
        print(
            f"| {sizes[0]}, {sizes[1]} | {level:.3g} | "
            + " | ".join(f"{value:.3f}" for value in figures)
            + " |"
        )
    print("\n| units | level | disparity added | disparity added, at alpha |")
    print("|---|---|---|---|")
    for sizes in CHANGE_SIZES:
        level = small_groups_level(sizes, ALPHA)
        figures = (change_gap_size(sizes, level), change_gap_size(sizes, ALPHA))
        print(
            f"| {sizes[0]}, {sizes[1]} | {level:.3g} | "
            + " | ".join(f"{value:.3f}" for value in figures)
            + " |"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
