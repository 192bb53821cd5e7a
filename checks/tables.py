# SPDX-License-Identifier: Apache-2.0
"""Tables of evidence as files: `.npz` of plain arrays, and a header that says what they are about.

Nothing in such a file is executed or unpickled, its size is bounded before it is read, and whatever is
missing, of another type or of another shape is refused with what was expected and what came.
"""

from __future__ import annotations

import math
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from checks.canonical import read_json_text
from checks.errors import EvidenceError, refuse_schema

__all__ = ["CPU", "MAX_TABLE_BYTES", "Providers", "Subject", "Table", "expect_unique", "read_table"]

MAX_TABLE_BYTES = 4 * 1024**3

_MOST_ARRAYS = 10_000
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_READERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
"""Of the versions of NumPy's format; the third is for names of fields, which no table has."""

_MAKE_AGAIN = "run `dvc repro` to make it again"

Strings = npt.NDArray[np.str_]


@dataclass(frozen=True)
class Subject:
    """What evidence is about: SHA-256 of both ONNX files, of the examples, and of the code that ran."""

    baseline_sha256: str
    candidate_sha256: str
    data_sha256: str
    code_sha256: str

    def to_json(self) -> dict[str, str]:
        """Return the digests by name."""
        return {
            "baseline_sha256": self.baseline_sha256,
            "candidate_sha256": self.candidate_sha256,
            "code_sha256": self.code_sha256,
            "data_sha256": self.data_sha256,
        }


@dataclass(frozen=True)
class Providers:
    """ONNX Runtime's execution providers of one session.

    Attributes:
        declared: Those the session was asked to run on, in order of preference.
        used: Those it came up with; where one is not available, ONNX Runtime falls back without an error.
    """

    declared: tuple[str, ...] = ("CPUExecutionProvider",)
    used: tuple[str, ...] = ("CPUExecutionProvider",)

    @property
    def fell_back(self) -> bool:
        """Whether the session runs on anything but what was declared."""
        return self.used != self.declared


CPU = Providers()
"""What every session runs on that declares nothing else."""


def _expect_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    """Refuse an array whose own header asks for other memory than its bytes fill."""
    if not member.filename.endswith(".npy") or member.compress_type not in _COMPRESSIONS:
        raise ValueError(f"{member.filename!r:.80} is no array, stored or deflated")
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        if version not in _READERS:
            raise ValueError(f"{member.filename!r:.80} is of version {version}")
        shape, _, dtype = _READERS[version](file)
        size = file.tell() + math.prod(shape) * dtype.itemsize
    if dtype.hasobject or size != member.file_size:
        raise ValueError(f"{member.filename!r:.80} names {shape} of {dtype}, and holds something else"[:300])


