# SPDX-License-Identifier: Apache-2.0
"""Evidence: tables of per-example outcomes, keyed by example id, tied by digest to data, model and code.

A table is a `.npz` file of plain arrays (no pickle) with one extra entry, `header`: JSON naming the
schema and the SHA-256 of what the table is about.

    examples.npz    ids, units, labels, one column a slice attribute
    baseline.npz    ids, scores            outputs of the baseline's ONNX file
    candidate.npz   ids, scores            outputs of the candidate's ONNX file
    attacks.npz     ids, outcomes of every attack of the pool on both files
    timing.npz      times of both files and of a second copy of the baseline
    cost.json       bytes, multiply-accumulates, parameters
    groups.json     the group table, computed independently by fairlearn
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from checks.canonical import read_json, refuse_constant, sha256_file
from checks.errors import EvidenceError

__all__ = [
    "MAX_TABLE_BYTES",
    "Attacks",
    "Evidence",
    "Examples",
    "Scores",
    "Subject",
    "Timing",
    "read_evidence",
    "read_table",
]

MAX_TABLE_BYTES = 4 * 1024**3

Strings = npt.NDArray[np.str_]
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Booleans = npt.NDArray[np.bool_]


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
class Examples:
    """The examples both models saw.

    Attributes:
        ids: `(N,)` unique.
        units: `(N,)` the independent unit (subject, clip) of each example.
        labels: `(N,)` index into `classes`.
        classes: Names of the classes, in the order of the models' outputs.
        columns: Slice attribute to `(N,)` levels.
        levels: Slice attribute to every level the data has in any split: one that is missing here was not
            measured, and must not go unnoticed.
    """

    ids: Strings
    units: Strings
    labels: Integers
    classes: tuple[str, ...]
    columns: Mapping[str, Strings]
    levels: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Scores:
    """One model's outputs: `ids` `(N,)`, `scores` `(N, C)` float32, larger is likelier."""

    ids: Strings
    scores: Floats


@dataclass(frozen=True)
class Attacks:
    """Outcomes of one symmetric pool of attacks, on both models.

    Attributes:
        ids: `(M,)` the attacked examples.
        names: `(A,)` the attacks; every attack's examples were shown to both models.
        baseline_correct: `(A, M)` whether the baseline was right on that attack's example.
        candidate_correct: `(A, M)` the same of the candidate.
        perturbation: `(A, M)` largest absolute change of a pixel, as a share of the pixel range.
        in_range: `(A, M)` whether every pixel stayed within the pixel range.
        epsilon: The budget, as a share of the pixel range, in (0, 1].
        twin_agreement: Share of the attacked examples on which the differentiable twin of the baseline
            (first) and of the candidate (second) predicts what ONNX Runtime predicts.
    """

    ids: Strings
    names: tuple[str, ...]
    baseline_correct: Booleans
    candidate_correct: Booleans
    perturbation: Doubles
    in_range: Booleans
    epsilon: float
    twin_agreement: tuple[float, float]


@dataclass(frozen=True)
class Timing:
    """Times of calls, in milliseconds, and peak memory.

    Attributes:
        batch_sizes: `(B,)`.
        baseline_ms: `(B, S, R)` S fresh session pairs of R rounds; each entry the median of some calls.
        candidate_ms: `(B, S, R)`.
        control_ms: `(B, S, R)` a second copy of the baseline, for the A/A control.
        baseline_peak_bytes: `(S,)` peak resident memory of a process that ran the baseline.
        candidate_peak_bytes: `(S,)`.
    """

    batch_sizes: tuple[int, ...]
    baseline_ms: Doubles
    candidate_ms: Doubles
    control_ms: Doubles
    baseline_peak_bytes: Integers
    candidate_peak_bytes: Integers


@dataclass(frozen=True)
class Evidence:
    """Everything a judge may look at, and the SHA-256 of each file it came from."""

    subject: Subject
    examples: Examples
    baseline: Scores
    candidate: Scores
    attacks: Attacks
    timing: Timing
    cost: Mapping[str, Any]
    groups: Mapping[str, Any]
    files: Mapping[str, str]


