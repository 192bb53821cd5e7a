# SPDX-License-Identifier: Apache-2.0
"""The test split as the manifest has it, without a look at any pixel."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from checks.canonical import read_json
from checks.errors import DataError, EvidenceError
from checks.evidence import Examples
from checks.outcomes import join_ids

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["expect_test_split", "read_test_digest", "read_test_examples"]

_TEST = "test"
_HINT = "run `dvc repro prepare`"


def _facts(folder: Path) -> dict[str, Any]:
    path = folder / "data.json"
    if not path.exists():
        raise DataError("expected the prepared data, got none", where=str(folder), hint=_HINT)
    facts = read_json(path)
    if not isinstance(facts, dict) or facts.get("schema") != "leangate/data/1":
        raise DataError("expected schema leangate/data/1", where=str(path), hint=_HINT)
    for key in ("classes", "slices", "sensitive"):
        value = facts.setdefault(key, []) if key == "sensitive" else facts.get(key)
        if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
            raise DataError(f"expected names, got {value!r:.80}", where=f"{path} {key}", hint=_HINT)
    if not isinstance(facts.get("test_sha256"), str):
        raise DataError("expected the SHA-256 of the test split, got none", where=f"{path}", hint=_HINT)
    return facts


def read_test_digest(folder: Path) -> str:
    """Return the SHA-256 of the images and labels of the test split, as `prepare` wrote it down.

    Raises:
        DataError: if there is none.
    """
    return str(_facts(folder)["test_sha256"])


def _table(path: Path, names: list[str]) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            missing = [name for name in names if name not in file.schema_arrow.names]
            if missing:
                raise DataError(f"expected columns {names}, got none named {missing}", where=str(path))
            return file.read(columns=names)
    except (OSError, ValueError, pa.ArrowException) as error:
        text = " ".join(str(error).split())
        raise DataError(f"expected a manifest, got {text}", where=str(path), hint=_HINT) from error


def _texts(table: pa.Table, name: str) -> npt.NDArray[np.str_]:
    return np.array([str(value) for value in table.column(name).to_pylist()], dtype=np.str_)


def read_test_examples(folder: Path) -> Examples:
    """Read the test split from the manifest alone: no pixel is looked at.

    Args:
        folder: What `prepare` wrote.

    Returns:
        The examples as `evaluate` will write them, levels of other splits among the levels.

    Raises:
        DataError: if there is no manifest, it is unusable, or no example is in the test split.
    """
    facts = _facts(folder)
    path = folder / "manifest.parquet"
    classes, slices = tuple(facts["classes"]), list(facts["slices"])
    table = _table(path, ["id", "unit", "split", "label", *slices])
    rows = np.flatnonzero(_texts(table, "split") == _TEST)
    if len(rows) == 0:
        raise DataError(f"expected examples in split {_TEST!r}, got none", where=str(path))
    every = {name: _texts(table, name) for name in slices}
    index = {label: position for position, label in enumerate(classes)}
    labels = _texts(table, "label")[rows].tolist()
    unknown = sorted(set(labels) - set(classes))
    if unknown:
        raise DataError(
            f"expected each label to be one of {list(classes)}, got {unknown[:5]}", where=str(path)
        )
    return Examples(
        ids=_texts(table, "id")[rows],
        units=_texts(table, "unit")[rows],
        labels=np.array([index[label] for label in labels], dtype=np.int64),
        classes=classes,
        columns={name: column[rows] for name, column in every.items()},
        levels={name: tuple(sorted(set(column.tolist()))) for name, column in every.items()},
        test_sha256=facts["test_sha256"],
        restricted=tuple(facts["sensitive"]),
    )


def expect_test_split(examples: Examples, folder: Path, where: str) -> None:
    """Refuse examples that are not the whole test split: whoever leaves out the losses has none.

    Args:
        examples: Of the evidence, in any order.
        folder: What `prepare` wrote.
        where: The file of the examples, for messages.

    Raises:
        DataError: if the manifest is unusable.
        EvidenceError: if an example is missing or left over, or anything said of one differs.
    """
    prepared = read_test_examples(folder)
    order = join_ids(prepared.ids, examples.ids, where)
    pairs = {"units": (prepared.units, examples.units), "labels": (prepared.labels, examples.labels)}
    names = sorted({*prepared.columns, *examples.columns})
    if prepared.columns.keys() != examples.columns.keys():
        raise EvidenceError(
            f"expected the slice columns {sorted(prepared.columns)}, got {sorted(examples.columns)}",
            where=where,
        )
    if prepared.restricted != examples.restricted:
        raise EvidenceError(
            f"expected the sensitive columns {list(prepared.restricted)} apart, "
            f"got {list(examples.restricted)}",
            where=where,
        )
    pairs |= {f"slice {name}": (prepared.columns[name], examples.columns[name]) for name in names}
    for name, (want, came) in pairs.items():
        if not np.array_equal(want, came[order]):
            raise EvidenceError(f"expected the {name} of the manifest, got others", where=where)
    for name in names:
        if sorted(prepared.levels[name]) != sorted(examples.levels[name]):
            raise EvidenceError(
                f"expected the levels {list(prepared.levels[name])} of {name}, "
                f"got {list(examples.levels[name])}",
                where=where,
            )
    if prepared.test_sha256 != examples.test_sha256:
        raise EvidenceError(
            f"expected the test split {prepared.test_sha256}, got {examples.test_sha256}", where=where
        )
    if prepared.classes != examples.classes:
        raise EvidenceError(
            f"expected the classes {list(prepared.classes)}, got {list(examples.classes)}", where=where
        )