def _bounded_members(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if len(members) > _MOST_ARRAYS or len({member.filename for member in members}) != len(members):
            raise ValueError(f"more than {_MOST_ARRAYS} arrays, or two of one name")
        size = sum(member.file_size for member in members)
        if size > MAX_TABLE_BYTES:
            raise EvidenceError(f"expected at most {MAX_TABLE_BYTES} bytes, got {size}", where=str(path))
        for member in members:
            _expect_member(archive, member)


def read_table(path: Path, schema: str) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """Read one table.

    Args:
        path: The `.npz` file.
        schema: The schema its header must name, for example `leangate/scores/1`.

    Returns:
        The header, and the arrays by name.

    Raises:
        EvidenceError: if the file is missing, too large, truncated, holds objects or another schema.
    """
    try:
        _bounded_members(path)
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        header = read_json_text(str(arrays.pop("header")), str(path))
    except EvidenceError:
        raise
    except Exception as error:  # whatever is wrong with it, it is no table
        raise EvidenceError(
            f"expected a table of evidence, got {type(error).__name__}: {error}"[:400],
            where=str(path),
            hint=_MAKE_AGAIN,
        ) from error
    if not isinstance(header, dict) or header.get("schema") != schema:
        came = header.get("schema") if isinstance(header, dict) else header
        raise refuse_schema(schema, came, str(path))
    return header, arrays


class Table:
    """One table while it is being checked: every access says what was expected and what came.

    Args:
        path: The `.npz` file.
        schema: The schema its header must name.
    """

    def __init__(self, path: Path, schema: str) -> None:
        self.path = path
        self.header, self.arrays = read_table(path, schema)

    def refuse(self, message: str, hint: str = "") -> EvidenceError:
        """Return the error that says `message` of this file."""
        return EvidenceError(message, where=str(self.path), hint=hint)

    def array(self, name: str, kind: str, shape: tuple[int | None, ...]) -> npt.NDArray[Any]:
        """Return the array `name`.

        Args:
            name: Its name.
            kind: Letter of `numpy.dtype.kind`: `U`, `i`, `f` or `b`.
            shape: Its shape; None stands for any size.

        Raises:
            EvidenceError: if there is none, or it is of another kind or shape.
        """
        array = self.arrays.get(name)
        if array is None:
            raise self.refuse(f"expected an array {name!r}, got {sorted(self.arrays)}")
        fits = array.ndim == len(shape) and all(
            want is None or want == got for want, got in zip(shape, array.shape, strict=True)
        )
        if array.dtype.kind != kind or not fits:
            raise self.refuse(
                f"expected {name!r} of kind {kind!r} and shape {shape}, got {array.dtype} {array.shape}"
            )
        return array

    def field(self, name: str) -> Any:
        """Return the field `name` of the header.

        Raises:
            EvidenceError: if there is none.
        """
        if name not in self.header:
            raise self.refuse(f"expected {name!r} in the header, got {sorted(self.header)}")
        return self.header[name]

    def names(self, name: str) -> tuple[str, ...]:
        """Return the field `name` of the header, a list of names.

        Raises:
            EvidenceError: if it is missing or anything else.
        """
        return self._names(self.field(name), name)

    def expect_effort(self, rows: int, examples: int) -> None:
        """Refuse a table of fewer rows than were asked for: whoever drops the bad ones has none.

        Args:
            rows: What came.
            examples: Of the test split.

        Raises:
            EvidenceError: if the header does not say how many were asked for, or others came.
        """
        effort = self.field("effort")
        asked = effort.get("examples") if isinstance(effort, dict) else None
        if type(asked) is not int or asked < 1:
            raise self.refuse(f"expected how many examples were asked for under effort, got {effort!r:.80}")
        if rows != min(asked, examples):
            raise self.refuse(f"expected {min(asked, examples)} examples, as were asked for, got {rows}")

    def providers(self, *models: str) -> tuple[Providers, ...]:
        """Return the execution providers of each of `models`.

        Raises:
            EvidenceError: if the header does not say what was declared and what each model ran on.
        """
        value = self.field("providers")
        if not isinstance(value, dict) or set(value) != {"declared", *models}:
            raise self.refuse(f"expected providers declared and of {', '.join(models)}, got {value!r}")
        named = {key: self._names(entry, f"providers.{key}") for key, entry in value.items()}
        if not named["declared"]:
            raise self.refuse("expected declared providers, got none")
        return tuple(Providers(named["declared"], named[model]) for model in models)

    def _names(self, value: Any, where: str) -> tuple[str, ...]:
        if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
            raise self.refuse(f"expected a list of names under {where}, got {value!r}")
        return tuple(value)

    def expect_subject(self, subject: Subject, *names: str) -> None:
        """Refuse a table whose digests `names` are not those of `subject`.

        Raises:
            EvidenceError: naming the digest, and what came.
        """
        for name in names:
            self.expect_digest(name, getattr(subject, name), name)

    def expect_digest(self, name: str, want: str, what: str) -> None:
        """Refuse a table whose field `name` is not the SHA-256 `want` of `what`.

        Raises:
            EvidenceError: naming both.
        """
        came = self.field(name)
        if came != want:
            raise self.refuse(
                f"expected evidence of {what} {want}, got {came}",
                f"this evidence was made for something else; {_MAKE_AGAIN}",
            )


def expect_unique(ids: Strings, path: Path) -> Strings:
    """Return `(N,)` ids, at least one and each once.

    Raises:
        EvidenceError: if there is none, or one comes twice.
    """
    if len(ids) == 0:
        raise EvidenceError("expected at least one example, got none", where=str(path))
    if len(set(ids.tolist())) != len(ids):
        raise EvidenceError("expected unique ids, got duplicates", where=str(path))
    return ids
