# SPDX-License-Identifier: Apache-2.0
"""The prepared dataset: examples and their manifest, read back and checked."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from checks.canonical import read_json, sha256_bytes, sha256_file, sha256_value
from checks.errors import DataError
from pipeline.data.splits import SPLITS

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "COLUMNS",
    "MAX_EXAMPLES_BYTES",
    "Dataset",
    "Split",
    "content_digest",
    "data_digest",
    "read_dataset",
]

COLUMNS = ("id", "unit", "split", "label", "source", "license", "consent")
"""Columns of every manifest; slice columns follow."""

MAX_EXAMPLES_BYTES = 16 * 1024**3


@dataclass(frozen=True)
class Split:
    """One split, ready for a model.

    Attributes:
        ids: `(M,)` str.
        units: `(M,)` str.
        labels: `(M,)` int64, index into the classes.
        images: `(M, C, H, W)` float32 in raw pixel units, [0, pixel_max].
        columns: Slice column to `(M,)` str levels.
    """

    ids: npt.NDArray[np.str_]
    units: npt.NDArray[np.str_]
    labels: npt.NDArray[np.int64]
    images: npt.NDArray[np.float32]
    columns: Mapping[str, npt.NDArray[np.str_]]


@dataclass(frozen=True)
class Dataset:
    """All prepared examples.

    Attributes:
        columns: Each of `COLUMNS` and of the slice columns to `(N,)` str, in the manifest's order.
        pixels: `(N, C, H, W)` uint8, in the manifest's order.
        pixel_max: The value of a saturated pixel.
        classes: Names in the order of the models' outputs.
        slices: Names of the slice columns.
        sha256: Identifies examples and manifest together.
        sensitive: Those of the slice columns that no evidence but the restricted table may hold.
    """

    columns: Mapping[str, npt.NDArray[np.str_]]
    pixels: npt.NDArray[np.uint8]
    pixel_max: int
    classes: tuple[str, ...]
    slices: tuple[str, ...]
    sha256: str
    sensitive: tuple[str, ...] = ()

    @property
    def manifest(self) -> pd.DataFrame:
        """The columns as a table, one row an example."""
        import pandas as pd

        return pd.DataFrame({name: values.tolist() for name, values in self.columns.items()})

    def split(self, name: str) -> Split:
        """Return the examples of one split.

        Raises:
            DataError: if no example is in it.
        """
        rows = np.flatnonzero(self.columns["split"] == name)
        if len(rows) == 0:
            raise DataError(f"expected examples in split {name!r}, got none", where="manifest.parquet")
        index = {label: position for position, label in enumerate(self.classes)}
        return Split(
            ids=self.columns["id"][rows],
            units=self.columns["unit"][rows],
            labels=np.array([index[str(label)] for label in self.columns["label"][rows]], dtype=np.int64),
            images=self.pixels[rows].astype(np.float32),
            columns={column: self.columns[column][rows] for column in self.slices},
        )

    def digest(self, name: str) -> str:
        """Return the SHA-256 of the images and labels of one split."""
        rows = np.flatnonzero(self.columns["split"] == name)
        return content_digest(self.pixels[rows], self.columns["label"][rows].tolist())


def content_digest(pixels: npt.NDArray[np.uint8], labels: Sequence[str]) -> str:
    """Return the SHA-256 of images with their labels, whatever their order, ids, units and slices.

    Args:
        pixels: `(M, C, H, W)`.
        labels: `(M,)` names of the classes.
    """
    rows = sorted(
        f"{sha256_bytes(image.tobytes())} {json.dumps(str(label))}\n"
        for image, label in zip(pixels, labels, strict=True)
    )
    head = "x".join(str(size) for size in pixels.shape[1:])
    return sha256_bytes(f"{head}\n{''.join(rows)}".encode())


def data_digest(folder: Path) -> str:
    """Return the SHA-256 that identifies the examples and the manifest in `folder`."""
    return sha256_value({name: sha256_file(folder / name) for name in ("examples.npz", "manifest.parquet")})


def _read_pixels(path: Path) -> tuple[npt.NDArray[np.uint8], list[str]]:
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > MAX_EXAMPLES_BYTES:
            raise DataError(f"expected at most {MAX_EXAMPLES_BYTES} bytes, got {size}", where=str(path))
        with np.load(path, allow_pickle=False) as arrays:
            return arrays["pixels"], [str(value) for value in arrays["ids"]]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(
            f"expected examples, got {type(error).__name__}: {error}",
            where=str(path),
            hint="run `dvc repro prepare`",
        ) from error


def _read_manifest(path: Path) -> dict[str, npt.NDArray[np.str_]]:
    # Without pandas, whose import costs more than all else that most stages do with a manifest.
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            table = file.read()
        nulls = sorted(name for name in table.column_names if table.column(name).null_count)
        if nulls:
            raise DataError(f"expected a value in every row, got nulls in {nulls}", where=str(path))
        return {
            name: np.array([str(value) for value in table.column(name).to_pylist()], dtype=np.str_)
            for name in table.column_names
        }
    except (OSError, ValueError, pa.ArrowException) as error:
        text = " ".join(str(error).split())
        raise DataError(
            f"expected a manifest, got {text}", where=str(path), hint="run `dvc repro prepare`"
        ) from error


def _check(
    columns: Mapping[str, npt.NDArray[np.str_]], ids: list[str], facts: dict[str, Any], path: Path
) -> None:
    missing = [name for name in (*COLUMNS, *facts["slices"]) if name not in columns]
    if missing:
        raise DataError(
            f"expected columns {[*COLUMNS, *facts['slices']]}, got none named {missing}", where=str(path)
        )
    strangers = [name for name in facts.get("sensitive", ()) if name not in facts["slices"]]
    if strangers:
        raise DataError(
            f"expected sensitive columns among {facts['slices']}, got {strangers}",
            where=str(path.with_name("data.json")),
        )
    came = columns["id"].tolist()
    if came != ids:
        raise DataError("expected the ids of examples.npz in the same order, got others", where=str(path))
    if len(set(came)) != len(came):
        raise DataError("expected unique ids, got duplicates", where=str(path))
    for column, allowed in (("label", set(facts["classes"])), ("split", set(SPLITS))):
        unknown = sorted({str(value) for value in columns[column]} - allowed)
        if unknown:
            raise DataError(
                f"expected each {column} to be one of {sorted(allowed)}, got {unknown[:5]}", where=str(path)
            )


def read_dataset(folder: Path) -> Dataset:
    """Read what `prepare` wrote.

    Raises:
        DataError: if any file is missing, corrupt, or does not fit the others.
        EvidenceError: if `data.json` is not JSON.
    """
    facts = read_json(folder / "data.json")
    if not isinstance(facts, dict) or facts.get("schema") != "leangate/data/1":
        raise DataError("expected schema leangate/data/1", where=str(folder / "data.json"))
    absent = sorted({"classes", "pixel_max", "shape", "slices"} - facts.keys())
    if absent:
        raise DataError(f"expected {absent}, got none", where=str(folder / "data.json"))
    pixels, ids = _read_pixels(folder / "examples.npz")
    columns = _read_manifest(folder / "manifest.parquet")
    if pixels.dtype != np.uint8 or pixels.shape != (len(ids), *facts["shape"]):
        raise DataError(
            f"expected pixels ({len(ids)}, {facts['shape']}) of uint8, got {pixels.dtype} {pixels.shape}",
            where=str(folder / "examples.npz"),
        )
    _check(columns, ids, facts, folder / "manifest.parquet")
    return Dataset(
        columns=columns,
        pixels=pixels,
        pixel_max=int(facts["pixel_max"]),
        classes=tuple(facts["classes"]),
        slices=tuple(facts["slices"]),
        sha256=data_digest(folder),
        sensitive=tuple(facts.get("sensitive", ())),
    )
