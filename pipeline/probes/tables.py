# SPDX-License-Identifier: Apache-2.0
"""Evidence tables as files: the same arrays give the same bytes; `checks.evidence` reads them back."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from checks.canonical import dumps
from checks.errors import ProbeError
from pipeline.files import output_file

__all__ = ["write_table"]

# The earliest date a zip entry can carry.
FIXED_DATE = (1980, 1, 1, 0, 0, 0)
KINDS = "Ubiuf"


def _checked(name: str, array: npt.NDArray[Any], path: Path) -> npt.NDArray[Any]:
    if array.dtype.kind not in KINDS:
        raise ProbeError(
            f"expected numbers, booleans or text in {name!r}, got {array.dtype}", where=str(path)
        )
    return np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C")


def write_table(path: Path, header: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write one `.npz` table, whole or not at all.

    Entries are stored in the order of their names, uncompressed (compressors differ between versions)
    and with one fixed date, so that equal content is equal bytes.

    Args:
        path: The `.npz` file.
        header: `schema`, and what the table is about; JSON values.
        arrays: Numbers, booleans or text by name; `header` is taken.

    Raises:
        ProbeError: if an array holds objects or is called `header`, or the header names no schema.
        StorageError: if the file cannot be written.
    """
    if "schema" not in header or "header" in arrays:
        raise ProbeError("expected a header with a schema, and no array named 'header'", where=str(path))
    entries = {name: _checked(name, np.asarray(array), path) for name, array in arrays.items()}
    entries["header"] = np.array(dumps(dict(header)))
    with output_file(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(entries):
            member = zipfile.ZipInfo(f"{name}.npy", FIXED_DATE)
            with archive.open(member, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, entries[name], allow_pickle=False)
