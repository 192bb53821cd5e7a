# SPDX-License-Identifier: Apache-2.0
"""Argument checks shared by the statistics; every refusal says what was expected and what came."""

from __future__ import annotations

from numbers import Integral

# The Berger-Boos share is part of every p-value, so a large one can only be a mistake.
MAX_GAMMA = 0.01


def _count(name: str, value: object, least: int) -> int:
    """Return `value` as a Python int, because numpy's unsigned counts wrap when subtracted."""
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < least:
        raise ValueError(f"expected {name} as an integer >= {least}, got {value!r}")
    return int(value)


def checked_size(n: int) -> int:
    """Return `n`, refusing anything but an integer >= 1."""
    return _count("n", n, 1)


def checked_counts(losses: int, gains: int, n: int) -> tuple[int, int, int]:
    """Return the counts, refusing any that are not integers >= 0 or exceed `n` together."""
    size, lost, gained = checked_size(n), _count("losses", losses, 0), _count("gains", gains, 0)
    if lost + gained > size:
        raise ValueError(f"expected losses + gains <= n, got {lost} + {gained} > {size}")
    return lost, gained, size


def checked_successes(successes: int, n: int) -> tuple[int, int]:
    """Return the counts, refusing successes outside 0..n."""
    size, hits = checked_size(n), _count("successes", successes, 0)
    if hits > size:
        raise ValueError(f"expected successes <= n, got {hits} > {size}")
    return hits, size


def check_real(name: str, value: float, interval: str, *, inside: bool) -> None:
    """Refuse `value` unless `inside` holds; comparisons put NaN outside of every interval."""
    if not inside:
        raise ValueError(f"expected {name} in {interval}, got {value!r}")


def check_margin(margin: float) -> None:
    """Refuse a margin outside (0, 1)."""
    check_real("margin", margin, "(0, 1)", inside=0.0 < margin < 1.0)


def check_alpha(alpha: float) -> None:
    """Refuse an error probability outside (0, 0.5]."""
    check_real("alpha", alpha, "(0, 0.5]", inside=0.0 < alpha <= 0.5)


def check_gamma(gamma: float) -> None:
    """Refuse a Berger-Boos share outside [0, 0.01]."""
    check_real("gamma", gamma, f"[0, {MAX_GAMMA}]", inside=0.0 <= gamma <= MAX_GAMMA)


def share_of(alpha: float, gamma: float | None) -> float:
    """Return `gamma`, or a hundredth of `alpha` if it is None; refuse one that leaves no error."""
    if gamma is None:
        return alpha / 100
    check_gamma(gamma)
    check_real("gamma", gamma, f"[0, alpha = {alpha})", inside=gamma < alpha)
    return gamma
