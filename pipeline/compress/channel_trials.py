# SPDX-License-Identifier: Apache-2.0
"""Trial by removal: a group whose channels cannot go as the graph says stays, and is named."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from pipeline.compress.channel_graph import Group
from pipeline.compress.channel_surgery import removal_of, why_unequal

__all__ = ["failing", "try_groups"]

_Choice = Sequence[tuple[Group, npt.NDArray[np.int64]]]
_Choose = Callable[[Group], npt.NDArray[np.int64]]


def _halves(seed: int) -> tuple[_Choose, _Choose]:
    def first(_: Group) -> npt.NDArray[np.int64]:
        return np.zeros(1, dtype=np.int64)

    def half(group: Group) -> npt.NDArray[np.int64]:
        random = np.random.default_rng([seed, int(group.roots[0])])
        return np.sort(random.permutation(group.size)[: max(1, group.size // 2)])

    return first, half


def failing(module: nn.Module, choice: _Choice, images: torch.Tensor) -> dict[int, str]:
    """Return the places in `choice` that cannot go, each with the reason; empty if all can go together.

    Args:
        module: Not changed.
        choice: Groups and the units that go.
        images: At least 3 examples.
    """
    if why_unequal(module, removal_of(choice), images) is None:
        return {}
    found: dict[int, str] = {}
    for place, entry in enumerate(choice):
        reason = why_unequal(module, removal_of([entry]), images)
        if reason:
            found[place] = reason
    # Each can go alone and not all together: those at which it first breaks stay.
    good: list[tuple[Group, npt.NDArray[np.int64]]] = []
    rest = [place for place in range(len(choice)) if place not in found]
    if found and why_unequal(module, removal_of([choice[place] for place in rest]), images) is None:
        return found
    for place in rest:
        reason = why_unequal(module, removal_of([*good, choice[place]]), images)
        if reason:
            found[place] = reason
        else:
            good.append(choice[place])
    return found


def try_groups(
    probe: nn.Module, groups: Sequence[Group], images: torch.Tensor, seed: int
) -> tuple[list[Group], dict[str, str]]:
    """Remove one unit, and half of the units, of every group from copies of a network.

    Args:
        probe: The network with random weights; not changed.
        groups: What the graph says can go.
        images: At least 3 examples.
        seed: Of the halves.

    Returns:
        The groups that can go, and the layers of the others with the reason.
    """
    left = [group for group in groups if group.size > 1]
    held: dict[str, str] = {}
    for choose in _halves(seed):
        broken = failing(probe, [(group, choose(group)) for group in left], images)
        for place, reason in broken.items():
            held |= dict.fromkeys(left[place].layers, reason)
        left = [group for place, group in enumerate(left) if place not in broken]
    return left, held