def _bounded_members(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        size = sum(member.file_size for member in archive.infolist())
    if size > MAX_TABLE_BYTES:
        raise EvidenceError(f"expected at most {MAX_TABLE_BYTES} bytes, got {size}", where=str(path))


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
        header = json.loads(str(arrays.pop("header")), parse_constant=refuse_constant)
    except (
        OSError,
        ValueError,
        KeyError,
        EOFError,
        zipfile.BadZipFile,
        zlib.error,
        NotImplementedError,
    ) as error:
        raise EvidenceError(
            f"expected a table of evidence, got {type(error).__name__}: {error}",
            where=str(path),
            hint="run `dvc repro` to make it again",
        ) from error
    if not isinstance(header, dict) or header.get("schema") != schema:
        came = header.get("schema") if isinstance(header, dict) else header
        raise EvidenceError(f"expected schema {schema}, got {came}", where=str(path))
    return header, arrays


class _Table:
    """One table while it is being checked: every access says what was expected and what came."""

    def __init__(self, path: Path, schema: str) -> None:
        self.path = path
        self.header, self.arrays = read_table(path, schema)

    def array(self, name: str, kind: str, shape: tuple[int | None, ...]) -> npt.NDArray[Any]:
        array = self.arrays.get(name)
        if array is None:
            raise EvidenceError(
                f"expected an array {name!r}, got {sorted(self.arrays)}", where=str(self.path)
            )
        fits = array.ndim == len(shape) and all(
            want is None or want == got for want, got in zip(shape, array.shape, strict=True)
        )
        if array.dtype.kind != kind or not fits:
            raise EvidenceError(
                f"expected {name!r} of kind {kind!r} and shape {shape}, got {array.dtype} {array.shape}",
                where=str(self.path),
            )
        return array

    def field(self, name: str) -> Any:
        if name not in self.header:
            raise EvidenceError(
                f"expected {name!r} in the header, got {sorted(self.header)}", where=str(self.path)
            )
        return self.header[name]

    def expect_subject(self, subject: Subject, *names: str) -> None:
        for name in names:
            came, want = self.field(name), getattr(subject, name)
            if came != want:
                raise EvidenceError(
                    f"expected evidence of {name} {want}, got {came}",
                    where=str(self.path),
                    hint="this evidence was made for something else; run `dvc repro` to make it again",
                )


def _unique(ids: Strings, path: Path) -> Strings:
    if len(ids) == 0:
        raise EvidenceError("expected at least one example, got none", where=str(path))
    if len(np.unique(ids)) != len(ids):
        raise EvidenceError("expected unique ids, got duplicates", where=str(path))
    return ids


def _examples(path: Path, subject: Subject) -> Examples:
    table = _Table(path, "leangate/examples/1")
    table.expect_subject(subject, "data_sha256")
    ids = _unique(table.array("ids", "U", (None,)), path)
    count = len(ids)
    classes = tuple(str(name) for name in table.field("classes"))
    labels = table.array("labels", "i", (count,)).astype(np.int64)
    if len(classes) < 2 or labels.min() < 0 or labels.max() >= len(classes):
        raise EvidenceError(f"expected labels within {len(classes)} classes", where=str(path))
    columns = {
        name.removeprefix("slice:"): table.array(name, "U", (count,))
        for name in sorted(table.arrays)
        if name.startswith("slice:")
    }
    declared = table.field("levels")
    if not isinstance(declared, dict) or set(declared) != set(columns):
        raise EvidenceError(f"expected the levels of each of {sorted(columns)}", where=str(path))
    levels = {name: tuple(str(level) for level in declared[name]) for name in columns}
    for name, column in columns.items():
        strangers = sorted(set(column.tolist()) - set(levels[name]))
        if strangers:
            raise EvidenceError(
                f"expected levels of {name} among {levels[name]}, got {strangers}", where=str(path)
            )
    return Examples(ids, table.array("units", "U", (count,)), labels, classes, columns, levels)


def _scores(path: Path, subject: Subject, model: str, classes: int) -> Scores:
    table = _Table(path, "leangate/scores/1")
    table.expect_subject(subject, "data_sha256", "code_sha256")
    want = getattr(subject, f"{model}_sha256")
    if table.field("model_sha256") != want:
        raise EvidenceError(
            f"expected scores of the {model} {want}, got those of {table.field('model_sha256')}",
            where=str(path),
            hint="this evidence was made for something else; run `dvc repro` to make it again",
        )
    ids = _unique(table.array("ids", "U", (None,)), path)
    return Scores(ids, table.array("scores", "f", (len(ids), classes)).astype(np.float32))


def _attacks(path: Path, subject: Subject) -> Attacks:
    table = _Table(path, "leangate/attacks/1")
    table.expect_subject(subject, "baseline_sha256", "candidate_sha256", "data_sha256", "code_sha256")
    ids = _unique(table.array("ids", "U", (None,)), path)
    names = tuple(str(name) for name in table.field("attacks"))
    shape = (len(names), len(ids))
    if not names:
        raise EvidenceError("expected at least one attack, got none", where=str(path))
    agreement, epsilon = table.field("twin_agreement"), table.field("epsilon")
    shares = [epsilon, *agreement] if isinstance(agreement, list) and len(agreement) == 2 else []
    if not shares or not all(isinstance(share, int | float) and 0 <= share <= 1 for share in shares):
        raise EvidenceError("expected epsilon and two agreements in [0, 1]", where=str(path))
    if not epsilon > 0:
        raise EvidenceError(f"expected epsilon above 0, got {epsilon}", where=str(path))
    return Attacks(
        ids=ids,
        names=names,
        baseline_correct=table.array("baseline_correct", "b", shape),
        candidate_correct=table.array("candidate_correct", "b", shape),
        perturbation=table.array("perturbation", "f", shape).astype(np.float64),
        in_range=table.array("in_range", "b", shape),
        epsilon=float(epsilon),
        twin_agreement=(float(agreement[0]), float(agreement[1])),
    )


def _timing(path: Path, subject: Subject) -> Timing:
    table = _Table(path, "leangate/timing/1")
    table.expect_subject(subject, "baseline_sha256", "candidate_sha256", "code_sha256")
    batch_sizes = tuple(int(size) for size in table.field("batch_sizes"))
    baseline = table.array("baseline_ms", "f", (len(batch_sizes), None, None))
    shape = baseline.shape
    times = [baseline, table.array("candidate_ms", "f", shape), table.array("control_ms", "f", shape)]
    if not all(array.size and np.isfinite(array).all() and (array > 0).all() for array in times):
        raise EvidenceError("expected finite times above 0", where=str(path))
    return Timing(
        batch_sizes,
        times[0],
        times[1],
        times[2],
        table.array("baseline_peak_bytes", "i", (shape[1],)),
        table.array("candidate_peak_bytes", "i", (shape[1],)),
    )


def _json_of(path: Path, schema: str, subject: Subject, *names: str) -> Mapping[str, Any]:
    value = read_json(path)
    if not isinstance(value, dict) or value.get("schema") != schema:
        raise EvidenceError(f"expected schema {schema}", where=str(path))
    for name in names:
        if value.get(name) != getattr(subject, name):
            raise EvidenceError(
                f"expected evidence of {name} {getattr(subject, name)}, got {value.get(name)}",
                where=str(path),
            )
    return value


def read_evidence(folder: Path, timing_folder: Path, subject: Subject) -> Evidence:
    """Read all evidence on one candidate and refuse what is not about `subject`.

    Args:
        folder: Holds everything but `timing.npz`.
        timing_folder: Holds `timing.npz`; apart, because timing alone cannot be repeated byte for byte.
        subject: What the evidence must be about.

    Raises:
        EvidenceError: if any file is missing, malformed, or about something else.
    """
    examples = _examples(folder / "examples.npz", subject)
    classes = len(examples.classes)
    names = ["examples.npz", "baseline.npz", "candidate.npz", "attacks.npz", "cost.json", "groups.json"]
    models = ("baseline_sha256", "candidate_sha256")
    return Evidence(
        subject=subject,
        examples=examples,
        baseline=_scores(folder / "baseline.npz", subject, "baseline", classes),
        candidate=_scores(folder / "candidate.npz", subject, "candidate", classes),
        attacks=_attacks(folder / "attacks.npz", subject),
        timing=_timing(timing_folder / "timing.npz", subject),
        cost=_json_of(folder / "cost.json", "leangate/cost/1", subject, *models),
        groups=_json_of(folder / "groups.json", "leangate/groups/1", subject, *models, "data_sha256"),
        files={name: sha256_file(folder / name) for name in names}
        | {"timing.npz": sha256_file(timing_folder / "timing.npz")},
    )
