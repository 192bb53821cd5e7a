# SPDX-License-Identifier: Apache-2.0
"""Recovery: training after a pass, from labels, from the answers of the baseline, and under attack."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from checks.evidence import Output
from pipeline.compress.adversary import Descent
from pipeline.compress.configs import Recover
from pipeline.compress.context import Applied, Context
from pipeline.compress.distillation import Distillation, find_layer
from pipeline.data.dataset import Dataset
from pipeline.models.training import LabelLoss, Objective, Part, memory_layout, train_network

__all__ = ["recover", "retrain"]


def retrain(
    network: nn.Module,
    config: Recover,
    *,
    dataset: Dataset,
    teacher: nn.Module,
    output: Output,
    seed: int,
    label: str = "recovery",
    part: Part | None = None,
) -> dict[str, Any]:
    """Train `network` in place on the training split.

    Args:
        network: Maps raw images to scores.
        config: Epochs, rates, augmentation, distillation, attack.
        dataset: Gives the training split.
        teacher: Maps raw images to scores; in eval mode.
        output: What both answer.
        seed: Of order, augmentation and attack.
        label: What the progress bar says.
        part: Which steps of the training to take; all by default.

    Returns:
        Under `matched`, how each layer of `distill.layers` was compared: by `values` or by `attention`.

    Raises:
        ParamsError: if a layer is unknown.
        CompressionError: if its outputs cannot be compared.
    """
    split = dataset.split("train")
    labels = LabelLoss(config.label_smoothing, output)
    objective: Objective = labels
    matched: dict[str, Any] = {}
    if config.distill:
        for name in config.distill.layers:
            find_layer(network, name, "network")
        layout = memory_layout(teacher, torch.from_numpy(split.images[:2]))
        objective = distillation = Distillation(teacher, config.distill, labels, layout)
        matched = distillation.matched
    perturb = None
    if config.adversarial:
        perturb = Descent(config.adversarial, config, output, dataset.pixel_max)
    train_network(
        network,
        split.images,
        split.labels,
        config,
        pixel_max=dataset.pixel_max,
        seed=seed,
        objective=objective,
        perturb=perturb,
        label=label,
        part=part,
    )
    return {"matched": dict(sorted(matched.items()))} if matched else {}


def recover(module: nn.Module, config: Recover, context: Context, *, part: Part | None = None) -> Applied:
    """Train a copy of `module` on the training split.

    Args:
        module: Maps raw images to scores; not changed.
        config: Epochs, rates, augmentation, distillation, attack.
        context: Gives training split and teacher.
        part: Which steps of the training to take; all by default.

    Raises:
        ParamsError: if a layer of `distill.layers` is unknown.
        CompressionError: if its outputs cannot be compared.
    """
    trained = copy.deepcopy(module)
    figures = retrain(
        trained,
        config,
        dataset=context.dataset,
        teacher=context.teacher,
        output=context.model.output,
        seed=context.seed,
        part=part,
    )
    return Applied(trained, figures)
