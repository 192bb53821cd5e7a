# SPDX-License-Identifier: Apache-2.0
"""`model.json` read back, with the files it describes checked against it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

from checks.canonical import read_json, sha256_file
from checks.errors import ModelError
from checks.evidence import Output

__all__ = ["SCHEMA", "read_record"]

SCHEMA = "leangate/model/1"


def read_record(folder: Path) -> dict[str, Any]:
    """Read `model.json` in `folder` and check that `model.onnx` beside it is the file it describes.

    Raises:
        ModelError: if the file is of another schema, describes other bytes, or does not say what they answer.
        EvidenceError: if it is not JSON.
    """
    path = folder / "model.json"
    record = read_json(path)
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        raise ModelError(f"expected schema {SCHEMA}", where=str(path))
    if record.get("output") not in get_args(Output):
        raise ModelError(
            f"expected output among {list(get_args(Output))}, got {record.get('output')!r}",
            where=str(path),
            hint="run `dvc repro`",
        )
    for file, key in (("model.onnx", "sha256"), ("weights.safetensors", "weights_sha256")):
        if file != "model.onnx" and (record.get(key) is None or not (folder / file).exists()):
            continue
        came = sha256_file(folder / file)
        if record.get(key) != came:
            raise ModelError(
                f"expected {file} with SHA-256 {record.get(key)}, got {came}",
                where=str(folder),
                hint="the file was changed after it was made; run `dvc repro`",
            )
    return record
