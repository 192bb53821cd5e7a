# SPDX-License-Identifier: Apache-2.0
"""prune: one shrink variant of the baseline, by a recipe of passes."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

from checks.errors import ParamsError
from pipeline.files import output_dir, write_json
from pipeline.layout import Layout
from pipeline.params import Params

if TYPE_CHECKING:
    from pipeline.compress.context import Context
    from pipeline.data.dataset import Dataset
    from pipeline.models.seconds import Stopwatch

__all__ = ["open_context", "run"]


def _copy_baseline(layout: Layout, variant: str, baseline: dict[str, Any]) -> None:
    """A variant without any pass is the baseline itself, byte for byte."""
    from pipeline.models.compression import read_passes, write_passes

    passes, record = read_passes(layout.baseline), baseline | {"name": variant}
    with output_dir(layout.shrunk(variant)) as folder:
        for name in ("weights.safetensors", "model.onnx"):
            shutil.copyfile(layout.baseline / name, folder / name)
        write_json(folder / "model.json", record)
        write_passes(folder, record, passes)


def open_context(layout: Layout, params: Params, dataset: Dataset) -> Context:
    """Return what passes may use, the baseline as the teacher.

    Raises:
        ModelError: if the baseline's files are unusable.
    """
    from pipeline.compress.context import Context
    from pipeline.models.cost import measure_cost
    from pipeline.models.network import Preprocessed, build_network, load_weights

    _, channels, height, width = dataset.pixels.shape
    shape = (channels, height, width)
    network = build_network(params.model, shape, len(dataset.classes), layout.root, params.seed)
    weights = layout.baseline / "weights.safetensors"
    load_weights(network, weights, str(weights))
    teacher = Preprocessed(network, params.model, dataset.pixel_max).eval()
    cost = measure_cost(layout.baseline / "model.onnx")
    return Context(dataset, teacher, cost, params.model, layout.root, params.seed)


def run(layout: Layout, params: Params, *, variant: str) -> None:
    """Write the variant's `weights.safetensors`, `model.onnx`, `model.json` and `compression.json`.

    Raises:
        CompressionError: if a target cannot be met or the network cannot be changed safely.
        ModelError: if the baseline's files are unusable.
    """
    from pipeline.data.dataset import read_dataset
    from pipeline.models.record import read_record
    from pipeline.models.seconds import Stopwatch

    if variant not in params.prune.recipes:
        raise ParamsError(f"expected a recipe named {variant!r}", where="params.yaml prune.recipes")
    recipe = params.prune.recipes[variant]
    dataset = read_dataset(layout.data)
    baseline = read_record(layout.baseline)
    stopwatch = Stopwatch()
    if recipe:
        _apply(layout, params, variant, dataset, stopwatch)
    else:
        _copy_baseline(layout, variant, baseline)
    stopwatch.write(layout.seconds("prune", variant))
    for done in stopwatch.passes:
        if "latency_ratio" in done:
            print(
                f"{variant}: {done['pass']} reached {done['latency_ratio']:.1%} of the baseline's time, "
                f"at most {done['latency_ratio_allowed']:.1%} was asked for"
            )


def _apply(layout: Layout, params: Params, variant: str, dataset: Dataset, stopwatch: Stopwatch) -> None:
    from pipeline.compress.recipe import apply_recipe
    from pipeline.models.compression import read_passes, write_passes
    from pipeline.models.export import export_onnx
    from pipeline.models.network import save_weights
    from pipeline.models.recording import record_model
    from pipeline.models.training import make_deterministic

    make_deterministic(params.seed)
    before = read_passes(layout.baseline)
    context = open_context(layout, params, dataset)
    recipe, where = params.prune.recipes[variant], f"params.yaml prune.recipes.{variant}"
    module, passes = apply_recipe(context.teacher, recipe, context, where, stopwatch)
    with output_dir(layout.shrunk(variant)) as folder:
        save_weights(module, folder / "weights.safetensors")
        export_onnx(module, context.shape, folder / "model.onnx")
        record = record_model(folder / "model.onnx", variant, dataset, output=params.model.output)
        write_json(folder / "model.json", record)
        write_passes(folder, record, [*before, *passes])
