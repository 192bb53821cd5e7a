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

__all__ = ["open_context", "run"]


def _copy_baseline(layout: Layout, variant: str, baseline: dict[str, Any]) -> None:
    """A variant without any pass is the baseline itself, byte for byte."""
    with output_dir(layout.shrunk(variant)) as folder:
        for name in ("weights.safetensors", "model.onnx"):
            shutil.copyfile(layout.baseline / name, folder / name)
        write_json(folder / "model.json", baseline | {"name": variant})


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
    """Write the variant's `weights.safetensors`, `model.onnx` and `model.json`.

    Raises:
        CompressionError: if a target cannot be met or the network cannot be changed safely.
        ModelError: if the baseline's files are unusable.
    """
    from pipeline.data.dataset import read_dataset
    from pipeline.models.record import read_record
    from pipeline.models.recording import record_model

    if variant not in params.prune.recipes:
        raise ParamsError(f"expected a recipe named {variant!r}", where="params.yaml prune.recipes")
    recipe = params.prune.recipes[variant]
    dataset = read_dataset(layout.data)
    baseline = read_record(layout.baseline)
    if not recipe:
        _copy_baseline(layout, variant, baseline)
        return
    from pipeline.compress.recipe import apply_recipe
    from pipeline.models.export import export_onnx
    from pipeline.models.network import save_weights
    from pipeline.models.training import make_deterministic

    make_deterministic(params.seed)
    context = open_context(layout, params, dataset)
    module, passes = apply_recipe(context.teacher, recipe, context, f"params.yaml prune.recipes.{variant}")
    with output_dir(layout.shrunk(variant)) as folder:
        save_weights(module, folder / "weights.safetensors")
        path, output = folder / "model.onnx", params.model.output
        export_onnx(module, context.shape, path)
        passes = baseline["passes"] + passes
        write_json(folder / "model.json", record_model(path, variant, dataset, passes, output=output))
