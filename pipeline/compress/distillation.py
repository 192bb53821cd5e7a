# SPDX-License-Identifier: Apache-2.0
"""Distillation: a network learns from the answers, and the feature maps, of a teacher.

Soft targets: Hinton, Vinyals and Dean 2015, https://arxiv.org/abs/1503.02531. Squared error of logits: Ba and
Caruana 2014, https://arxiv.org/abs/1312.6184. Feature maps: Romero et al. 2015 (FitNets),
https://arxiv.org/abs/1412.6550; where pruning left other widths, by maps of attention instead, which need no
further weights: Zagoruyko and Komodakis 2017, https://arxiv.org/abs/1612.03928.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional

from checks.errors import CompressionError, ParamsError
from checks.evidence import Output
from pipeline.compress.configs import Distill
from pipeline.models.training import Batch, LabelLoss, as_logits

__all__ = ["Distillation", "attention_map", "feature_loss", "find_layer", "soft_target_loss"]

Match = Literal["values", "attention"]


def soft_target_loss(logits: torch.Tensor, target: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return T^2 KL(softmax(target / T) || softmax(logits / T)), the mean over the batch, in nats.

    Args:
        logits: `(B, K)`, the student's.
        target: `(B, K)`, the teacher's.
        temperature: T, above 0; the factor keeps gradients the same size at any temperature.
    """
    own = functional.log_softmax(logits / temperature, dim=1)
    other = functional.log_softmax(target / temperature, dim=1)
    return functional.kl_div(own, other, reduction="batchmean", log_target=True) * temperature**2


def attention_map(features: torch.Tensor) -> torch.Tensor:
    """Return `(B, H * W)`: squares summed over the channels of `(B, C, H, W)`, each row of length 1."""
    return functional.normalize(features.square().sum(dim=1).flatten(1), dim=1)


def feature_loss(own: torch.Tensor, other: torch.Tensor, layer: str) -> tuple[torch.Tensor, Match]:
    """Return the mean squared error of two outputs of a layer, and of what it is.

    Args:
        own: `(B, C, ...)`, the student's.
        other: The teacher's. With the same shape the values are compared, with other channels of a map
            `(B, C, H, W)` the attention maps.
        layer: Its name, for messages.

    Raises:
        CompressionError: if the two cannot be compared.
    """
    own, other = own.float(), other.float()
    if own.shape == other.shape:
        return functional.mse_loss(own, other), "values"
    if own.ndim != 4 or other.ndim != 4 or own.shape[2:] != other.shape[2:]:
        raise CompressionError(
            f"expected outputs of layer {layer!r} that differ in channels alone, "
            f"got (B, {', '.join(map(str, own.shape[1:]))}) and (B, {', '.join(map(str, other.shape[1:]))})",
            where="recover.distill.layers",
            hint="name layers that answer maps of the same height and width in both networks",
        )
    return functional.mse_loss(attention_map(own), attention_map(other)), "attention"


def find_layer(network: nn.Module, name: str, whose: str) -> nn.Module:
    """Return the layer called `name`, as the user's network calls it or as the recipe's figures do.

    Raises:
        ParamsError: naming the closest layers, if there is none.
    """
    layers: dict[str, nn.Module] = dict(network.named_modules())
    # Behind its preprocessing, the user's network is called `network`.
    for known in (name, f"network.{name}"):
        if known in layers:
            return layers[known]
    names = [known for known in layers if known]
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.0)
    raise ParamsError(
        f"expected a layer of the {whose}, got {name!r}",
        where="recover.distill.layers",
        hint=f"close to it: {', '.join(close)}" if close else f"the {whose} has no named layers",
    )


@contextmanager
def _watched(network: nn.Module, layers: Sequence[str], whose: str) -> Iterator[dict[str, torch.Tensor]]:
    """Collect the outputs of layers while the network runs."""
    seen: dict[str, torch.Tensor] = {}

    def keep(name: str) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            if isinstance(output, torch.Tensor):
                seen[name] = output

        return hook

    handles = [find_layer(network, name, whose).register_forward_hook(keep(name)) for name in layers]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _expect_seen(seen: dict[str, torch.Tensor], layers: Sequence[str], whose: str) -> None:
    missing = [name for name in layers if name not in seen]
    if missing:
        raise CompressionError(
            f"expected layers of the {whose} that run and answer one tensor, got {missing}",
            where="recover.distill.layers",
        )


@dataclass(frozen=True)
class Distillation:
    """The loss of a student: labels and what its teacher makes of the same images.

    The teacher sees images as they were before any attack: what it is fooled by is not to be learned
    (Goldblum et al. 2020, https://arxiv.org/abs/1905.09747).

    Attributes:
        teacher: Maps raw images to scores; in eval mode, never changed.
        config: Weights of the parts.
        labels: The part that is the labels'.
        layout: In which the teacher runs fastest.
        matched: Filled while training: layer to how its outputs are compared.
    """

    teacher: nn.Module
    config: Distill
    labels: LabelLoss
    layout: torch.memory_format = torch.contiguous_format
    matched: dict[str, Match] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Look layers up before an epoch is spent."""
        for name in self.config.layers:
            find_layer(self.teacher, name, "baseline")
        self.teacher.eval()

    @property
    def output(self) -> Output:
        """What both networks answer."""
        return self.labels.output

    def _ask(self, images: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the teacher's logits and features."""
        layers = self.config.layers
        if not (self.config.soft or self.config.logits or layers):
            return torch.empty(0), {}
        with torch.no_grad(), _watched(self.teacher, layers, "baseline") as seen:
            logits = as_logits(self.teacher(images.contiguous(memory_format=self.layout)), self.output)
        _expect_seen(seen, layers, "baseline")
        return logits, seen

    def __call__(self, network: nn.Module, batch: Batch) -> torch.Tensor:
        """Return the loss of `network` on a batch.

        Raises:
            ParamsError: if a layer is unknown.
            CompressionError: if its outputs cannot be compared.
        """
        config = self.config
        target, wanted = self._ask(batch.clean)
        with _watched(network, config.layers, "network") as seen:
            logits = as_logits(network(batch.images), self.output)
        _expect_seen(seen, config.layers, "network")
        hard = functional.cross_entropy(logits, batch.labels, label_smoothing=self.labels.label_smoothing)
        loss = (1 - config.soft) * hard
        if config.soft:
            loss = loss + config.soft * soft_target_loss(logits, target, config.temperature)
        if config.logits:
            loss = loss + config.logits * functional.mse_loss(logits, target)
        for name in config.layers:
            part, self.matched[name] = feature_loss(seen[name], wanted[name], name)
            loss = loss + config.features * part
        return loss
