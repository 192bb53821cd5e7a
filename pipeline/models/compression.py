# SPDX-License-Identifier: Apache-2.0
"""`compression.json`: how one ONNX file was made, pass by pass, and what each pass left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from checks.canonical import read_json, sha256_file
from checks.errors import ModelError
from pipeline.files import write_json

__all__ = ["COMPRESSION", "LEFT", "left_of", "read_passes", "write_passes"]

COMPRESSION = "compression.json"
"""Name of the file, beside `model.onnx`."""

SCHEMA = "leangate/compression/1"

LEFT = (
    "macs",
    "parameters",
    "sparsity",
    "bytes",
    "gzip_bytes",
    "validation_accuracy",
    "validation_loss",
)
"""What is measured of the ONNX file after every pass."""

_HINT = "the file was changed after it was made; run `dvc repro`"


def left_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a pass left, of the content of `model.json`."""
    return {key: record[key] for key in LEFT}


def write_passes(folder: Path, record: Mapping[str, Any], passes: Sequence[Mapping[str, Any]]) -> None:
    """Write `compression.json` into `folder`.

    Args:
        folder: Where `model.onnx` lies.
        record: Content of its `model.json`.
        passes: What was done, in order: `pass`, `options`, figures of its own, and what it `left`.
    """
    content = {"schema": SCHEMA, "name": record["name"], "sha256": record["sha256"], "passes": list(passes)}
    write_json(folder / COMPRESSION, content)


def read_passes(folder: Path) -> list[dict[str, Any]]:
    """Read the passes in `folder`, and check that `model.onnx` beside them is the file they made.

    Raises:
        ModelError: if the file is of another schema, tells of other bytes, or holds no passes.
        EvidenceError: if it is missing or not JSON.
    """
    path = folder / COMPRESSION
    value = read_json(path)
    if not isinstance(value, dict) or value.get("schema") != SCHEMA:
        raise ModelError(f"expected schema {SCHEMA}", where=str(path), hint="run `dvc repro`")
    came = sha256_file(folder / "model.onnx")
    if value.get("sha256") != came:
        raise ModelError(
            f"expected the passes of model.onnx with SHA-256 {came}, got those of {value.get('sha256')}",
            where=str(path),
            hint=_HINT,
        )
    passes = value.get("passes")
    if not isinstance(passes, list) or not all(isinstance(entry, dict) for entry in passes):
        raise ModelError("expected a list of passes", where=f"{path} passes", hint=_HINT)
    return passes
