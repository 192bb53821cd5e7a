# SPDX-License-Identifier: Apache-2.0
"""Zeros that training keeps: a layer says of itself that its exact zeros are there to stay.

The mark is one attribute of the layer, and which weights are held is read from the weights themselves. So the
mark follows a copy of the network, fits whatever shape later passes cut the layer to, and is neither in the
state of the network nor in what is exported.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

__all__ = ["hold_zeros", "holds_zeros", "mark_zeros"]

_MARK = "zeros_are_held"


def mark_zeros(layer: nn.Module) -> None:
    """Say that the exact zeros of the layer's weight stay zero in training."""
    setattr(layer, _MARK, True)


def holds_zeros(layer: nn.Module) -> bool:
    """Whether the layer is marked."""
    return bool(getattr(layer, _MARK, False))


def hold_zeros(network: nn.Module) -> Callable[[], None]:
    """Return a function that sets to zero again what is zero now in marked layers.

    An optimizer moves zeros by gradient and momentum: call the function after each of its steps.
    """
    held: list[tuple[torch.Tensor, torch.Tensor]] = []
    for layer in network.modules():
        weight = getattr(layer, "weight", None)
        if holds_zeros(layer) and isinstance(weight, torch.Tensor):
            held.append((weight, weight.detach() == 0))

    def restore() -> None:
        with torch.no_grad():
            for weight, zero in held:
                weight.masked_fill_(zero, 0.0)

    return restore
