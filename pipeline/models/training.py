# SPDX-License-Identifier: Apache-2.0
"""Training and recovery: seeded, single-threaded, the last epoch counts."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from checks.errors import ParamsError
from checks.evidence import Output
from pipeline.models.zeros import hold_zeros
from pipeline.progress import track
from pipeline.sections import Training

__all__ = [
    "Batch",
    "LabelLoss",
    "Objective",
    "Part",
    "Perturbation",
    "arithmetic",
    "as_logits",
    "count_steps",
    "make_deterministic",
    "memory_layout",
    "train_network",
]


@dataclass(frozen=True, eq=False)
class Batch:
    """What one step learns from.

    Attributes:
        images: `(B, C, H, W)` raw pixels the network is shown, augmented and perhaps attacked.
        clean: The same images before any attack.
        labels: `(B,)`.
    """

    images: torch.Tensor
    clean: torch.Tensor
    labels: torch.Tensor


Objective = Callable[[nn.Module, Batch], torch.Tensor]
"""Maps a network and a batch to the loss, a float32 scalar."""

Perturbation = Callable[[nn.Module, torch.Tensor, torch.Tensor, torch.Generator], torch.Tensor]
"""Maps network, augmented images, labels and random state to the images the network is shown instead."""


def as_logits(scores: torch.Tensor, output: Output) -> torch.Tensor:
    """Return scores `(B, K)` as float32 logits.

    The logarithm of a probability is its logit up to a constant an example, so that a softmax of it gives
    the probability back; a softmax of the probability itself would be a second one.

    Args:
        scores: What the network answers, in any floating type.
        output: What that is, `logits` or `probabilities`.
    """
    scores = scores.float()
    if output == "logits":
        return scores
    return scores.clamp_min(torch.finfo(torch.float32).tiny).log()


def arithmetic(training: Training) -> torch.autocast:
    """Return the context in which networks are run during training: float32, or bf16 where it is safe."""
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=training.precision == "bf16")


def _arrange(network: nn.Module, layout: torch.memory_format) -> nn.Module:
    """Lay weights out in place; their values stay."""
    return network.to(memory_format=layout)  # type: ignore[call-overload, no-any-return]


def memory_layout(network: nn.Module, images: torch.Tensor) -> torch.memory_format:
    """Return the layout in which `network` trains fastest: channels last, unless its code forbids it.

    A `view` of a feature map, for example, needs the other layout.

    Args:
        network: Not changed.
        images: `(N, C, H, W)`, a few that it can be tried on.
    """
    try:
        trial = _arrange(copy.deepcopy(network).eval(), torch.channels_last)
        with torch.no_grad():
            trial(images.contiguous(memory_format=torch.channels_last))
    except RuntimeError:
        return torch.contiguous_format
    return torch.channels_last


@dataclass(frozen=True)
class LabelLoss:
    """Cross-entropy with the labels.

    Attributes:
        label_smoothing: Share of the target spread over all classes, [0, 1).
        output: What the network answers.
    """

    label_smoothing: float = 0.0
    output: Output = "logits"

    def __call__(self, network: nn.Module, batch: Batch) -> torch.Tensor:
        """Return the mean over the batch, in nats."""
        logits = as_logits(network(batch.images), self.output)
        return functional.cross_entropy(logits, batch.labels, label_smoothing=self.label_smoothing)


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
    objective: Objective | None = None,
    perturb: Perturbation | None = None,
    label: str = "training",
    where: str = "recover",
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
        objective: The loss; by default cross-entropy of logits with the labels.
        perturb: Changes each augmented batch before the network is shown it.
        label: What the progress bar says.
        where: Key of `training`, for messages.
        part: Which steps to take of the whole training, which otherwise runs from end to end; the optimizer
            starts afresh.

    Raises:
        ParamsError: if an image may be shifted out of sight, or a batch has more images than there are.
    """
    if training.epochs == 0:
        network.eval()
        return
    height, width = images.shape[2:]
    if training.max_shift >= min(height, width):
        raise ParamsError(
            f"expected max_shift below the smaller side of images of {height} x {width}, got "
            f"{training.max_shift}, which may shift all of an image out of sight",
            where=f"{where}.max_shift",
        )
    if training.batch_size > len(images):
        raise ParamsError(
            f"expected batch_size of at most the {len(images)} images of the training split, got "
            f"{training.batch_size}",
            where=f"{where}.batch_size",
            hint="name a smaller one: the rates of a recipe are made for the size of its batches",
        )
    make_deterministic(seed)
    objective = objective or LabelLoss(training.label_smoothing)
    generator = torch.Generator().manual_seed(seed)
    inputs, targets = torch.from_numpy(images), torch.from_numpy(labels)
    layout = memory_layout(network, inputs[:2])
    _arrange(network, layout)
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
        for step, rows in enumerate(order[: batches * training.batch_size].chunk(batches), epoch * batches):
            if step not in taken:
                continue
            clean, wanted = _augment(inputs[rows], training, pixel_max, generator), targets[rows]
            clean = clean.contiguous(memory_format=layout)
            shown = clean if perturb is None else perturb(network, clean, wanted, generator)
            optimizer.zero_grad()
            with arithmetic(training):
                loss = objective(network, Batch(shown, clean, wanted))
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            restore_zeros()
            schedule.step()
    optimizer.zero_grad()
    _arrange(network, torch.contiguous_format)
    network.eval()
