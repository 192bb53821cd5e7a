# SPDX-License-Identifier: Apache-2.0
"""Pruning, distillation and int8 together on ResNet-20, beside torch-pruning and onnxruntime with one budget.

    LEANGATE_BENCH_DATA=FOLDER python benchmarks/compression/compose.py [--seeds 3] [--repeat]

Every row that trains has the peers' budget, two epochs of the training images, the same augmentation,
optimizer and precision; the last epoch counts. Recipes were chosen on the validation split; the test split
is looked at here, once. The control is the dense network, trained for as long. Latencies are ratios to the
float file, one thread, interleaved. `--repeat` makes the first recipe of the first seed twice and compares
the files byte by byte. Takes about half an hour.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import numpy as np
import torch
from cifar import (
    SHAPE,
    context_of,
    data_folder,
    latency_ratio,
    measure,
    passes,
    quantize,
    quantize_with_onnxruntime,
    recover,
)
from picture import draw_picture
from torch import nn

from checks.canonical import sha256_file
from pipeline.compress.configs import Pass
from pipeline.compress.context import Context
from pipeline.compress.precision_configs import StaticInt8
from pipeline.compress.recipe import apply_recipe
from pipeline.compress.recovery import recover as train
from pipeline.models.cost import measure_cost
from pipeline.models.export import export_onnx

EPOCHS = 2
LABELS = recover(EPOCHS, 0.005)
STAGES = ("network.layer1", "network.layer2", "network.layer3")
DISTILLED = recover(
    EPOCHS, 0.005, distill={"soft": 1.0, "temperature": 4.0, "features": 50.0, "layers": STAGES}
).model_dump()
INT8 = StaticInt8(calibration="mse", equalize=True, float_first=True)

# Whole blocks go before anything gets thinner, since a narrow layer costs nearly the time of a wide one:
# three, those that change their input least, and `skip` lets no stage lose more than it can bear. What is
# left to cut is bytes, of the last stage, and MACs. Two thin layers for a thick one cost time in the wide
# planes of the first stage, and little in the small ones of the last.
_BLOCKS = {
    "remove": 3,
    "criterion": "similarity",
    "skip": ("network.layer1.2", "network.layer2.1", "network.layer3.2"),
}
_FIRST = ("network.conv1", "network.layer1", "network.layer3.0.shortcut", "network.linear")
_SPATIAL = {"kinds": ("spatial",)}
RECIPES: Mapping[str, list[Pass]] = {
    "LeanGate 2x": passes(
        {"blocks": _BLOCKS},
        {"low_rank": {"parameters_reduction": 2.04, "skip": (*_FIRST, "network.layer2"), **_SPATIAL}},
        {"recover": DISTILLED},
    ),
    "LeanGate 3x": passes(
        {"blocks": _BLOCKS},
        {"low_rank": {"macs_reduction": 3.0, "skip": _FIRST, **_SPATIAL}},
        {"recover": DISTILLED},
    ),
}


@dataclass(frozen=True)
class Row:
    """One file of one seed, on the test split."""

    name: str
    kilobytes: float
    size: float
    macs: float
    accuracy: float
    change: float
    worst: float
    flips: int
    one: float
    many: float


def _dense(context: Context) -> nn.Module:
    return train(context.teacher, LABELS, context).module


def prune_with_torch_pruning(context: Context, reduction: float) -> nn.Module:
    """Prune as torch-pruning's own examples do, by its gradients over groups, until enough is gone."""
    import copy

    import torch_pruning as tp

    network = copy.deepcopy(context.teacher)
    for parameter in network.parameters():
        parameter.requires_grad_(True)
    images, labels = context.examples()
    for batch, wanted in zip(images.split(128), labels.split(128), strict=True):
        torch.nn.functional.cross_entropy(network(batch), wanted, reduction="sum").backward()
    example = images[:1]
    macs, _ = tp.utils.count_ops_and_params(network, example)
    pruner = tp.pruner.BasePruner(
        network,
        example,
        importance=tp.importance.GroupTaylorImportance(),
        global_pruning=True,
        pruning_ratio=0.9,
        iterative_steps=200,
        ignored_layers=[network.network.linear],
    )
    while tp.utils.count_ops_and_params(network, example)[0] > macs / reduction:
        pruner.step()
    for name, parameter in network.named_parameters():
        parameter.grad = None
        # Its shortcuts are fixed copies of channels, as they were.
        parameter.requires_grad_("shortcut" not in name)
    return train(network, LABELS, context).module


