# SPDX-License-Identifier: Apache-2.0
"""What a pass is given, and what it returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from pipeline.compress.configs import Targeted
from pipeline.data.dataset import Dataset
from pipeline.models.cost import Cost
from pipeline.params import Model

__all__ = ["Applied", "Context", "Function"]

_MAX_EXAMPLES = 2048
"""Enough to rank channels by gradient; more would cost an epoch and rank the same."""


@dataclass(frozen=True, eq=False)
class Context:
    """What every pass may use; nothing in it is the test split.

    Attributes:
        dataset: Of which passes use `train`, and records `validation`.
        teacher: The baseline behind its preprocessing, in eval mode; maps raw images to scores.
        baseline: What the baseline's ONNX file costs; targets count against it.
        model: Section `model` of `params.yaml`.
        root: Folder of `params.yaml`.
        seed: Of whatever a pass draws.
    """

    dataset: Dataset
    teacher: nn.Module
    baseline: Cost
    model: Model
    root: Path
    seed: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """`(C, H, W)` of an image."""
        _, channels, height, width = self.dataset.pixels.shape
        return channels, height, width

    def examples(self, most: int = _MAX_EXAMPLES) -> tuple[torch.Tensor, torch.Tensor]:
        """Return up to `most` raw training images `(N, C, H, W)` with labels `(N,)`; always the same ones."""
        split = self.dataset.split("train")
        order = np.random.default_rng([self.seed, 0x9A0E]).permutation(len(split.labels))
        chosen = np.sort(order[:most])
        return torch.from_numpy(split.images[chosen]), torch.from_numpy(split.labels[chosen])

    def allowed(self, config: Targeted) -> tuple[str, float]:
        """Return what a target counts (`macs`, `parameters`, `bytes`, `latency`), and the most allowed.

        Latency is a share of the baseline's own.
        """
        name, reduction = config.target
        return name, (1.0 if name == "latency" else float(getattr(self.baseline, name))) / reduction


@dataclass(frozen=True)
class Applied:
    """What a pass returns.

    Attributes:
        module: The new network; the one that came in is unchanged.
        figures: What to record of it, JSON values.
        timings: What no second run measures alike, kept apart from the record.
    """

    module: nn.Module
    figures: Mapping[str, Any] = field(default_factory=dict)
    timings: Mapping[str, float] = field(default_factory=dict)


class Function(Protocol):
    """A pass: never changes the module it is given.

    Raises:
        CompressionError: if the target cannot be met, or the network cannot be changed safely.
    """

    def __call__(self, module: nn.Module, config: Any, context: Context, /) -> Applied:
        """Apply the pass."""
        ...
