# SPDX-License-Identifier: Apache-2.0
"""`leangate search` on ResNet-20, and what it found beside the peers' files.

    LEANGATE_BENCH_DATA=FOLDER python benchmarks/compression/search.py [--keep FOLDER]

Section `search` of benchmarks/cifar10/params.yaml says what is searched: 24 recipes, on the validation split.
Those of its front are then made anew, and looked at on the test split beside what onnxruntime and
torch-pruning make of the same network in as many epochs. A file is dominated by one that is no larger, no
slower and no less accurate. Takes about an hour on two cores, less than half of it the search.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cifar import SHAPE, context_of, latency_ratio, measure, quantize, quantize_with_onnxruntime
from compose import prune_with_torch_pruning
from project import ROOT, copy_repository, run

from pipeline.compress.configs import Pass
from pipeline.compress.recipe import apply_recipe
from pipeline.models.export import export_onnx
from pipeline.params import load_params
from pipeline.search.results import describe_passes

_SETTINGS = ROOT / "benchmarks" / "cifar10"


@dataclass(frozen=True)
class Row:
    """One file on the test split: its size and its time are shares of the float file's."""

    name: str
    size: float
    accuracy: float
    worst: float
    one: float
    many: float

    def dominates(self, other: Row) -> bool:
        """Whether this one is no larger, slower or less accurate."""
        smaller = self.size <= other.size and self.one <= other.one and self.many <= other.many
        return smaller and self.accuracy >= other.accuracy


def _search(folder: Path, data: Path) -> dict[str, Any]:
    """Search in a copy of the repository, and return what was found."""
    done = folder / "artifacts" / "search" / "trials.json"
    if done.exists():
        print(f"taken from {done}", file=sys.stderr)
        return dict(json.loads(done.read_text()))
    copy_repository(folder)
    for name in ("params.yaml", "policy.yaml"):
        shutil.copy(_SETTINGS / name, folder / name)
    weights = folder / "benchmarks" / "cifar10" / "baseline.safetensors"
    shutil.copy(data / "cifar10" / "resnet20-tuned.safetensors", weights)
    for command in (["-m", "dvc", "repro", "train"], ["-m", "leangate", "search", "--jobs", "2"]):
        usage = run(command, folder, LEANGATE_BENCH_DATA=str(data.resolve()))
        print(f"{' '.join(command[1:])}: {usage.wall / 60:.1f} minutes, exit code {usage.code}")
        if usage.code:
            raise SystemExit(usage.output)
    print(usage.output)
    return dict(json.loads(done.read_text()))


def _row(name: str, path: Path, dense: Path) -> Row:
    before, after = measure(dense, "test"), measure(path, "test")
    return Row(
        name,
        path.stat().st_size / dense.stat().st_size,
        100 * after.accuracy,
        float(100 * (after.per_class - before.per_class).min()),
        latency_ratio(dense, path, 1, 150),
        latency_ratio(dense, path, 64, 11),
    )


def _found(found: dict[str, Any], folder: Path) -> Iterator[Row]:
    """Make every recipe of the front, and measure it."""
    recipes = load_params(_SETTINGS / "params.yaml").quantize.recipes
    context = context_of(0, folder)
    for trial in found["trials"]:
        if trial["on_front"]:
            recipe, path = trial["recipe"], folder / f"trial-{trial['trial']}.onnx"
            entries = [Pass.model_validate_json(json.dumps(entry)) for entry in recipe["passes"]]
            module, _ = apply_recipe(context.teacher, entries, context, path.stem)
            export_onnx(module, SHAPE, path)
            made = path.with_suffix(".made.onnx")
            quantize(path, made, recipes[recipe["precision"]], folder / "baseline.onnx")
            name = f"{trial['trial']}: {describe_passes(recipe)}; {recipe['precision']}"
            yield _row(name, made, folder / "baseline.onnx")


def _peers(folder: Path) -> Iterator[Row]:
    """Make what the peers make, with as many epochs."""
    context = context_of(0, folder)
    dense = folder / "baseline.onnx"
    for name, unsigned in (("defaults", False), ("uint8 x int8 a channel", True)):
        path = folder / f"onnxruntime-{unsigned}.onnx"
        quantize_with_onnxruntime(dense, path, unsigned=unsigned)
        yield _row(f"onnxruntime static, {name}", path, dense)
    pruned, both = folder / "torch-pruning.onnx", folder / "torch-pruning.int8.onnx"
    export_onnx(prune_with_torch_pruning(context, 2.0), SHAPE, pruned)
    yield _row("torch-pruning 2x", pruned, dense)
    quantize_with_onnxruntime(pruned, both)
    yield _row("torch-pruning 2x, onnxruntime static", both, dense)


def _print(rows: list[Row], others: list[Row]) -> None:
    print("| file | of fp32 | accuracy | worst class | latency b1 | b64 | dominated by |")
    print("|---|---|---|---|---|---|---|")
    for row in [*rows, *others]:
        better = [entry.name.split(":")[0] for entry in rows if row in others and entry.dominates(row)]
        print(
            f"| {row.name} | {row.size:.3f} | {row.accuracy:.2f} | {row.worst:+.1f} | {row.one:.2f} "
            f"| {row.many:.2f} | {', '.join(better)} |"
        )


def main() -> int:
    """Search, and print what was found beside the peers' files."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--keep", type=Path, help="search in this folder and keep it; take what it found")
    options = parser.parse_args()
    data = os.environ.get("LEANGATE_BENCH_DATA")
    if not data:
        print("skipped: LEANGATE_BENCH_DATA is not set", file=sys.stderr)
        return 0
    with tempfile.TemporaryDirectory() as name:
        project, files = options.keep or Path(name) / "project", Path(name) / "files"
        project.mkdir(parents=True, exist_ok=True)
        files.mkdir()
        found = _search(project, Path(data))
        _print(list(_found(found, files)), list(_peers(files)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
