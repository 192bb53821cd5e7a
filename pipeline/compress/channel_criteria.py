# SPDX-License-Identifier: Apache-2.0
"""Which channels matter: scores of the units of a group, the lowest goes first.

A distribution offers a criterion through the entry-point group `leangate.criteria`; a recipe names it
`package/name`. It is a function of two lists with one tensor `(units, n)` a place the group takes from: the
weights, and their gradients; it returns one finite score a unit `(units,)`. Only what a recipe names is
ever imported.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from importlib.metadata import EntryPoint, entry_points

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from checks.errors import CompressionError, ParamsError
from pipeline.compress.channel_graph import ChannelGraph, Group

__all__ = ["GROUP", "Criterion", "accumulate_gradients", "load_criterion", "score_units"]

GROUP = "leangate.criteria"
"""The entry-point group."""

Criterion = Callable[[list[torch.Tensor], list[torch.Tensor]], object]
_BUILT_IN = ("l1", "l2", "batchnorm", "taylor", "random")
_BATCH = 128


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _distribution(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else "an unknown distribution"


def _full_name(entry: EntryPoint) -> str:
    return f"{_canonical(entry.dist.name)}/{entry.name}" if entry.dist else entry.name


def load_criterion(name: str, where: str) -> Criterion | None:
    """Load the criterion `package/name`; None for those built in.

    Raises:
        ParamsError: if no distribution brings it, or several, which are named.
        CompressionError: naming the distribution, if it cannot be loaded.
    """
    if name in _BUILT_IN:
        return None
    package, _, short = name.partition("/")
    wanted = f"{_canonical(package)}/{short}"
    offered = entry_points(group=GROUP)
    found = [entry for entry in offered if _full_name(entry) == wanted]
    if len(found) != 1:
        names = sorted({_full_name(entry) for entry in offered})
        came = f"{len(found)} of that name, of {' and '.join(map(_distribution, found))}" if found else "none"
        raise ParamsError(
            f"expected one criterion {name!r} among the installed {[*_BUILT_IN, *names]}, got {came}",
            where=where,
            hint="install the distribution that brings it" if not found else "uninstall one of them",
        )
    [entry] = found
    try:
        loaded = entry.load()
    except (Exception, SystemExit) as error:  # other people's code may do anything while it is imported
        raise CompressionError(
            f"expected criterion {name!r} of {_distribution(entry)} to load, got "
            f"{type(error).__name__}: {error}",
            where=where,
        ) from error
    if not callable(loaded):
        raise CompressionError(
            f"expected criterion {name!r} of {_distribution(entry)} to be a function, got "
            f"{type(loaded).__name__}",
            where=where,
        )
    criterion: Criterion = loaded
    return criterion


def accumulate_gradients(module: nn.Module, images: torch.Tensor, labels: torch.Tensor, output: str) -> None:
    """Leave in `.grad` the gradient of the mean loss on the examples, of frozen parameters too.

    Args:
        module: Maps images `(N, C, H, W)` to scores `(N, K)`; in eval mode; its gradients are changed.
        images: Raw images.
        labels: `(N,)`.
        output: Whether scores are `logits` or `probabilities`.
    """
    frozen = [parameter for parameter in module.parameters() if not parameter.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(True)
    module.zero_grad()
    batches = zip(torch.split(images, _BATCH), torch.split(labels, _BATCH), strict=True)
    for batch, target in batches:
        loss_of(module(batch), target, output).div(len(images)).backward()  # type: ignore[no-untyped-call]
    for parameter in frozen:
        parameter.requires_grad_(False)


def loss_of(scores: torch.Tensor, labels: torch.Tensor, output: str) -> torch.Tensor:
    """Return the summed cross-entropy of scores that are `logits` or `probabilities`.

    Raises:
        CompressionError: if a network returned something else than one tensor.
    """
    if not isinstance(scores, torch.Tensor):
        raise CompressionError(
            f"expected one tensor of scores to take a loss of, got {type(scores).__name__}",
            where="criterion",
            hint="rank by l1, l2, batchnorm or random, with scope global or layer",
        )
    if output == "probabilities":
        return functional.nll_loss(scores.clamp_min(1e-12).log(), labels, reduction="sum")
    return functional.cross_entropy(scores, labels, reduction="sum")


def _taken(tensor: torch.Tensor, dim: int, indices: npt.NDArray[np.int64]) -> torch.Tensor:
    """Return what each unit takes from one dimension of a tensor, `(units, n)`."""
    rows = tensor.detach().movedim(dim, 0)[torch.from_numpy(indices)]
    return rows.reshape(len(indices), -1)


def _places(
    graph: ChannelGraph, group: Group, parameters: dict[str, nn.Parameter], criterion: str
) -> list[tuple[nn.Parameter, int, npt.NDArray[np.int64]]]:
    chosen = []
    for member in group.members:
        parameter = parameters.get(member.tensor)
        scale = member.tensor in graph.norms
        if parameter is None or (criterion == "batchnorm" and not scale):
            continue
        if criterion in ("l1", "l2", "taylor") and parameter.ndim == 1 and not scale:
            continue
        chosen.append((parameter, member.dim, member.indices))
    return chosen


def _combine(
    criterion: str, plugin: Criterion | None, weights: list[torch.Tensor], gradients: list[torch.Tensor]
) -> object:
    if plugin is not None:
        return plugin(weights, gradients)
    if criterion == "taylor":
        parts = [(w * g).abs().sum(1) for w, g in zip(weights, gradients, strict=True)]
    elif criterion == "l2":
        parts = [weight.square().sum(1) for weight in weights]
    else:
        parts = [weight.abs().sum(1) for weight in weights]
    return torch.stack(parts).mean(0)


def _expect_scores(value: object, size: int, criterion: str, where: str) -> npt.NDArray[np.float64]:
    try:
        made = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else value
        scores = np.array(made, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise CompressionError(
            f"expected criterion {criterion!r} to return numbers, got {error}", where=where
        ) from error
    if scores.shape != (size,) or not np.isfinite(scores).all():
        raise CompressionError(
            f"expected criterion {criterion!r} to return {size} finite scores, got shape {scores.shape}"
            + ("" if np.isfinite(scores).all() else " with NaN or infinity"),
            where=where,
        )
    return scores


def score_units(
    module: nn.Module, graph: ChannelGraph, criterion: str, seed: int, where: str
) -> list[npt.NDArray[np.float64] | None]:
    """Score the units of every group.

    Built-in criteria average over the places a group takes from: the sum of magnitudes (l1), of squares
    (l2), of batch normalisations' scales alone (batchnorm, Liu et al. 2017, arXiv:1708.06519), of
    |weight x gradient| (taylor, Molchanov et al. 2019, arXiv:1906.10771), or draw (random). Scores of one
    group are divided by their mean, so that groups can be ranked together (Fang et al. 2023,
    arXiv:2301.12900).

    Args:
        module: With gradients in `.grad` for taylor and for criteria of others.
        graph: Its groups.
        criterion: The name.
        seed: Of random.
        where: For messages.

    Returns:
        Scores `(units,)` a group; None where the criterion has nothing to go by.

    Raises:
        CompressionError: if a criterion of others raises, or does not return one finite score a unit.
    """
    plugin = load_criterion(criterion, where)
    random = np.random.default_rng([seed, 0xC4A])
    parameters = dict(module.named_parameters())
    scored: list[npt.NDArray[np.float64] | None] = []
    for group in graph.groups:
        if criterion == "random":
            scored.append(random.random(group.size) + 1e-6)
            continue
        places = _places(graph, group, parameters, criterion)
        if not places:
            scored.append(None)
            continue
        weights = [_taken(tensor, dim, indices) for tensor, dim, indices in places]
        gradients: list[torch.Tensor] = [
            _taken(torch.zeros_like(tensor) if tensor.grad is None else tensor.grad, dim, indices)
            for tensor, dim, indices in places
        ]
        try:
            value = _combine(criterion, plugin, weights, gradients)
        except Exception as error:
            raise CompressionError(
                f"expected criterion {criterion!r} to score {', '.join(group.layers)}, got "
                f"{type(error).__name__}: {error}",
                where=where,
            ) from error
        scores = _expect_scores(value, group.size, criterion, where)
        scored.append(_normalised(scores))
    return scored


def _normalised(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    mean = float(np.abs(scores).mean())
    made: npt.NDArray[np.float64] = scores / mean if mean > 0 else scores
    return made


def mean_loss(module: nn.Module, images: torch.Tensor, labels: torch.Tensor, output: str) -> float:
    """Return the mean loss on the examples."""
    total = 0.0
    with torch.no_grad():
        batches: Sequence[tuple[torch.Tensor, torch.Tensor]] = list(
            zip(torch.split(images, _BATCH), torch.split(labels, _BATCH), strict=True)
        )
        for batch, target in batches:
            total += float(loss_of(module(batch), target, output))
    return total / len(images)
