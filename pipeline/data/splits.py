# SPDX-License-Identifier: Apache-2.0
"""Seeded, stratified splits of units, so that no subject and no image is on both sides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

__all__ = ["SPLITS", "split_units"]

SPLITS = ("train", "calibration", "validation", "test")


def _counts(total: int, shares: Mapping[str, float]) -> dict[str, int]:
    """Whole numbers that sum to `total`, by largest remainder."""
    exact = {name: total * shares[name] for name in SPLITS}
    counts = {name: int(exact[name]) for name in SPLITS}
    by_remainder = sorted(SPLITS, key=lambda name: (counts[name] - exact[name], SPLITS.index(name)))
    for name in by_remainder[: total - sum(counts.values())]:
        counts[name] += 1
    return counts


def split_units(
    units: Sequence[str], labels: Sequence[str], shares: Mapping[str, float], seed: int
) -> list[str]:
    """Assign each example a split: within each label, units are shuffled and dealt out by share.

    Args:
        units: `(N,)` the unit of each example; all examples of a unit go to one split.
        labels: `(N,)`; a unit is stratified by the label of its first example.
        shares: Share of each of `SPLITS`, together 1.
        seed: Same seed, same splits.

    Returns:
        `(N,)` names of splits.
    """
    label_of: dict[str, str] = {}
    for unit, label in zip(units, labels, strict=True):
        label_of.setdefault(unit, label)
    rng = np.random.default_rng([seed, 0x5B117])
    split_of: dict[str, str] = {}
    for label in sorted(set(label_of.values())):
        members = sorted(unit for unit, of in label_of.items() if of == label)
        order = rng.permutation(len(members))
        counts = _counts(len(members), shares)
        names = [name for name in SPLITS for _ in range(counts[name])]
        split_of.update({members[index]: name for index, name in zip(order, names, strict=True)})
    return [split_of[unit] for unit in units]
