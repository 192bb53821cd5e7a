# SPDX-License-Identifier: Apache-2.0
"""Argument checks for arrays of counts, in the words of `_validate`."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]


def counts_array(name: str, values: ArrayLike, least: int) -> IntArray:
    """Return `values` as int64, refusing anything but integers >= `least`."""
    given = np.asarray(values)
    # numpy's unsigned integers wrap when subtracted, and floats may be rates by mistake.
    if given.dtype.kind not in "iu":
        raise ValueError(f"expected {name} as integers, got an array of {given.dtype}")
    wrong = given[(given < least) | (given > np.iinfo(np.int64).max)]
    if wrong.size:
        raise ValueError(f"expected {name} as integers >= {least}, got {int(wrong[0])}")
    return given.astype(np.int64)


def broadcast(**arrays: IntArray) -> tuple[IntArray, ...]:
    """Return the arrays in their common shape, refusing shapes that have none."""
    try:
        return tuple(np.broadcast_arrays(*arrays.values()))
    except ValueError:
        shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise ValueError(f"expected shapes that broadcast, got {shapes}") from None


def success_arrays(
    successes: ArrayLike, n: ArrayLike, names: tuple[str, str] = ("successes", "n")
) -> tuple[IntArray, IntArray]:
    """Return the counts in one shape, refusing n < 1 and successes outside 0..n."""
    first, second = names
    hits, sizes = broadcast(**{first: counts_array(first, successes, 0), second: counts_array(second, n, 1)})
    if bool((hits > sizes).any()):
        at = int(np.argmax(hits > sizes))
        raise ValueError(f"expected {first} <= {second}, got {hits.flat[at]} > {sizes.flat[at]}")
    return hits, sizes


def paired_arrays(losses: ArrayLike, gains: ArrayLike, n: ArrayLike) -> tuple[IntArray, IntArray, IntArray]:
    """Return the counts in one shape, refusing any below 0, n < 1 and losses + gains > n."""
    lost, gained, sizes = broadcast(
        losses=counts_array("losses", losses, 0),
        gains=counts_array("gains", gains, 0),
        n=counts_array("n", n, 1),
    )
    wrong = lost + gained > sizes
    if bool(wrong.any()):
        at = int(np.argmax(wrong))
        raise ValueError(
            f"expected losses + gains <= n, got {lost.flat[at]} + {gained.flat[at]} > {sizes.flat[at]}"
        )
    return lost, gained, sizes
