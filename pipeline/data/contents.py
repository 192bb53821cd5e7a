# SPDX-License-Identifier: Apache-2.0
"""What lies in the folder of the prepared data, read file by file so that one bad file hides no other.

`read_dataset` refuses at the first thing that is wrong, as every stage behind `validate` needs it. The
validation has to name everything that is wrong, so it reads each file on its own and records a finding
where a file cannot be read.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from checks.canonical import dumps, read_json, sha256_file
from checks.errors import EvidenceError, StorageError
from pipeline.data.dataset import COLUMNS, MAX_EXAMPLES_BYTES, data_digest
from pipeline.data.findings import DataFinding, count_of, escape_unprintable, name_some

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

__all__ = ["DESCRIPTION", "EXAMPLES", "MANIFEST", "Contents", "Description", "read_contents"]

DESCRIPTION = "data.json"
MANIFEST = "manifest.parquet"
EXAMPLES = "examples.npz"

MAX_MANIFEST_ROWS = 10_000_000
MAX_MANIFEST_BYTES = 4 * 1024**3
MAX_COLUMNS = 256
MAX_TEXT_LENGTH = 4096

HINT = "run `dvc repro prepare` to write the data again"


@dataclass(frozen=True)
class Description:
    """`data.json`: what `prepare` says it wrote.

    Attributes:
        classes: At least two distinct class names.
        slices: Names of the slice columns.
        pixel_max: The value of a saturated pixel, in [1, 255].
        shape: `(C, H, W)` of every image.
        rows: Number of examples, >= 1.
        facts: The whole file.
    """

    classes: tuple[str, ...]
    slices: tuple[str, ...]
    pixel_max: int
    shape: tuple[int, int, int]
    rows: int
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Contents:
    """What could be read; None stands for what could not, and `findings` says why.

    Attributes:
        description: `data.json`.
        manifest: `manifest.parquet`, every column object: str, or None for a null or blank value.
        unreadable_columns: Columns of the manifest that hold something other than short text, and what;
            in `manifest` they are None throughout.
        ids: `(N,)` ids in `examples.npz`.
        pixels: Pixels in `examples.npz`, of whatever shape and type they are.
        sha256: Digest of each file that is there, by name.
        data_sha256: Identifies examples and manifest together, or None.
        findings: One for each file, and one for the text of the manifest.
    """

    description: Description | None
    manifest: pd.DataFrame | None
    unreadable_columns: Mapping[str, str]
    ids: tuple[str, ...] | None
    pixels: npt.NDArray[Any] | None
    sha256: Mapping[str, str]
    data_sha256: str | None
    findings: tuple[DataFinding, ...]

    def missing(self, *columns: str) -> list[str]:
        """Return those columns that the manifest does not hold as text; all if it cannot be read."""
        if self.manifest is None:
            return list(columns)
        held = set(self.manifest.columns) - set(self.unreadable_columns)
        return [name for name in columns if name not in held]


def _texts(value: Any, key: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(entry, str) and entry.strip() for entry in value):
        raise ValueError(f"{key}: expected a list of texts")
    if len(set(value)) != len(value):
        raise ValueError(f"{key}: expected distinct texts, got {name_some(value)}")
    return tuple(value)


def _integer(value: Any, key: str, low: int, high: int) -> int:
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"{key}: expected a whole number from {low} to {high}, got {value!r:.80}")
    return value


def _parse_description(facts: Any) -> Description:
    if not isinstance(facts, dict) or facts.get("schema") != "leangate/data/1":
        raise ValueError("schema: expected leangate/data/1")
    dumps(facts).encode()  # what cannot be written again (lone surrogates) must not come further than here
    classes = _texts(facts.get("classes"), "classes")
    if len(classes) < 2:
        raise ValueError(f"classes: expected at least two, got {len(classes)}")
    shape = facts.get("shape")
    if not isinstance(shape, list) or len(shape) != 3:
        raise ValueError(f"shape: expected [C, H, W], got {shape!r:.80}")
    channels, height, width = (_integer(size, "shape", 1, 2**20) for size in shape)
    slices = _texts(facts.get("slices"), "slices")
    if set(slices) & set(COLUMNS):
        raise ValueError(
            f"slices: expected names other than {name_some(COLUMNS, limit=20)}, got {name_some(slices)}"
        )
    strangers = set(_texts(facts.get("sensitive", []), "sensitive")) - set(slices)
    if strangers:
        raise ValueError(f"sensitive: expected names of slices, got {name_some(sorted(strangers))}")
    return Description(
        classes=classes,
        slices=slices,
        pixel_max=_integer(facts.get("pixel_max"), "pixel_max", 1, 255),
        shape=(channels, height, width),
        rows=_integer(facts.get("rows"), "rows", 1, MAX_MANIFEST_ROWS),
        facts=facts,
    )


def _read_description(path: Path) -> tuple[Description | None, str]:
    try:
        description = _parse_description(read_json(path))
    except EvidenceError as error:
        return None, error.what
    except ValueError as error:
        return None, str(error)
    return description, f"{count_of(len(description.classes), 'class', 'classes')}, {description.rows} rows"


def _is_text(kind: pa.DataType) -> bool:
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind))


def _text_values(column: pa.ChunkedArray) -> npt.NDArray[np.object_]:
    """Values of one dictionary-encoded text column; equal values share one object, so size stays bounded."""
    import pyarrow as pa

    if pa.types.is_null(column.type):
        return np.full(len(column), None, dtype=np.object_)
    array = column.unify_dictionaries().combine_chunks()
    texts = array.dictionary.to_pylist()
    longest = max((len(text) for text in texts if text is not None), default=0)
    if longest > MAX_TEXT_LENGTH:
        raise ValueError(f"text of {longest} characters")
    # A blank value says as little as a null, so that it is judged like one.
    lookup = np.array([text if text and text.strip() else None for text in [*texts, None]], dtype=np.object_)
    codes = array.indices.to_numpy(zero_copy_only=False)
    if array.null_count:
        codes = np.where(np.isnan(codes), len(texts), codes)
    return np.asarray(lookup[codes.astype(np.int64)], dtype=np.object_)


def _read_manifest(path: Path) -> tuple[pd.DataFrame, dict[str, str]]:
    import pandas as pd
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        facts, schema = file.metadata, file.schema_arrow
        size = sum(facts.row_group(group).total_byte_size for group in range(facts.num_row_groups))
        if facts.num_rows > MAX_MANIFEST_ROWS or size > MAX_MANIFEST_BYTES or len(schema) > MAX_COLUMNS:
            raise ValueError(f"{facts.num_rows} rows, {len(schema)} columns, {size} bytes: too large")
        kinds = {name: str(schema.types[position]) for position, name in enumerate(schema.names)}
        if len(kinds) != len(schema.names):
            raise ValueError(f"a column name twice among {name_some(schema.names, limit=20)}")
        text = [name for name in schema.names if _is_text(schema.field(name).type)]
    # Read as dictionaries, a value that is repeated a million times is held once. Other columns are not
    # decoded at all: nested lists may hold any number of values in a row.
    with pq.ParquetFile(path, read_dictionary=text) as file:
        table = file.read(columns=text)
    columns: dict[str, npt.NDArray[np.object_]] = {}
    unreadable: dict[str, str] = {}
    for name, kind in kinds.items():
        columns[name] = np.full(facts.num_rows, None, dtype=np.object_)
        try:
            if name in text:
                columns[name] = _text_values(table.column(name))
            else:
                unreadable[name] = kind
        except ValueError as error:
            unreadable[name] = escape_unprintable(str(error))
    return pd.DataFrame(columns, index=pd.RangeIndex(facts.num_rows), dtype=object), unreadable


def _read_examples(path: Path) -> tuple[tuple[str, ...], npt.NDArray[Any]]:
    with zipfile.ZipFile(path) as archive:
        size = sum(member.file_size for member in archive.infolist())
    if size > MAX_EXAMPLES_BYTES:
        raise ValueError(f"{size} bytes: too large")
    with np.load(path, allow_pickle=False) as arrays:
        missing = [name for name in ("pixels", "ids") if name not in arrays.files]
        if missing:
            raise ValueError(f"no array named {name_some(missing)}")
        ids, pixels = arrays["ids"], arrays["pixels"]
    if ids.dtype.kind != "U" or ids.ndim != 1:
        raise ValueError(f"ids of {ids.dtype} {ids.shape}")
    names = tuple(str(value) for value in ids)
    "".join(names).encode()  # refuses lone surrogates, which no report could be written with
    return names, pixels


def _digest(path: Path) -> str | None:
    try:
        return sha256_file(path)
    except StorageError:
        return None


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return escape_unprintable(f"{type(error).__name__}: {' '.join(str(error).split())}")[:300]


def _text_finding(manifest: pd.DataFrame, unreadable: Mapping[str, str]) -> DataFinding:
    came = "; ".join(f"column {name!r:.80} of {kind}" for name, kind in sorted(unreadable.items()))
    return DataFinding(
        "manifest-text",
        not unreadable,
        MANIFEST,
        f"columns of text, at most {MAX_TEXT_LENGTH} characters a value",
        came or f"{count_of(len(manifest.columns), 'column')} of text",
        hint="write every column of the manifest as text",
    )


def read_contents(folder: Path) -> Contents:
    """Read every file of `folder`, as far as it can be read; this never raises over what is in them.

    Args:
        folder: Holds `data.json`, `manifest.parquet` and `examples.npz`, of any content.
    """
    import pyarrow as pa

    unreadable_errors = (OSError, ValueError, KeyError, EOFError, MemoryError, NotImplementedError)
    findings: list[DataFinding] = []

    def record(check: str, file: str, expected: str, came: str, *, passed: bool) -> None:
        findings.append(DataFinding(check, passed, file, expected, came, hint=HINT))

    description, came = _read_description(folder / DESCRIPTION)
    record(
        "description-readable", DESCRIPTION, "a description of the data", came, passed=description is not None
    )
    manifest, unreadable = None, dict[str, str]()
    try:
        manifest, unreadable = _read_manifest(folder / MANIFEST)
        came = f"{len(manifest)} rows, {count_of(len(manifest.columns), 'column')}"
    except (*unreadable_errors, pa.ArrowException) as error:
        came = _reason(error)
    record("manifest-readable", MANIFEST, "a readable Parquet file", came, passed=manifest is not None)
    if manifest is not None:
        findings.append(_text_finding(manifest, unreadable))
    ids, pixels = None, None
    try:
        ids, pixels = _read_examples(folder / EXAMPLES)
        came = f"{count_of(len(ids), 'id')}, pixels {pixels.dtype} {pixels.shape}"
    except (*unreadable_errors, zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error) as error:
        came = _reason(error)
    record(
        "examples-readable", EXAMPLES, "a readable .npz file without objects", came, passed=ids is not None
    )
    digests = {name: _digest(folder / name) for name in (MANIFEST, EXAMPLES)}
    sha256 = {name: digest for name, digest in digests.items() if digest is not None}
    whole = data_digest(folder) if len(sha256) == len(digests) else None
    return Contents(description, manifest, unreadable, ids, pixels, sha256, whole, tuple(findings))
