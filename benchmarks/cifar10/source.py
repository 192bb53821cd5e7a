# SPDX-License-Identifier: Apache-2.0
"""CIFAR-10 (Krizhevsky 2009) from the folder that `LEANGATE_BENCH_DATA` names; nothing is copied here."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np

from pipeline.data.source import SourceExamples

CALIBRATION, VALIDATION = 512, 5000


def cifar10() -> SourceExamples:
    """Return the 60,000 images; calibration and validation are drawn from the training images."""
    import pyarrow.parquet as pq
    from PIL import Image

    folder = Path(os.environ["LEANGATE_BENCH_DATA"]) / "cifar10"
    tables = {name: pq.read_table(folder / f"{name}.parquet").to_pydict() for name in ("train", "test")}
    pixels, ids, labels, splits = [], [], [], []
    for name, table in tables.items():
        rows = len(table["id"])
        for data in table["image"]:
            with Image.open(io.BytesIO(data["bytes"] if isinstance(data, dict) else data)) as image:
                pixels.append(np.asarray(image.convert("RGB")).transpose(2, 0, 1))
        ids += [f"{name}-{value}" for value in table["id"]]
        labels += [str(value) for value in table["class"]]
        splits += ["test"] * rows if name == "test" else _training_splits(rows)
    brightness = np.stack(pixels).mean(axis=(1, 2, 3))
    outside_test = np.array([split != "test" for split in splits])
    edges = np.quantile(brightness[outside_test], [1 / 3, 2 / 3])
    levels = np.array(["dark", "medium", "bright"])[np.searchsorted(edges, brightness)]
    return SourceExamples(
        ids=ids,
        pixels=np.stack(pixels),
        pixel_max=255,
        labels=labels,
        source="CIFAR-10, Krizhevsky 2009",
        license="LicenseRef-CIFAR-10",
        consent="unknown",
        splits=splits,
        columns={"brightness": levels.tolist()},
    )


def _training_splits(rows: int) -> list[str]:
    # Drawn, not cut off: the file is sorted by class.
    order = np.random.default_rng(0).permutation(rows)
    splits = np.full(rows, "train", dtype=object)
    splits[order[:CALIBRATION]] = "calibration"
    splits[order[CALIBRATION : CALIBRATION + VALIDATION]] = "validation"
    return [str(split) for split in splits]
