# SPDX-License-Identifier: Apache-2.0
"""Training and recovery: seeded, single-threaded, the last epoch counts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from pipeline.models.zeros import hold_zeros
from pipeline.progress import track
from pipeline.sections import Training

__all__ = ["Part", "Teacher", "count_steps", "make_deterministic", "train_network"]


@dataclass(frozen=True)
class Teacher:
    """Distillation with soft targets (Hinton et al. 2015, arXiv:1503.02531).

    Attributes:
        network: Maps raw images to scores.
        weight: Share of the teacher in the loss, [0, 1].
        temperature: Softens both distributions, above 0.
    """

    network: nn.Module
    weight: float
    temperature: float


@dataclass(frozen=True)
class Part:
    """Some steps of a whole training, at the rates they have in it.

    Attributes:
        first: Optimizer step it begins with, counted from 0.
        last: Step it ends before.
    """

    first: int
    last: int


def count_steps(training: Training, images: int) -> int:
    """Optimizer steps of a whole training on so many images."""
    return training.epochs * max(1, images // training.batch_size)


def make_deterministic(seed: int) -> None:
    """Make torch repeat itself: one thread, deterministic algorithms, one seed."""
    torch.set_num_threads(1)
    # The same as use_deterministic_algorithms(True), which imports a whole compiler to tell it so.
    torch.set_deterministic_debug_mode("error")
    torch.manual_seed(seed)


def _shift(images: torch.Tensor, max_shift: int, generator: torch.Generator) -> torch.Tensor:
    """Translate each image by up to `max_shift` pixels, filling with its border's value 0."""
    count, _, height, width = images.shape
    padded = functional.pad(images, (max_shift,) * 4)
    offsets = torch.randint(0, 2 * max_shift + 1, (2, count), generator=generator)
    rows = offsets[0][:, None] + torch.arange(height)
    columns = offsets[1][:, None] + torch.arange(width)
    index = torch.arange(count)
    return padded[index[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _augment(
    images: torch.Tensor, training: Training, pixel_max: int, generator: torch.Generator
) -> torch.Tensor:
    if training.max_shift:
        images = _shift(images, training.max_shift, generator)
    if training.flip:
        mirrored = torch.rand(len(images), generator=generator) < 0.5
        images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
    if training.noise:
        noise = torch.randn(images.shape, generator=generator) * (training.noise * pixel_max)
        images = (images + noise).clamp(0, pixel_max)
    return images


def _loss(
    scores: torch.Tensor,
    labels: torch.Tensor,
    images: torch.Tensor,
    training: Training,
    teacher: Teacher | None,
) -> torch.Tensor:
    hard = functional.cross_entropy(scores, labels, label_smoothing=training.label_smoothing)
    if teacher is None or teacher.weight == 0:
        return hard
    with torch.no_grad():
        target = functional.log_softmax(teacher.network(images) / teacher.temperature, dim=1)
    own = functional.log_softmax(scores / teacher.temperature, dim=1)
    soft = functional.kl_div(own, target, reduction="batchmean", log_target=True) * teacher.temperature**2
    return (1 - teacher.weight) * hard + teacher.weight * soft


def _go_to(schedule: torch.optim.lr_scheduler.LRScheduler, step: int) -> None:
    """Set rates to those of `step`."""
    if step > 0:
        # Nothing has a gradient yet: the optimizer does nothing, and the schedule sees that it came first.
        schedule.optimizer.zero_grad()
        schedule.optimizer.step()
        schedule.last_epoch = step - 1
        schedule.step()


def train_network(
    network: nn.Module,
    images: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64],
    training: Training,
    *,
    pixel_max: int,
    seed: int,
    teacher: Teacher | None = None,
    label: str = "training",
    part: Part | None = None,
) -> None:
    """Train `network` in place with AdamW and a one-cycle learning rate; leaves it in eval mode.

    Args:
        network: Maps raw images `(N, C, H, W)` in `[0, pixel_max]` to scores `(N, K)`.
        images: `(N, C, H, W)` raw pixels.
        labels: `(N,)`.
        training: Epochs, rates and augmentation.
        pixel_max: The value of a saturated pixel.
        seed: Of order and augmentation.
        teacher: Distil from it as well.
        label: What the progress bar says.
        part: Which steps to take of the whole training, which otherwise runs from end to end; the optimizer
            starts afresh.
    """
    if training.epochs == 0:
        network.eval()
        return
    make_deterministic(seed)
    generator = torch.Generator().manual_seed(seed)
    inputs, targets = torch.from_numpy(images), torch.from_numpy(labels)
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=training.learning_rate, weight_decay=training.weight_decay)
    batches = max(1, len(inputs) // training.batch_size)
    steps = count_steps(training, len(inputs))
    part = part or Part(0, steps)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=training.learning_rate, total_steps=steps
    )
    _go_to(schedule, part.first)
    restore_zeros = hold_zeros(network)
    taken = range(part.first, part.last)
    for epoch in track(range(training.epochs), label):
        network.train()
        order = torch.randperm(len(inputs), generator=generator)
        # A last, smaller batch would give BatchNorm noisy statistics; its images come up in other epochs.
        for step, batch in enumerate(order[: batches * training.batch_size].chunk(batches), epoch * batches):
            if step not in taken:
                continue
            seen = _augment(inputs[batch], training, pixel_max, generator)
            optimizer.zero_grad()
            _loss(network(seen), targets[batch], seen, training, teacher).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            restore_zeros()
            schedule.step()
    network.eval()
