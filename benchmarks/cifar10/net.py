# SPDX-License-Identifier: Apache-2.0
"""ResNet-20 for CIFAR-10 (He et al. 2016, arXiv:1512.03385).

The parameter-free shortcut (every second pixel, channels padded with zeros) is written as a fixed 1x1
convolution, which computes the same and can be traced by pruning.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class Shortcut(nn.Conv2d):
    """A 1x1 convolution of stride 2 that copies channel `i` to channel `i + inputs / 2`."""

    def __init__(self, inputs: int) -> None:
        super().__init__(inputs, 2 * inputs, 1, stride=2, bias=False)
        weight = torch.zeros_like(self.weight)
        for channel in range(inputs):
            weight[channel + inputs // 2, channel] = 1
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.register_load_state_dict_pre_hook(self._keep_own_weight)

    @staticmethod
    def _keep_own_weight(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
        state.setdefault(f"{prefix}weight", module.weight)


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        stride = outputs // inputs
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = Shortcut(inputs) if stride == 2 else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map `(N, inputs, H, W)` to `(N, outputs, H / stride, W / stride)`."""
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class ResNet20(nn.Module):
    """Maps standardised `(N, 3, 32, 32)` images to `(N, 10)` scores."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(Block(16, 16), Block(16, 16), Block(16, 16))
        self.layer2 = nn.Sequential(Block(16, 32), Block(32, 32), Block(32, 32))
        self.layer3 = nn.Sequential(Block(32, 64), Block(64, 64), Block(64, 64))
        self.linear = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return scores."""
        x = torch.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        scores: torch.Tensor = self.linear(x.mean(dim=(2, 3)))
        return scores


def resnet20() -> nn.Module:
    """Return the network."""
    return ResNet20()
