# SPDX-License-Identifier: Apache-2.0
"""Adversarial training: batches are attacked while a network learns (Madry et al. 2018).

https://arxiv.org/abs/1706.06083
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from checks.evidence import Output
from pipeline.compress.configs import Adversarial, Recover
from pipeline.models.training import arithmetic, as_logits

__all__ = ["Descent", "step_size"]


def step_size(config: Adversarial) -> float:
    """Return how far a pixel moves in a step, as a share of the pixel range.

    So that a descent can cross the whole budget, as the attack that judges does it.
    """
    return min(config.epsilon, 2.5 * config.epsilon / config.steps)


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """Put every module into eval mode, and back into its own."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@dataclass(frozen=True)
class Descent:
    """Projected gradient descent on a share of each batch, from a random start within the budget.

    The network is attacked in eval mode: that is how it will be attacked in use, and running statistics
    of BatchNorm are not spoiled by images that are on their way.

    Attributes:
        config: Budget and effort.
        recover: Of which the arithmetic is used.
        output: What the network answers.
        pixel_max: The value of a saturated pixel.
    """

    config: Adversarial
    recover: Recover
    output: Output
    pixel_max: int

    def __call__(
        self, network: nn.Module, images: torch.Tensor, labels: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        """Return `images` `(B, C, H, W)` with the first `share` of them attacked, within budget and range."""
        count = max(1, round(self.config.share * len(images)))
        with _evaluating(network):
            attacked = self._attack(network, images[:count], labels[:count], generator)
        if count == len(images):
            return attacked
        return torch.cat([attacked, images[count:]])

    def _attack(
        self, network: nn.Module, images: torch.Tensor, labels: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        reach, step = (value * self.pixel_max for value in (self.config.epsilon, step_size(self.config)))
        low, high = (images - reach).clamp_min(0), (images + reach).clamp_max(self.pixel_max)
        start = (2 * torch.rand(images.shape, generator=generator) - 1) * reach
        # The iterate itself is projected: a clamp inside the loss would have no gradient at saturated pixels.
        attacked = torch.clamp(images + start, low, high)
        for _ in range(self.config.steps):
            attacked = attacked.detach().requires_grad_(True)
            with arithmetic(self.recover):
                logits = as_logits(network(attacked), self.output)
            loss = functional.cross_entropy(logits, labels, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, attacked)
            attacked = torch.clamp(attacked.detach() + step * gradient.sign(), low, high)
        return attacked
