# SPDX-License-Identifier: Apache-2.0
"""Recovery: training after a pass, from labels and from the answers of the baseline."""

from __future__ import annotations

import copy

from torch import nn

from pipeline.compress.configs import Recover
from pipeline.compress.context import Applied, Context
from pipeline.models.training import Part, Teacher, train_network

__all__ = ["recover"]


def recover(module: nn.Module, config: Recover, context: Context, *, part: Part | None = None) -> Applied:
    """Train a copy of `module` on the training split.

    Args:
        module: Maps raw images to scores; not changed.
        config: Epochs, rates, augmentation, distillation.
        context: Gives training split and teacher.
        part: Which steps of the training to take; all by default.
    """
    trained = copy.deepcopy(module)
    split = context.dataset.split("train")
    teacher = None
    if config.distill:
        teacher = Teacher(context.teacher, config.distill.soft, config.distill.temperature)
    train_network(
        trained,
        split.images,
        split.labels,
        config,
        pixel_max=context.dataset.pixel_max,
        seed=context.seed,
        teacher=teacher,
        label="recovery",
        part=part,
    )
    return Applied(trained)
