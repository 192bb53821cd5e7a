# SPDX-License-Identifier: Apache-2.0
"""The pool of attacks by name: a pool that lacks one flatters, so whoever judges knows them all."""

from __future__ import annotations

__all__ = ["ATTACKS"]

ATTACKS = (
    "clean",
    "noise",
    "pgd-on-baseline",
    "pgd-on-candidate",
    "square-on-baseline",
    "square-on-candidate",
)
