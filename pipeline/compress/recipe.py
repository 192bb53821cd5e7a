# SPDX-License-Identifier: Apache-2.0
"""A recipe: passes in order, each recorded with its options and with what it left."""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from checks.errors import CompressionError, InputError
from pipeline.compress.configs import LowRank, Pass, Targeted
from pipeline.compress.context import Context, Function
from pipeline.models.export import export_onnx
from pipeline.models.recording import measure_file
from pipeline.models.seconds import Stopwatch

__all__ = ["FUNCTIONS", "apply_recipe"]

FUNCTIONS: Mapping[str, tuple[str, str]] = {
    "channels": ("pipeline.compress.channels", "prune_channels"),
    "neurons": ("pipeline.compress.channels", "prune_neurons"),
    "recover": ("pipeline.compress.recovery", "recover"),
    "iterate": ("pipeline.compress.schedules", "iterate"),
    "blocks": ("pipeline.compress.blocks", "remove_blocks"),
    "weights": ("pipeline.compress.weights", "prune_weights"),
    "low_rank": ("pipeline.compress.low_rank", "factorize"),
    "gradual": ("pipeline.compress.schedules", "shrink_gradually"),
    "student": ("pipeline.compress.student", "take_student"),
}
"""Method to module and function; imported when a recipe names it."""


def function_of(method: str) -> Function:
    """Return the function of a pass."""
    module, name = FUNCTIONS[method]
    function: Function = getattr(importlib.import_module(module), name)
    return function


def measure_pass(module: nn.Module, context: Context) -> dict[str, Any]:
    """Measure what a pass left, in the file that would ship if it were the last."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export_onnx(module, context.shape, path)
        return measure_file(path, context.dataset, output=context.model.output)


def _key(entry: Pass, where: str) -> str:
    """The option an error is about, within its pass; the pass itself if it names none."""
    if entry.shrinks is not entry:
        if where.startswith(f"{entry.shrinks.method}."):
            return f"{entry.method}.shrink.{where}"
        if where.startswith("recover."):
            return f"{entry.method}.{where}"
    return where if where.startswith(f"{entry.method}.") else entry.method


def _expect_met(entry: Pass, left: Mapping[str, Any], context: Context) -> None:
    """Refuse what missed its target in the file, whatever was counted on the way there."""
    config = entry.shrinks.config
    target = config.target if isinstance(config, Targeted | LowRank) else None
    if target is None or target[0] == "latency":
        return
    name, reduction = target
    allowed, came = getattr(context.baseline, name) / reduction, left[name]
    if came > allowed:
        raise CompressionError(
            f"expected at most {allowed:.0f} {name} in the file, got {came}",
            where=f"{entry.shrinks.method}.{name}_reduction",
            hint="ask for less; layers that are called more than once or counted otherwise may be the reason",
        )


def apply_recipe(
    module: nn.Module,
    recipe: Sequence[Pass],
    context: Context,
    where: str,
    stopwatch: Stopwatch | None = None,
) -> tuple[nn.Module, list[dict[str, Any]]]:
    """Apply every pass in order.

    Args:
        module: Maps raw images to scores; not changed.
        recipe: The passes.
        context: What they may use.
        where: Key of the recipe, for messages.
        stopwatch: Times each pass, without the measuring of what it left.

    Returns:
        The network, and one record a pass: its name, resolved options, figures, and what it left.

    Raises:
        CompressionError: naming the pass that could not do what was asked.
        InputError: naming the pass whose options are wrong for this network.
    """
    records, stopwatch = [], stopwatch or Stopwatch()
    for index, entry in enumerate(recipe):
        # Passes of one kind must not draw the same numbers twice.
        own = replace(context, seed=context.seed + index)
        try:
            with stopwatch.time(entry.method):
                applied = function_of(entry.method)(module, entry.config, own)
            stopwatch.note(applied.timings)
            module = applied.module
            left = measure_pass(module, context)
            _expect_met(entry, left, context)
        except (CompressionError, InputError) as error:
            place = f"{where}[{index}].{_key(entry, error.where)}"
            raise type(error)(error.what, where=place, hint=error.hint) from error
        options = entry.config.model_dump(mode="json", exclude_none=True) | {"seed": own.seed}
        records.append({"pass": entry.method, "options": options, **applied.figures, "left": left})
    return module, records
