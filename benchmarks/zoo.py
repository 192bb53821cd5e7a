# SPDX-License-Identifier: Apache-2.0
"""What structured pruning makes of thirty topologies, ours and torch-pruning's.

    python benchmarks/zoo.py [--reduction 1.4]

Each network of `tests/zoo.py` has random weights and is pruned to the same target of multiply-accumulates
by the same criterion (l2). Both results are compared with the network whose same channels are zero, on
random images: ours with a mask read off the weights, torch-pruning's with one kept from the indices it
reports. Ours is exported to ONNX with a dynamic batch as well. Prints a Markdown table, the same one every
time; exit code 1 if ours broke anything silently. Needs the extra `bench`.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import logging
import os
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ["OMP_NUM_THREADS"] = "1"

import torch
from torch import nn

from checks.errors import CompressionError
from pipeline.compress.channels import prune_channels
from pipeline.compress.configs import Channels
from pipeline.compress.macs import count_macs
from tests import zoo

_TOLERANCE = 1e-4
_STEPS = 12
_WIDTH = 90


def _images(size: int = 5) -> torch.Tensor:
    return torch.randn(size, *zoo.SHAPE, generator=torch.Generator().manual_seed(7))


def _first_line(error: Exception) -> str:
    line = (str(error).splitlines() or [""])[0]
    return f"{type(error).__name__}: {line}"[:_WIDTH]


def ours(name: str, reduction: float) -> tuple[str, str]:
    """Prune one network by LeanGate; return what became of it, in a word and in a cell."""
    module = zoo.build(name)
    state = copy.deepcopy(module.state_dict())
    config = Channels(macs_reduction=reduction, criterion="l2")
    try:
        pruned = prune_channels(module, config, zoo.context_of(module)).module
    except CompressionError as error:
        same = all(
            torch.equal(value, module.state_dict()[key])
            for key, value in state.items()
            if value.isfinite().all()
        )
        reason = error.what.partition(", got ")[2] or error.hint
        return ("refused" if same else "BROKEN"), f"refused: {reason[:_WIDTH]}"
    before, after = (count_macs(network, _images(1)) for network in (module, pruned))
    try:
        apart = zoo.difference(module, pruned, _images())
        exported = zoo.onnx_difference(pruned, _images())
    except Exception as error:
        return "BROKEN", _first_line(error)
    word = "pruned" if max(apart, exported) <= _TOLERANCE else "BROKEN"
    return word, f"{before / after:.2f}x, mask {apart:.0e}, ONNX {exported:.0e}"


class _Mask:
    """The original network with the channels at zero that torch-pruning reports as removed."""

    def __init__(self, module: nn.Module) -> None:
        self.reference = copy.deepcopy(module)
        self._layers = dict(self.reference.named_modules())
        self._alive: dict[str, torch.Tensor] = {}

    def remove(self, graph: Any, group: Any) -> None:
        """Zero the outputs of every layer in a group, at their places in the original."""
        for dependency, indices in group:
            layer = dependency.target.module
            if not graph.is_out_channel_pruning_fn(dependency.handler) or not isinstance(layer, nn.Module):
                continue
            name = graph._module2name.get(layer, "")  # noqa: SLF001
            twin = self._layers.get(name)
            weight = getattr(twin, "weight", None)
            if not isinstance(weight, torch.Tensor):
                continue
            dim = 1 if isinstance(twin, nn.ConvTranspose2d) else 0
            alive = self._alive.setdefault(name, torch.arange(weight.shape[dim]))
            gone = torch.zeros(len(alive), dtype=torch.bool)
            gone[list(indices)] = True
            with torch.no_grad():
                weight.index_fill_(dim, alive[gone], 0)
                bias = getattr(twin, "bias", None)
                if isinstance(bias, torch.Tensor):
                    bias[alive[gone]] = 0
            self._alive[name] = alive[~gone]


def _output_layers(module: nn.Module) -> list[nn.Module]:
    """The layers whose outputs are those of the network: the last to run, one an output."""
    seen: list[nn.Module] = []
    handles = [
        layer.register_forward_hook(lambda layer, *_: seen.append(layer))
        for layer in module.modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    ]
    count = len(zoo.outputs_of(module, _images(1)))
    for handle in handles:
        handle.remove()
    # The detector runs its class head before both layers of its box head.
    return seen[-1:] if count == 1 else [seen[-3], seen[-1]]


def _attempts(module: nn.Module) -> Iterator[tuple[nn.Module, _Mask]]:
    """Prune by torch-pruning at rising ratios."""
    import torch_pruning as tp

    for step in range(1, _STEPS + 1):
        torch.manual_seed(0)
        pruned, mask = copy.deepcopy(module), _Mask(module)
        pruner = tp.pruner.BasePruner(
            pruned,
            _images(1),
            importance=tp.importance.GroupMagnitudeImportance(p=2),
            global_pruning=True,
            pruning_ratio=0.9 * step / _STEPS,
            max_pruning_ratio=0.9,
            ignored_layers=_output_layers(pruned),
        )
        for group in pruner.step(interactive=True):
            mask.remove(pruner.DG, group)
            group.prune()
        yield pruned, mask


def peer(name: str, reduction: float) -> tuple[str, str]:
    """Prune one network by torch-pruning; return what became of it, in a word and in a cell."""
    module = zoo.build(name)
    before = count_macs(module, _images(1)) if name != "dynamic control flow" else 0
    reached = 1.0
    try:
        for pruned, mask in _attempts(module):
            try:
                outputs = zoo.outputs_of(pruned, _images())
                reached = before / count_macs(pruned, _images(1)) if before else reduction
            except Exception as error:
                return "forward fails", f"forward fails: {_first_line(error)}"
            if reached < reduction:
                continue
            wanted = zoo.outputs_of(mask.reference, _images())
            if any(a.shape != b.shape for a, b in zip(outputs, wanted, strict=True)):
                return "silently different", f"{reached:.2f}x, outputs of another shape"
            if not all(value.isfinite().all() for value in outputs):
                return "takes NaN", f"{reached:.2f}x, NaN or infinity"
            apart = max(
                float((a - b).abs().max()) / max(1.0, float(b.abs().max()))
                for a, b in zip(outputs, wanted, strict=True)
            )
            word = "pruned" if apart <= _TOLERANCE else "silently different"
            return word, f"{reached:.2f}x, mask {apart:.0e}"
    except Exception as error:
        return "raises", f"raises {_first_line(error)}"
    return "silently too little", f"{reached:.2f}x at most, no message"


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reduction", type=float, default=1.4)
    reduction = parser.parse_args().reduction
    torch.set_num_threads(1)
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    mine, theirs = Counter[str](), Counter[str]()
    print(f"| topology, to {reduction:g}x fewer MACs | LeanGate | torch-pruning |\n|---|---|---|")
    for name in zoo.ZOO:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            (word, cell), (other, other_cell) = ours(name, reduction), peer(name, reduction)
        mine[word] += 1
        theirs[other] += 1
        print(f"| {name} | {cell} | {other_cell} |", flush=True)
    for title, counts in (("LeanGate", mine), ("torch-pruning", theirs)):
        print(f"\n{title}: " + ", ".join(f"{count} {word}" for word, count in sorted(counts.items())), end="")
    print()
    return 1 if mine["BROKEN"] else 0


if __name__ == "__main__":
    sys.exit(main())