def _row(name: str, path: Path, folder: Path, control: Path) -> Row:
    dense = folder / "baseline.onnx"
    before, reference, after = measure(dense, "test"), measure(control, "test"), measure(path, "test")
    return Row(
        name,
        path.stat().st_size / 1024,
        path.stat().st_size / dense.stat().st_size,
        measure_cost(dense).macs / measure_cost(path).macs,
        100 * after.accuracy,
        100 * (after.accuracy - reference.accuracy),
        float(100 * (after.per_class - reference.per_class).min()),
        int((after.decided != before.decided).sum()),
        latency_ratio(dense, path, 1, 150),
        latency_ratio(dense, path, 64, 11),
    )


def _exported(module: nn.Module, path: Path) -> Path:
    export_onnx(module, SHAPE, path)
    return path


def _run_seed(seed: int, folder: Path) -> list[Row]:
    context = context_of(seed, folder)
    control = _exported(_dense(context), folder / f"control-{seed}.onnx")
    rows = [_row("control: dense, trained as long", control, folder, control)]

    def add(name: str, path: Path) -> None:
        rows.append(_row(name, path, folder, control))
        print(f"seed {seed}: {rows[-1]}", file=sys.stderr, flush=True)

    def with_int8(name: str, source: Path, make: Callable[[Path, Path], None]) -> None:
        path = source.with_suffix(".int8.onnx")
        make(source, path)
        add(f"{name} + int8", path)

    with_int8("dense", folder / "baseline.onnx", lambda a, b: quantize(a, b, INT8))
    peer = _exported(prune_with_torch_pruning(context, 2.0), folder / f"peer-{seed}.onnx")
    add("torch-pruning 2x", peer)
    with_int8("torch-pruning 2x", peer, quantize_with_onnxruntime)
    for index, (name, recipe) in enumerate(RECIPES.items()):
        module, _ = apply_recipe(context.teacher, recipe, context, name)
        path = _exported(module, folder / f"ours-{index}-{seed}.onnx")
        add(name, path)
        with_int8(name, path, lambda a, b: quantize(a, b, INT8))
    return rows


def _same_bytes(folder: Path) -> bool:
    digests = []
    for _ in range(2):
        context = context_of(0, folder)
        module, _ = apply_recipe(context.teacher, next(iter(RECIPES.values())), context, "repeat")
        source, path = _exported(module, folder / "repeat.onnx"), folder / "repeat.int8.onnx"
        quantize(source, path, INT8)
        digests.append(sha256_file(path))
    return digests[0] == digests[1]


def _print(rows: list[list[Row]]) -> None:
    print(
        "| ResNet-20, means of seeds | KB | of fp32 | MACs | accuracy | against control (each seed) "
        "| worst class against control | flips | latency b1 | b64 |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for entries in zip(*rows, strict=True):
        mean = {
            key: float(np.mean([getattr(entry, key) for entry in entries]))
            for key in ("kilobytes", "size", "macs", "accuracy", "change", "worst", "flips", "one", "many")
        }
        each = ", ".join(f"{entry.change:+.2f}" for entry in entries)
        print(
            f"| {entries[0].name} | {mean['kilobytes']:.0f} | {mean['size']:.3f} | {mean['macs']:.2f}x "
            f"| {mean['accuracy']:.2f} | {mean['change']:+.2f} ({each}) | {mean['worst']:+.1f} "
            f"| {mean['flips']:.0f} | {mean['one']:.2f} | {mean['many']:.2f} |"
        )


def main() -> int:
    """Print the table, and draw it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--repeat", action="store_true", help="make one file twice and compare")
    parser.add_argument("--picture", type=Path, help="write an SVG of accuracy against latency")
    options = parser.parse_args()
    if data_folder() is None:
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = [_run_seed(seed, folder) for seed in range(options.seeds)]
        _print(rows)
        if options.picture:
            points = [[(row.name, row.many, row.accuracy) for row in seed] for seed in rows]
            draw_picture(points, options.picture)
        if options.repeat:
            print(f"\nThe same file twice, byte for byte: {_same_bytes(folder)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
