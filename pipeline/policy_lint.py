# SPDX-License-Identifier: Apache-2.0
"""The plan of a policy on the prepared data, before anything is trained: `leangate policy lint`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from checks.canonical import read_json
from checks.errors import DataError, ParamsError, PolicyError
from checks.evidence import Examples
from checks.planning_table import Effort, Plan, plan_policy
from pipeline.layout import Layout
from pipeline.params import Params
from pipeline.policy_file import PolicyFile

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["expect_possible", "lint_policy", "read_test_examples"]

_TEST = "test"
_HINT = "run `dvc repro prepare`"


def _facts(folder: Path) -> dict[str, Any]:
    path = folder / "data.json"
    if not path.exists():
        raise DataError("expected the prepared data, got none", where=str(folder), hint=_HINT)
    facts = read_json(path)
    if not isinstance(facts, dict) or facts.get("schema") != "leangate/data/1":
        raise DataError("expected schema leangate/data/1", where=str(path), hint=_HINT)
    for key in ("classes", "slices"):
        value = facts.get(key)
        if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
            raise DataError(f"expected names, got {value!r:.80}", where=f"{path} {key}", hint=_HINT)
    return facts


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
    )


def _effort(examples: Examples, params: Params) -> Effort:
    from pipeline.probes.attack import ATTACKS

    count = min(params.evaluate.attack.examples, len(examples.ids))
    # The draw of `evaluate`, so that units with several examples are counted as they will be.
    drawn = np.random.default_rng([params.seed, 0]).choice(len(examples.ids), count, replace=False)
    return Effort(
        attacked=examples.ids[np.sort(drawn)],
        attacks=ATTACKS,
        batch_sizes=params.time.batch_sizes,
        sessions=params.time.sessions,
        calls=params.time.rounds * params.time.calls,
    )


def lint_policy(
    layout: Layout,
    params: Params,
    file: PolicyFile,
    *,
    churn: float | None,
    finalists: int | None = None,
) -> Plan:
    """Plan a policy on the prepared data.

    Args:
        layout: Where the data lie.
        params: Slots, and what the probes will do.
        file: The policy.
        churn: Assumed probability that the candidate decides an example otherwise, in [0, 1]; None leaves
            the chances out.
        finalists: How many share alpha; by default the number of `shortlist.slots`.

    Raises:
        DataError: if there is no prepared data, or it cannot be read.
        ParamsError: if churn or finalists is out of range.
        PolicyError: if a rule names a slice, a class or an operating point that does not exist.
    """
    if churn is not None and not 0 <= churn <= 1:
        raise ParamsError(f"expected a probability in [0, 1], got {churn:g}", where="--churn")
    finalists = len(params.shortlist.slots) if finalists is None else finalists
    if not 1 <= finalists <= 100:
        raise ParamsError(f"expected a number from 1 to 100, got {finalists}", where="--finalists")
    examples = read_test_examples(layout.data)
    return plan_policy(
        file.checks,
        examples,
        file.policy,
        finalists=finalists,
        effort=_effort(examples, params),
        churn=churn,
    )


def expect_possible(plan: Plan, path: Path) -> None:
    """Refuse a policy that no candidate can pass on this data.

    Raises:
        PolicyError: naming every rule, slice, number of units and number needed.
    """
    impossible = plan.impossible
    if impossible:
        lines = "\n  ".join(row.message for row in impossible)
        raise PolicyError(
            f"expected rules that {plan.examples} test examples can prove, got some that no candidate can "
            f"pass:\n  {lines}",
            where=str(path),
            hint="`leangate policy lint` shows every rule and slice",
        )
