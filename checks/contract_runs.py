# SPDX-License-Identifier: Apache-2.0
"""`contract.npz`: scores of one model run in several ways that should not matter.

Its arrays are `ids` `(M,)` and, of each model and run, `<model>:<run>` `(M, C)`. The runs are

    reference                one thread, full graph optimisation, the batch size of all evidence
    repeat                   the same call once more
    batch_one                one example a call
    threads_two              two threads within one operation
    optimization_disabled    the graph as it was exported
    optimization_basic       rewrites that keep the operators
    optimization_extended    fused operators
    twin                     the differentiable twin that attacks take gradients of, in torch
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from checks.tables import Subject, Table, expect_unique

__all__ = ["LEVELS", "REFERENCE", "RUNS", "Contract", "read_contract"]

REFERENCE = "reference"

LEVELS = ("optimization_disabled", "optimization_basic", "optimization_extended")
"""The runs at other levels of graph optimisation."""

RUNS = (REFERENCE, "repeat", "batch_one", "threads_two", *LEVELS, "twin")

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Contract:
    """Scores of both models, by run.

    Attributes:
        ids: `(M,)` examples of the test split.
        baseline: Each of `RUNS` to `(M, C)` scores, NaN and infinity included.
        candidate: The same of the candidate.
    """

    ids: npt.NDArray[np.str_]
    baseline: Mapping[str, Floats]
    candidate: Mapping[str, Floats]


def read_contract(path: Path, subject: Subject, classes: int, examples: int) -> Contract:
    """Read `contract.npz` and refuse what is not about `subject`.

    Raises:
        EvidenceError: if the file is missing, malformed, lacks a run, or is about something else.
    """
    table = Table(path, "leangate/contract/1")
    table.expect_subject(subject, "baseline_sha256", "candidate_sha256", "data_sha256", "code_sha256")
    ids = expect_unique(table.array("ids", "U", (None,)), path)
    table.expect_effort(len(ids), examples)
    shape = (len(ids), classes)
    baseline, candidate = (
        {run: table.array(f"{model}:{run}", "f", shape).astype(np.float32) for run in RUNS}
        for model in ("baseline", "candidate")
    )
    return Contract(ids, baseline, candidate)
