# SPDX-License-Identifier: Apache-2.0
"""prune: one shrink variant of the baseline, with recovery."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import numpy as np

from checks.errors import CompressionError, ParamsError
from pipeline.files import output_dir, write_json
from pipeline.layout import Layout
from pipeline.params import Params, PruneRecipe

if TYPE_CHECKING:
    from torch import nn

    from pipeline.data.dataset import Dataset

__all__ = ["run"]

_MAX_CRITERION_EXAMPLES = 2048
"""Enough to rank channels by gradient; more would cost an epoch and rank the same."""


def _shrink(
    module: nn.Module, recipe: PruneRecipe, dataset: Dataset, seed: int
) -> tuple[nn.Module, list[dict[str, Any]]]:
    """Prune and recover in turn; the target of each step lies on a geometric path to the whole."""
    import torch

    from pipeline.compress.channels import ChannelPruning, prune_channels
    from pipeline.models.training import Teacher, train_network

    split = dataset.split("train")
    order = np.random.default_rng([seed, 0x9A0E]).permutation(len(split.labels))
    chosen = np.sort(order[:_MAX_CRITERION_EXAMPLES])
    images, labels = torch.from_numpy(split.images[chosen]), torch.from_numpy(split.labels[chosen])
    teacher = Teacher(module, recipe.distill_weight, recipe.distill_temperature)
    passes: list[dict[str, Any]] = []
    reached = 1.0
    for step in range(1, recipe.steps + 1):
        wanted = recipe.macs_reduction ** (step / recipe.steps)
        config = ChannelPruning(max(1.0, wanted / reached), recipe.criterion, recipe.round_to, seed)
        pruned = prune_channels(module, config, images, labels)
        reached *= pruned.macs_before / pruned.macs_after
        module = pruned.module
        if pruned.macs_after < pruned.macs_before:
            passes.append(
                {
                    "pass": "prune",
                    "options": {
                        "criterion": recipe.criterion,
                        "macs_reduction": wanted,
                        "round_to": recipe.round_to,
                        "seed": seed,
                        "step": step,
                    },
                    "macs_before": pruned.macs_before,
                    "macs_after": pruned.macs_after,
                    "channels": {name: list(widths) for name, widths in pruned.channels.items()},
                }
            )
        if recipe.recovery.epochs:
            train_network(
                module,
                split.images,
                split.labels,
                recipe.recovery,
                pixel_max=dataset.pixel_max,
                seed=seed + step,
                teacher=teacher,
                label=f"recovery {step} of {recipe.steps}",
            )
            options = recipe.recovery.model_dump() | {
                "distill_weight": recipe.distill_weight,
                "distill_temperature": recipe.distill_temperature,
                "seed": seed + step,
                "step": step,
            }
            passes.append({"pass": "recover", "options": options})
    return module, passes


def _copy_baseline(layout: Layout, variant: str, baseline: dict[str, Any]) -> None:
    """A variant without any pass is the baseline itself, byte for byte."""
    with output_dir(layout.shrunk(variant)) as folder:
        for name in ("weights.safetensors", "model.onnx"):
            shutil.copyfile(layout.baseline / name, folder / name)
        write_json(folder / "model.json", baseline | {"name": variant})


def run(layout: Layout, params: Params, *, variant: str) -> None:
    """Write the variant's `weights.safetensors`, `model.onnx` and `model.json`.

    Raises:
        CompressionError: if the target cannot be met or the network cannot be pruned safely.
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
    if recipe.macs_reduction == 1 and recipe.recovery.epochs == 0:
        _copy_baseline(layout, variant, baseline)
        return
    from pipeline.models.export import export_onnx
    from pipeline.models.network import Preprocessed, build_network, load_weights, save_weights
    from pipeline.models.training import make_deterministic

    make_deterministic(params.seed)
    _, channels, height, width = dataset.pixels.shape
    shape = (channels, height, width)
    network = build_network(params.model, shape, len(dataset.classes), layout.root, params.seed)
    weights = layout.baseline / "weights.safetensors"
    load_weights(network, weights, str(weights))
    whole = Preprocessed(network, params.model, dataset.pixel_max)
    try:
        module, passes = _shrink(whole, recipe, dataset, params.seed)
    except CompressionError as error:
        where = error.where.replace("*", variant)
        raise CompressionError(error.what, where=where, hint=error.hint) from error
    with output_dir(layout.shrunk(variant)) as folder:
        save_weights(module, folder / "weights.safetensors")
        export_onnx(module, shape, folder / "model.onnx")
        passes = baseline["passes"] + passes
        record = record_model(folder / "model.onnx", variant, dataset, passes, output=params.model.output)
        if record["macs"] > baseline["macs"] / recipe.macs_reduction:
            raise CompressionError(
                f"expected at most {baseline['macs'] / recipe.macs_reduction:.0f} multiply-accumulates, "
                f"got {record['macs']} in the exported file",
                where=f"params.yaml prune.recipes.{variant}.macs_reduction",
            )
        write_json(folder / "model.json", record)
