# SPDX-License-Identifier: Apache-2.0
"""Evidence: tables of per-example outcomes, keyed by example id, tied by digest to data, model and code.

A table is a `.npz` file of plain arrays (no pickle) with one extra entry, `header`: JSON naming the
schema and the SHA-256 of what the table is about.

    examples.npz    ids, units, labels, one column a slice attribute
    restricted.npz  ids, the columns of sensitive slice attributes, if there are any; never in a bundle
    baseline.npz    ids, scores            outputs of the baseline's ONNX file
    candidate.npz   ids, scores            outputs of the candidate's ONNX file
    contract.npz    ids, scores of both files, run in several ways that should not matter
    attacks.npz     ids, outcomes of every attack of the pool on both files
    timing.npz      times of both files and of a second copy of the baseline; memory, energy
    cost.json       bytes, multiply-accumulates, parameters
    groups.json     the group table, computed independently by fairlearn
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from checks.canonical import read_json, sha256_file
from checks.contract_runs import Contract, read_contract
from checks.errors import EvidenceError, refuse_schema
from checks.tables import CPU, Providers, Subject, Table, expect_unique, read_table
from checks.timing import Timing, read_timing

__all__ = [
    "MAX_LEVELS",
    "RESTRICTED",
    "Attacks",
    "Contract",
    "Evidence",
    "Examples",
    "Output",
    "Providers",
    "Scores",
    "Subject",
    "Timing",
    "expect_probabilities",
    "read_evidence",
    "read_table",
]

MAX_LEVELS = 1000
"""More levels than this are ids, not groups: none of them could be judged."""

RESTRICTED = "restricted.npz"
"""The table of sensitive slice columns, which stays where it was made; decisions name its SHA-256."""

Strings = npt.NDArray[np.str_]
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Booleans = npt.NDArray[np.bool_]

Output = Literal["logits", "probabilities"]
"""What a model's scores are; a softmax turns logits into probabilities."""

