# SPDX-License-Identifier: Apache-2.0
"""Removing channels from a copy of a network, and trying whether that is the same as setting them to zero."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.utils import _pytree as pytree

from pipeline.compress.channel_graph import Group

__all__ = ["Removal", "mask_channels", "probe_of", "remove_channels", "why_unequal"]

Removal = Mapping[tuple[str, int], npt.NDArray[np.int64]]
"""Tensor and dimension to the positions that go."""

TOLERANCE = 1e-4
"""In float32; relative to the largest output, or absolute below 1."""
_TOLERANCE_DOUBLE = 1e-7
_BATCHES = (1, 3)


def removal_of(choice: Sequence[tuple[Group, npt.NDArray[np.int64]]]) -> Removal:
    """Return what goes if of each group the units `(n,)` are removed."""
    positions: dict[tuple[str, int], list[npt.NDArray[np.int64]]] = {}
    for group, units in choice:
        for member in group.members:
            positions.setdefault((member.tensor, member.dim), []).append(member.indices[units].ravel())
    return {place: np.unique(np.concatenate(indices)) for place, indices in positions.items()}


def _tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def _copy(module: nn.Module) -> nn.Module:
    duplicate = copy.deepcopy(module)
    for parameter in duplicate.parameters():
        parameter.grad = None
    return duplicate


def mask_channels(module: nn.Module, removal: Removal) -> nn.Module:
    """Return a copy whose removed positions are zero wherever they occur."""
    masked = _copy(module)
    tensors = _tensors(masked)
    with torch.no_grad():
        for (name, dim), indices in removal.items():
            # A variance of zero is no missing channel; the scale behind it is already zero.
            if indices.size and not name.endswith("running_var"):
                tensors[name].index_fill_(dim, torch.from_numpy(indices), 0)
    return masked


def remove_channels(module: nn.Module, removal: Removal) -> nn.Module:
    """Return a copy without the removed positions; shared parameters stay shared, frozen ones frozen."""
    pruned = _copy(module)
    tensors = _tensors(pruned)
    shapes = {id(tensor): tuple(tensor.shape) for tensor in tensors.values()}
    for (name, dim), indices in removal.items():
        tensor = tensors[name]
        kept = np.setdiff1d(np.arange(tensor.shape[dim]), indices)
        tensor.data = tensor.data.index_select(dim, torch.from_numpy(kept))
    for layer in pruned.modules():
        _settle(layer, shapes)
    return pruned


def _settle(layer: nn.Module, before: Mapping[int, tuple[int, ...]]) -> None:
    """Let the attributes of a layer say what its weights are."""
    weight: Any = getattr(layer, "weight", None)
    mean: Any = getattr(layer, "running_mean", None)
    if isinstance(layer, nn.modules.conv._ConvNd):  # noqa: SLF001
        old = before.get(id(weight), tuple(weight.shape))
        ins, outs = (0, 1) if layer.transposed else (1, 0)
        alone = layer.groups > 1 and old[1] == 1
        if alone:
            layer.groups = layer.groups * weight.shape[0] // old[0]
        each = layer.groups
        layer.in_channels = weight.shape[ins] * (1 if layer.transposed else each)
        layer.out_channels = weight.shape[outs] * (each if layer.transposed else 1)
    elif isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = weight.shape
    elif isinstance(layer, nn.modules.batchnorm._NormBase):  # noqa: SLF001
        known = weight if weight is not None else mean
        if known is not None:
            layer.num_features = len(known)
    elif isinstance(layer, nn.GroupNorm) and weight is not None:
        if layer.num_groups == layer.num_channels:
            layer.num_groups = len(weight)
        layer.num_channels = len(weight)
    elif isinstance(layer, nn.PReLU):
        layer.num_parameters = len(weight)


def probe_of(module: nn.Module, images: torch.Tensor, seed: int) -> nn.Module:
    """Return a copy with random weights, in float64 where the network can be run so.

    What can be removed does not depend on the weights; random ones let every channel matter, where trained
    ones may hide a wrong removal behind a dead channel. Float64 tells a wrong removal from rounding.
    """
    generator = torch.Generator().manual_seed(seed)
    probe = _copy(module)
    with torch.no_grad():
        for name, tensor in [*probe.named_parameters(), *probe.named_buffers()]:
            if not tensor.is_floating_point() or tensor.ndim == 0:
                continue
            if tensor.ndim > 1 and isinstance(tensor, nn.Parameter):
                scale = 1.4 * (tensor.shape[0] / max(1, tensor.numel())) ** 0.5
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * scale)
            elif name.endswith(("running_mean", "bias")):
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.5)
            elif isinstance(tensor, nn.Parameter) or name.endswith("running_var"):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
        try:
            double = copy.deepcopy(probe).double()
            outputs = _outputs(double, images[:1])
        except (RuntimeError, TypeError, ValueError):
            return probe
    return double if all(value.isfinite().all() for value in outputs) else _copy(module)


def _outputs(module: nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    parameter = next(module.parameters())
    with torch.no_grad():
        made = module(images.to(parameter.dtype))
    return [value for value in pytree.tree_leaves(made) if isinstance(value, torch.Tensor)]


def difference(first: nn.Module, second: nn.Module, images: torch.Tensor) -> float:
    """Return the largest difference of outputs, relative to the largest output if that is above 1.

    Raises:
        ValueError: if shapes differ, or `second` returns NaN or infinity.
    """
    most = 0.0
    for want, came in zip(_outputs(first, images), _outputs(second, images), strict=True):
        if want.shape != came.shape:
            raise ValueError(f"expected an output of shape {tuple(want.shape)}, got {tuple(came.shape)}")
        if not came.isfinite().all():
            raise ValueError("expected finite outputs, got NaN or infinity")
        scale = max(1.0, float(want.abs().max()))
        most = max(most, float((want - came).abs().max()) / scale)
    return most


def why_unequal(module: nn.Module, removal: Removal, images: torch.Tensor) -> str | None:
    """Try a removal: does the network without some channels equal itself with those channels at zero?

    Args:
        module: Not changed.
        removal: What goes.
        images: At least 3 examples; two batch sizes are tried.

    Returns:
        What went wrong, or None if both agree within 1e-4 (1e-7 for a network in float64).
    """
    double = next(module.parameters()).dtype == torch.float64
    allowed = _TOLERANCE_DOUBLE if double else TOLERANCE
    try:
        masked, pruned = mask_channels(module, removal), remove_channels(module, removal)
        for size in _BATCHES:
            found = difference(masked, pruned, images[:size])
            if found > allowed:
                return f"without them the outputs differ by {found:.2g} from the same channels at zero"
    except Exception as error:  # whatever a network raises without some channels, it needs them
        first = (str(error).splitlines() or [""])[0]
        return f"without them the network raises {type(error).__name__}: {first}"
    return None
