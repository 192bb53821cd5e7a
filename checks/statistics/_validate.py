# SPDX-License-Identifier: Apache-2.0
"""Argument checks shared by the statistics; every refusal says what was expected and what came."""

from __future__ import annotations

from numbers import Integral, Real

# The Berger-Boos share is part of every p-value, so a large one can only be a mistake.
MAX_GAMMA = 0.01


def _is_count(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and value >= 0


def check_size(n: int) -> None:
    """Refuse anything but an integer `n` >= 1."""
    if not _is_count(n) or n < 1:
        raise ValueError(f"expected an integer n >= 1, got {n!r}")


def check_counts(losses: int, gains: int, n: int) -> None:
    """Refuse counts that are not integers >= 0 or that exceed `n` together."""
    check_size(n)
    for name, value in (("losses", losses), ("gains", gains)):
        if not _is_count(value):
            raise ValueError(f"expected {name} as an integer >= 0, got {value!r}")
    if losses + gains > n:
        raise ValueError(f"expected losses + gains <= n, got {losses} + {gains} > {n}")


def check_successes(successes: int, n: int) -> None:
    """Refuse `successes` outside 0..n."""
    check_size(n)
    if not _is_count(successes) or successes > n:
        raise ValueError(f"expected successes as an integer from 0 to n = {n}, got {successes!r}")


def check_real(name: str, value: float, interval: str, inside: bool) -> None:
    """Refuse `value` unless it is a real number and `inside` holds; NaN is never inside."""
    if not isinstance(value, Real) or isinstance(value, bool) or not inside:
        raise ValueError(f"expected {name} in {interval}, got {value!r}")


def check_margin(margin: float) -> None:
    """Refuse a margin outside (0, 1)."""
    check_real("margin", margin, "(0, 1)", 0.0 < margin < 1.0)


def check_alpha(alpha: float) -> None:
    """Refuse an error probability outside (0, 0.5]."""
    check_real("alpha", alpha, "(0, 0.5]", 0.0 < alpha <= 0.5)


def check_gamma(gamma: float) -> None:
    """Refuse a Berger-Boos share outside [0, 0.01]."""
    check_real("gamma", gamma, f"[0, {MAX_GAMMA}]", 0.0 <= gamma <= MAX_GAMMA)
