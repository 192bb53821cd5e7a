# SPDX-License-Identifier: Apache-2.0
"""The bundled network: three convolutions, one linear layer, 56 thousand weights at width 32."""

from __future__ import annotations

from torch import nn


def _block(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]


def digits_net(width: int = 32) -> nn.Module:
    """Return an untrained network for `(N, 1, 8, 8)` images and ten classes."""
    return nn.Sequential(
        *_block(1, width),
        *_block(width, 2 * width),
        nn.MaxPool2d(2),
        *_block(2 * width, 2 * width),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(2 * width, 10),
    )
