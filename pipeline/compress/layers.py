# SPDX-License-Identifier: Apache-2.0
"""Layers by name: which ones a pass leaves alone, one put in another's place, and whether all still runs."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterable

import torch
from torch import nn

from checks.errors import CompressionError, ParamsError

__all__ = ["expect_runs", "kept_apart", "replace_layer", "while_watching"]

_PREFIX = "network."
"""The user's network stands under this name behind its preprocessing; users name layers without it."""
_SHOWN = 5


def _named(entry: str, names: Iterable[str]) -> set[str]:
    """The names that an entry is, or is a module around."""
    roots = (entry, _PREFIX + entry)
    inside = tuple(f"{root}." for root in roots)
    return {name for name in names if name in roots or name.startswith(inside)}


def _with_weights(network: nn.Module) -> list[str]:
    """Names of what has parameters: an identity may stand where a block was."""
    return [name for name, layer in network.named_modules() if any(True for _ in layer.parameters())]


def kept_apart(
    skip: Iterable[str], names: Collection[str], where: str, *, module: nn.Module, before: nn.Module
) -> frozenset[str]:
    """Return which of `names` are skipped.

    Args:
        skip: Names of layers, or of modules that hold them; with or without the leading `network.`.
        names: What the pass could change.
        where: Key of the option, for messages.
        module: The network as it is.
        before: The baseline: what an earlier pass has removed of it is left alone already.

    Raises:
        ParamsError: if an entry names nothing the pass could change.
    """
    skipped: set[str] = set()
    here, once = (_with_weights(network) for network in (module, before))
    for entry in skip:
        found = _named(entry, names)
        if not found and _named(entry, once) and not _named(entry, here):
            continue
        if not found:
            known = sorted(name.removeprefix(_PREFIX) for name in names)
            close = difflib.get_close_matches(entry, known, n=3, cutoff=0.4) or known[:_SHOWN]
            raise ParamsError(
                f"expected a layer of the network that the pass could change, got {entry!r}",
                where=where,
                hint=f"close to it: {', '.join(close)}",
            )
        skipped |= found
    return frozenset(skipped)


def replace_layer(module: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Put `new` in the place of the submodule `old`, under every name it has."""
    for place, part in list(module.named_modules(remove_duplicate=False)):
        if part is old:
            parent, _, name = place.rpartition(".")
            setattr(module.get_submodule(parent), name, new)


def while_watching(
    module: nn.Module,
    layers: Iterable[tuple[str, nn.Module]],
    images: torch.Tensor,
    see: Callable[[str, nn.Module, tuple[object, ...], dict[str, object], object], None],
) -> torch.Tensor:
    """Run `images` through `module` without gradients, and return the scores.

    Args:
        module: Maps raw images to scores.
        layers: Its submodules to watch, by name.
        images: `(N, C, H, W)` raw.
        see: Gets name, layer, arguments, named arguments and output of each call of theirs.
    """
    handles = []
    for name, layer in layers:

        def hook(
            layer: nn.Module,
            given: tuple[object, ...],
            named: dict[str, object],
            output: object,
            name: str = name,
        ) -> None:
            see(name, layer, given, named, output)

        handles.append(layer.register_forward_hook(hook, with_kwargs=True))
    try:
        with torch.no_grad():
            scores: torch.Tensor = module(images)
    finally:
        for handle in handles:
            handle.remove()
    return scores


def expect_runs(changed: nn.Module, original: nn.Module, images: torch.Tensor, where: str) -> None:
    """Run the changed network.

    Args:
        changed: In eval mode.
        original: In eval mode; gives the shape of scores.
        images: `(N, C, H, W)` raw.
        where: The pass, for messages.

    Raises:
        CompressionError: if it does not run, or its scores have another shape or are not finite.
    """
    hint = "the network reads what was changed in a way that cannot be followed; name it under `skip`"
    with torch.no_grad():
        want = original(images)
        try:
            came = changed(images)
        except Exception as error:
            raise CompressionError(
                f"expected the changed network to run, got {type(error).__name__}: {error}",
                where=where,
                hint=hint,
            ) from error
    if came.shape != want.shape:
        raise CompressionError(
            f"expected scores of shape {tuple(want.shape)}, got {tuple(came.shape)}", where=where, hint=hint
        )
    if not torch.isfinite(came).all():
        raise CompressionError("expected finite scores, got NaN or infinity", where=where)
