# SPDX-License-Identifier: Apache-2.0
"""`model.json`: what one ONNX file is, what it costs, and how right it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from checks.canonical import sha256_file
from checks.errors import EvidenceError, ModelError
from checks.evidence import Output, expect_probabilities
from pipeline.data.dataset import Dataset
from pipeline.models.cost import measure_cost
from pipeline.models.record import SCHEMA
from pipeline.models.sparsity import measure_sparsity
from pipeline.probes.session import open_session, predict

__all__ = ["measure_file", "measure_on_validation", "record_model"]


def _log_shares(scores: npt.NDArray[np.float64], output: Output) -> npt.NDArray[np.float64]:
    if output == "probabilities":
        return np.log(np.maximum(scores, np.finfo(np.float32).tiny))
    shifted = scores - scores.max(axis=1, keepdims=True)
    shares: npt.NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return shares


def measure_on_validation(
    path: Path, dataset: Dataset, batch_size: int = 256, *, output: Output = "logits"
) -> tuple[float, float]:
    """Measure the ONNX file on the validation split.

    Args:
        path: The file.
        dataset: Gives the validation split.
        batch_size: Images a call.
        output: Whether the file answers `logits` or `probabilities`.

    Returns:
        The share it gets right, and its mean cross-entropy in nats.

    Raises:
        ModelError: if a score is NaN or infinite, or what is called a probability is none.
    """
    split = dataset.split("validation")
    scores = predict(open_session(path), split.images, batch_size).astype(np.float64)
    if not np.isfinite(scores).all():
        raise ModelError(
            "expected finite scores on the validation split, got NaN or infinity", where=path.name
        )
    if output == "probabilities":
        try:
            expect_probabilities(scores, split.ids, path.name)
        except EvidenceError as error:
            raise ModelError(error.what, where=error.where, hint=error.hint) from error
    loss = -_log_shares(scores, output)[np.arange(len(split.labels)), split.labels].mean()
    return float(np.mean(scores.argmax(axis=1) == split.labels)), float(loss)


def measure_file(path: Path, dataset: Dataset, *, output: Output = "logits") -> dict[str, Any]:
    """Measure what a pass left: what the ONNX file costs, how sparse it is, and how right on validation.

    Args:
        path: The file.
        dataset: Gives the validation split.
        output: Whether the file answers `logits` or `probabilities`.

    Returns:
        The figures that `pipeline.models.compression.LEFT` names.
    """
    cost = measure_cost(path)
    accuracy, loss = measure_on_validation(path, dataset, output=output)
    return {
        "macs": cost.macs,
        "parameters": cost.parameters,
        "sparsity": measure_sparsity(path),
        "bytes": cost.bytes,
        "gzip_bytes": cost.gzip_bytes,
        "validation_accuracy": accuracy,
        "validation_loss": loss,
    }


def record_model(path: Path, name: str, dataset: Dataset, *, output: Output = "logits") -> dict[str, Any]:
    """Describe the ONNX file at `path`.

    Args:
        path: The file.
        name: `baseline`, a variant, or `<variant>-<precision>`.
        dataset: Gives shape, classes and the validation split.
        output: Whether the file answers `logits` or `probabilities`: `model.output` in params.yaml.

    Returns:
        The content of `model.json`.
    """
    weights = path.parent / "weights.safetensors"
    return {
        "schema": SCHEMA,
        "name": name,
        "sha256": sha256_file(path),
        "weights_sha256": sha256_file(weights) if weights.exists() else None,
        "pixel_max": dataset.pixel_max,
        "shape": [int(size) for size in dataset.pixels.shape[1:]],
        "classes": list(dataset.classes),
        "output": output,
        **measure_file(path, dataset, output=output),
    }
