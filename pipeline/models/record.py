# SPDX-License-Identifier: Apache-2.0
"""`model.json`: what one ONNX file is, what it costs, and how it was made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from checks.canonical import read_json, sha256_file
from checks.errors import ModelError
from pipeline.data.dataset import Dataset
from pipeline.models.cost import measure_cost
from pipeline.probes.session import open_session, predict

__all__ = ["measure_on_validation", "read_record", "record_model"]

SCHEMA = "leangate/model/1"


def measure_on_validation(path: Path, dataset: Dataset, batch_size: int = 256) -> tuple[float, float]:
    """Measure the ONNX file on the validation split.

    Returns:
        The share it gets right, and its mean cross-entropy in nats.

    Raises:
        ModelError: if a score is NaN or infinite.
    """
    split = dataset.split("validation")
    scores = predict(open_session(path), split.images, batch_size).astype(np.float64)
    if not np.isfinite(scores).all():
        raise ModelError(
            "expected finite scores on the validation split, got NaN or infinity", where=path.name
        )
    shifted = scores - scores.max(axis=1, keepdims=True)
    log_shares = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    loss = -log_shares[np.arange(len(split.labels)), split.labels].mean()
    return float(np.mean(scores.argmax(axis=1) == split.labels)), float(loss)


def record_model(path: Path, name: str, dataset: Dataset, passes: list[dict[str, Any]]) -> dict[str, Any]:
    """Describe the ONNX file at `path`.

    Args:
        path: The file.
        name: `baseline`, a variant, or `<variant>-<precision>`.
        dataset: Gives shape, classes and the validation split.
        passes: What was done so far, in order, each with its resolved options.

    Returns:
        The content of `model.json`.
    """
    cost = measure_cost(path)
    accuracy, loss = measure_on_validation(path, dataset)
    return {
        "schema": SCHEMA,
        "name": name,
        "sha256": sha256_file(path),
        "bytes": cost.bytes,
        "gzip_bytes": cost.gzip_bytes,
        "macs": cost.macs,
        "parameters": cost.parameters,
        "pixel_max": dataset.pixel_max,
        "shape": [int(size) for size in dataset.pixels.shape[1:]],
        "classes": list(dataset.classes),
        "passes": passes,
        "validation_accuracy": accuracy,
        "validation_loss": loss,
    }


def read_record(folder: Path) -> dict[str, Any]:
    """Read `model.json` in `folder` and check that `model.onnx` beside it is the file it describes.

    Raises:
        ModelError: if the file is of another schema or describes other bytes.
        EvidenceError: if it is not JSON.
    """
    path = folder / "model.json"
    record = read_json(path)
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        raise ModelError(f"expected schema {SCHEMA}", where=str(path))
    came = sha256_file(folder / "model.onnx")
    if record.get("sha256") != came:
        raise ModelError(
            f"expected model.onnx with SHA-256 {record.get('sha256')}, got {came}",
            where=str(folder),
            hint="the file was changed after it was made; run `dvc repro`",
        )
    return record
