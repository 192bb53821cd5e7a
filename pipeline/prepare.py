# SPDX-License-Identifier: Apache-2.0
"""prepare: source data to examples and manifest."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from checks.canonical import sha256_bytes, sha256_file
from checks.errors import DataError
from pipeline.data.dataset import COLUMNS, content_digest
from pipeline.data.slices import FORMULAS, LEVELS, measure_slices, tercile_edges, tercile_levels
from pipeline.data.source import SourceExamples, read_source
from pipeline.data.splits import SPLITS, split_units
from pipeline.files import output_dir, write_json
from pipeline.layout import Layout
from pipeline.params import Params, Prepare

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["run"]


def _column(value: str | Sequence[str], count: int, name: str) -> list[str]:
    """One text an example; a null would otherwise become the text "None" and look like a value."""
    entries = [value] * count if isinstance(value, str) else list(value)
    for row, entry in enumerate(entries):
        if entry is None or (isinstance(entry, float) and math.isnan(entry)) or str(entry) == "":
            raise DataError(
                f"row {row}: expected a value in {name}, got {entry!r}", where="params.yaml prepare.source"
            )
    return [str(entry) for entry in entries]


def _units(examples: SourceExamples) -> list[str]:
    """Units of the examples: those of the source, and identical images are always one unit."""
    named = _column(
        examples.units if examples.units is not None else examples.ids, len(examples.ids), "units"
    )
    merged: dict[str, str] = {unit: unit for unit in named}

    def root(unit: str) -> str:
        while merged[unit] != unit:
            merged[unit] = merged[merged[unit]]
            unit = merged[unit]
        return unit

    first: dict[str, str] = {}
    for image, unit in zip(examples.pixels, named, strict=True):
        # Two units that share an image are one, and so is every unit that shares one with either.
        twin = root(first.setdefault(sha256_bytes(image.tobytes()), unit))
        merged[root(unit)] = twin
    return [root(unit) for unit in named]


def _splits(examples: SourceExamples, units: list[str], params: Prepare, seed: int) -> list[str]:
    if params.splits is not None and examples.splits is not None:
        raise DataError(
            "expected null, got shares, but the source names splits of its own",
            where="params.yaml prepare.splits",
            hint="null keeps the source's splits; remove them from the source to split anew",
        )
    if params.splits is not None:
        return split_units(units, list(examples.labels), params.splits.model_dump(), seed)
    if examples.splits is None:
        raise DataError(
            "expected shares of the splits, got null, and the source names no splits",
            where="params.yaml prepare.splits",
        )
    unknown = sorted(set(examples.splits) - set(SPLITS))
    if unknown:
        raise DataError(
            f"expected splits named {list(SPLITS)}, got {unknown[:5]}, the first in row "
            f"{examples.ids[list(examples.splits).index(unknown[0])]}",
            where=f"params.yaml prepare.source ({params.source})",
        )
    return list(examples.splits)


def _described(columns: Mapping[str, Any]) -> str:
    return (
        f"one of the source's columns {sorted(columns)}"
        if columns
        else "a column, of which the source has none,"
    )


def _slice_columns(
    examples: SourceExamples, splits: list[str], names: Sequence[str]
) -> tuple[dict[str, list[str]], dict[str, Any]]:
    """Slice columns, and how each came about."""
    # Edges never look at the test split: a slice must not be drawn around its outcome.
    outside_test = np.array([split != "test" for split in splits])
    measured = measure_slices(examples.pixels, examples.pixel_max)
    columns: dict[str, list[str]] = {}
    origins: dict[str, Any] = {}
    for name in names:
        if name in examples.columns:
            columns[name] = _column(examples.columns[name], len(examples.ids), name)
            origins[name] = {"from": "source", "levels": sorted(set(columns[name]))}
        elif name in measured:
            if not outside_test.any():
                raise DataError(
                    "expected examples outside the test split, got none", where="params.yaml prepare.slices"
                )
            edges = tercile_edges(measured[name][outside_test])
            columns[name] = tercile_levels(measured[name], edges, LEVELS[name])
            origins[name] = {
                "from": "pixels",
                "formula": FORMULAS[name],
                "edges": list(edges),
                "levels": LEVELS[name],
            }
        else:
            raise DataError(
                f"expected {_described(examples.columns)} or one of {sorted(measured)}, which are measured, "
                f"got {name!r}",
                where="params.yaml prepare.slices",
                hint="a source's other columns may be slices; prepare.source says which source",
            )
    return columns, origins


def _classes(labels: Sequence[str], ids: Sequence[str], params: Prepare) -> list[str]:
    classes = list(params.classes) if params.classes is not None else sorted(set(labels))
    outside = sorted(set(labels) - set(classes))
    if outside:
        row = ids[list(labels).index(outside[0])]
        raise DataError(
            f"expected labels among {classes}, got {outside[:5]}, the first in row {row}",
            where="params.yaml prepare.classes",
            hint="add the class, or remove the rows",
        )
    if len(classes) < 2 or len(set(classes)) != len(classes):
        raise DataError(
            f"expected at least two distinct classes, got {classes}", where="params.yaml prepare.classes"
        )
    return classes


def _sources(manifest: pd.DataFrame) -> list[dict[str, Any]]:
    counts = Counter(zip(manifest["source"], manifest["license"], manifest["consent"], strict=True))
    return [
        {"source": source, "license": license_, "consent": consent, "rows": rows}
        for (source, license_, consent), rows in sorted(counts.items())
    ]


def _write(folder: Path, examples: SourceExamples, manifest: pd.DataFrame, facts: dict[str, Any]) -> None:
    np.savez_compressed(
        folder / "examples.npz", pixels=examples.pixels, ids=np.array(manifest["id"].tolist(), dtype=np.str_)
    )
    manifest.to_parquet(folder / "manifest.parquet", index=False)
    digests = {
        "examples_sha256": sha256_file(folder / "examples.npz"),
        "manifest_sha256": sha256_file(folder / "manifest.parquet"),
    }
    write_json(folder / "data.json", facts | digests)


def _hide(layout: Layout, manifest: pd.DataFrame) -> dict[str, Any]:
    """Put pseudonyms in place of ids and units; names and salts are written down first."""
    from pipeline.data.pseudonyms import read_pseudonyms, write_pseudonyms

    pseudonyms = read_pseudonyms(layout.pseudonyms)
    manifest["id"] = pseudonyms.of("example", manifest["id"].tolist())
    manifest["unit"] = pseudonyms.of("unit", manifest["unit"].tolist())
    write_pseudonyms(layout.pseudonyms, pseudonyms)
    return {"pseudonyms": pseudonyms.digest()}


def run(layout: Layout, params: Params) -> None:
    """Write `examples.npz`, `manifest.parquet` and `data.json`.

    Raises:
        DataError: naming the row or the key, if the source gives anything unusable.
    """
    import pandas as pd

    examples = read_source(params.prepare, layout.root)
    count = len(examples.pixels)
    units = _units(examples)
    splits = _splits(examples, units, params.prepare, params.seed)
    slices, origins = _slice_columns(examples, splits, params.prepare.slices)
    clash = sorted(set(slices) & set(COLUMNS))
    if clash:
        raise DataError(
            f"expected slice columns other than {list(COLUMNS)}, got {clash}",
            where="params.yaml prepare.slices",
        )
    values = {
        "id": _column(examples.ids, count, "ids"),
        "unit": units,
        "split": splits,
        "label": _column(examples.labels, count, "labels"),
        "source": _column(examples.source, count, "source"),
        "license": _column(examples.license, count, "license"),
        "consent": _column(examples.consent, count, "consent"),
        **slices,
    }
    manifest = pd.DataFrame(values, dtype="str")
    duplicated = manifest["id"][manifest["id"].duplicated()].unique().tolist()
    if duplicated:
        raise DataError(
            f"expected unique ids, got {duplicated[:5]} more than once",
            where=f"params.yaml prepare.source ({params.prepare.source})",
        )
    tested = [row for row, split in enumerate(splits) if split == "test"]
    classes = _classes(values["label"], values["id"], params.prepare)
    hidden = _hide(layout, manifest) if params.prepare.pseudonyms else {}
    facts = {
        "schema": "leangate/data/1",
        **hidden,
        **({"sensitive": list(params.prepare.sensitive)} if params.prepare.sensitive else {}),
        "classes": classes,
        "pixel_max": int(examples.pixel_max),
        "shape": [int(size) for size in examples.pixels.shape[1:]],
        "rows": count,
        "slices": list(params.prepare.slices),
        "slice_origins": origins,
        "sources": _sources(manifest),
        "splits": {name: splits.count(name) for name in SPLITS},
        "test_sha256": content_digest(examples.pixels[tested], [values["label"][row] for row in tested]),
    }
    with output_dir(layout.data) as folder:
        _write(folder, examples, manifest, facts)