_SUM_TOLERANCE = 1e-3
"""How far the probabilities of one example may sum from 1, by rounding alone."""


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
        test_sha256: Of their images and labels, whatever their ids and order; attempts are counted by it.
        restricted: Sensitive slice attributes, whose columns lie apart; they are among `columns` only where
            that table was read.
    """

    ids: Strings
    units: Strings
    labels: Integers
    classes: tuple[str, ...]
    columns: Mapping[str, Strings]
    levels: Mapping[str, tuple[str, ...]]
    test_sha256: str = ""
    restricted: tuple[str, ...] = ()

    @property
    def withheld(self) -> tuple[str, ...]:
        """Attributes of the data whose columns are not here: whatever rests on them cannot be derived."""
        return tuple(name for name in self.restricted if name not in self.columns)


@dataclass(frozen=True)
class Scores:
    """One model's outputs.

    Attributes:
        ids: `(N,)` unique.
        scores: `(N, C)` float32, larger is likelier; NaN and infinity where the model gave them.
        output: Whether the scores are logits or probabilities; of probabilities every finite row lies in
            [0, 1] and sums to 1.
        providers: What ONNX Runtime ran the model on.
    """

    ids: Strings
    scores: Floats
    output: Output = "logits"
    providers: Providers = CPU


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


@dataclass(frozen=True, eq=False)
class Evidence:
    """Everything a judge may look at, and the SHA-256 of each file it came from."""

    subject: Subject
    examples: Examples
    baseline: Scores
    candidate: Scores
    contract: Contract
    attacks: Attacks
    timing: Timing
    cost: Mapping[str, Any]
    groups: Mapping[str, Any]
    files: Mapping[str, str]


def _slices(table: Table, count: int) -> dict[str, tuple[Strings, tuple[str, ...]]]:
    """Slice attribute to `(count,)` levels and all levels it has, sorted by name."""
    columns = {
        name.removeprefix("slice:"): table.array(name, "U", (count,))
        for name in sorted(table.arrays)
        if name.startswith("slice:")
    }
    declared = table.field("levels")
    if not isinstance(declared, dict) or set(declared) != set(columns):
        raise table.refuse(f"expected the levels of each of {sorted(columns)}")
    slices = {}
    for name, column in columns.items():
        levels = tuple(str(level) for level in declared[name])
        if len(levels) > MAX_LEVELS or len(set(levels)) != len(levels):
            raise table.refuse(
                f"expected at most {MAX_LEVELS} levels of {name}, each once, got {len(levels)}"
            )
        if "" in levels:
            raise table.refuse(f"expected a level of {name} for every example, got empty ones")
        strangers = sorted(set(column.tolist()) - set(levels))
        if strangers:
            raise table.refuse(f"expected levels of {name} among {levels}, got {strangers}")
        slices[name] = column, levels
    return slices


def _restricted_slices(
    path: Path, subject: Subject, ids: Strings, names: tuple[str, ...]
) -> dict[str, tuple[Strings, tuple[str, ...]]]:
    table = Table(path, "leangate/restricted/1")
    table.expect_subject(subject, "data_sha256", "code_sha256")
    if not np.array_equal(table.array("ids", "U", (None,)), ids):
        raise table.refuse("expected the ids of examples.npz in the same order, got others")
    slices = _slices(table, len(ids))
    if set(slices) != set(names):
        raise table.refuse(f"expected the slice columns {sorted(names)}, got {sorted(slices)}")
    return slices


def _examples(path: Path, subject: Subject, restricted: Path | None) -> Examples:
    table = Table(path, "leangate/examples/1")
    table.expect_subject(subject, "data_sha256")
    ids = expect_unique(table.array("ids", "U", (None,)), path)
    count = len(ids)
    classes = tuple(str(name) for name in table.field("classes"))
    labels = table.array("labels", "i", (count,)).astype(np.int64)
    if len(classes) < 2 or labels.min() < 0 or labels.max() >= len(classes):
        raise EvidenceError(f"expected labels within {len(classes)} classes", where=str(path))
    slices = _slices(table, count)
    apart = table.names("restricted") if "restricted" in table.header else ()
    if set(apart) & set(slices):
        raise table.refuse(f"expected restricted columns apart, got {sorted(set(apart) & set(slices))} here")
    if apart and restricted is not None:
        slices |= _restricted_slices(restricted, subject, ids, apart)
    units, test_sha256 = table.array("units", "U", (count,)), table.field("test_sha256")
    if not isinstance(test_sha256, str):
        raise table.refuse(f"expected the SHA-256 of the test split, got {test_sha256!r:.80}")
    columns = {name: slices[name][0] for name in sorted(slices)}
    levels = {name: slices[name][1] for name in sorted(slices)}
    return Examples(ids, units, labels, classes, columns, levels, test_sha256, apart)


def expect_probabilities(scores: npt.NDArray[np.floating[Any]], ids: Strings, where: str) -> None:
    """Refuse scores that are called probabilities and are none.

    Args:
        scores: `(N, C)`; rows that are not finite are left to be counted by a check.
        ids: `(N,)`, for the message.
        where: The file, for the message.

    Raises:
        EvidenceError: naming the first such row and its sum, if a finite row leaves [0, 1] or sums to
            anything but 1 within 0.001.
    """
    sums = scores.sum(axis=1, dtype=np.float64)
    within = (scores >= 0).all(axis=1) & (scores <= 1).all(axis=1) & (np.abs(sums - 1) <= _SUM_TOLERANCE)
    wrong = np.flatnonzero(~within & np.isfinite(scores).all(axis=1))
    if len(wrong):
        row = wrong[0]
        raise EvidenceError(
            f"expected probabilities in [0, 1] that sum to 1, got {scores[row].min():.6g} to "
            f"{scores[row].max():.6g} that sum to {sums[row]:.6g} for {ids[row]!s} and {len(wrong) - 1} more",
            where=where,
            hint="if the model ends without a softmax, say model.output: logits in params.yaml; "
            "if it was quantized, its softmax must stay in floating point",
        )


def _scores(path: Path, subject: Subject, model: str, examples: Examples) -> Scores:
    table = Table(path, "leangate/scores/1")
    table.expect_subject(subject, "data_sha256", "code_sha256")
    table.expect_digest("model_sha256", getattr(subject, f"{model}_sha256"), f"the {model}")
    ids = table.array("ids", "U", (None,))
    if not np.array_equal(
        ids, examples.ids
    ):  # those are known to be unique; of a million, looking takes time
        expect_unique(ids, path)
    shape = (len(ids), len(examples.classes))
    scores = table.array("scores", "f", shape).astype(np.float32, copy=False)
    output = table.field("output")
    if output not in get_args(Output):
        raise table.refuse(f"expected output among {list(get_args(Output))}, got {output!r}")
    if output == "probabilities":
        expect_probabilities(scores, ids, str(path))
    return Scores(ids, scores, output, table.providers(model)[0])


def _attacks(path: Path, subject: Subject, examples: int) -> Attacks:
    table = Table(path, "leangate/attacks/1")
    table.expect_subject(subject, "baseline_sha256", "candidate_sha256", "data_sha256", "code_sha256")
    ids = expect_unique(table.array("ids", "U", (None,)), path)
    table.expect_effort(len(ids), examples)
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


def _json_of(path: Path, schema: str, subject: Subject, *names: str) -> Mapping[str, Any]:
    value = read_json(path)
    if not isinstance(value, dict) or value.get("schema") != schema:
        raise refuse_schema(schema, value.get("schema") if isinstance(value, dict) else None, str(path))
    for name in names:
        if value.get(name) != getattr(subject, name):
            raise EvidenceError(
                f"expected evidence of {name} {getattr(subject, name)}, got {value.get(name)}",
                where=str(path),
            )
    return value


_FILES = (
    "examples.npz",
    "baseline.npz",
    "candidate.npz",
    "contract.npz",
    "attacks.npz",
    "cost.json",
    "groups.json",
)
"""What `evaluate` writes."""


def read_evidence(
    folder: Path, timing_folder: Path, subject: Subject, restricted: Path | None = None
) -> Evidence:
    """Read all evidence on one candidate and refuse what is not about `subject`.

    Args:
        folder: Holds everything but `timing.npz`.
        timing_folder: Holds `timing.npz`; apart, because timing alone cannot be repeated byte for byte.
        subject: What the evidence must be about.
        restricted: The table of sensitive slice columns, read if `examples.npz` says that there is one;
            without it those columns are withheld.

    Raises:
        EvidenceError: if any file is missing, malformed, or about something else.
    """
    examples = _examples(folder / "examples.npz", subject, restricted)
    baseline, candidate = (
        _scores(folder / f"{model}.npz", subject, model, examples) for model in ("baseline", "candidate")
    )
    if baseline.output != candidate.output:
        raise EvidenceError(
            f"expected {baseline.output}, as of the baseline, got {candidate.output}",
            where=str(folder / "candidate.npz"),
        )
    models = ("baseline_sha256", "candidate_sha256")
    files = {name: folder / name for name in _FILES} | {"timing.npz": timing_folder / "timing.npz"}
    if restricted is not None and examples.restricted:
        files[RESTRICTED] = restricted
    return Evidence(
        subject=subject,
        examples=examples,
        baseline=baseline,
        candidate=candidate,
        contract=read_contract(folder / "contract.npz", subject, len(examples.classes), len(examples.ids)),
        attacks=_attacks(folder / "attacks.npz", subject, len(examples.ids)),
        timing=read_timing(timing_folder / "timing.npz", subject),
        cost=_json_of(folder / "cost.json", "leangate/cost/1", subject, *models),
        groups=_json_of(folder / "groups.json", "leangate/groups/1", subject, *models, "data_sha256"),
        files={name: sha256_file(path) for name, path in files.items()},
    )
