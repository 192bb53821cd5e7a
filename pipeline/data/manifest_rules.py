# SPDX-License-Identifier: Apache-2.0
"""What the manifest must satisfy: one rule an expectation, each with the words that tell what came."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pipeline.data.contents import HINT, Description
from pipeline.data.dataset import COLUMNS
from pipeline.data.findings import count_of, name_some, quote
from pipeline.data.splits import SPLITS
from pipeline.params import Validate

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Outcome", "Rule", "manifest_rules"]

MAX_NAMED = 3
"""Groups that a sentence names before it only counts."""


@dataclass(frozen=True)
class Outcome:
    """The table that was judged, its rows that break the rule, and the column that the rule is about."""

    frame: pd.DataFrame
    positions: tuple[int, ...]
    column: str


@dataclass(frozen=True)
class Rule:
    """One expectation.

    Attributes:
        check: Name of the finding.
        kind: Class of the expectation, in `great_expectations.expectations`.
        options: Its arguments.
        expected: The rule in words, after "expected".
        tell: Words what was observed, after "got".
        hint: What to do if it fails.
        column: Column of the manifest that it is about, or empty.
        needs: Columns of the manifest without which it cannot be judged.
        table: The table it is judged on, `manifest` or one that `_frame` derives.
        describes: Whether it needs `data.json`.
    """

    check: str
    kind: str
    options: Mapping[str, Any]
    expected: str
    tell: Callable[[Outcome], str]
    hint: str
    column: str = ""
    needs: tuple[str, ...] = ()
    table: str = "manifest"
    describes: bool = False


def _joined(parts: Sequence[str]) -> str:
    more = f"; and {len(parts) - MAX_NAMED} more" if len(parts) > MAX_NAMED else ""
    return "; ".join(parts[:MAX_NAMED]) + more


def _tell_columns(expected: Sequence[str]) -> Callable[[Outcome], str]:
    def tell(outcome: Outcome) -> str:
        came = outcome.frame.columns.tolist()
        missing = [name for name in expected if name not in came]
        extra = [name for name in came if name not in expected]
        parts = [f"no {name_some(missing)}"] if missing else []
        parts += [f"also {name_some(extra)}"] if extra else []
        if parts:
            return "; ".join(parts)
        return count_of(len(came), "column") if came == list(expected) else name_some(came, limit=20)

    return tell


def _tell_rows(outcome: Outcome) -> str:
    return count_of(len(outcome.frame), "row")


def _tell_nulls(outcome: Outcome) -> str:
    return f"{count_of(len(outcome.positions), 'null or blank value')} in {_tell_rows(outcome)}"


def _tell_values(outcome: Outcome) -> str:
    values = outcome.frame[outcome.column]
    if outcome.positions:
        values = values.iloc[list(outcome.positions)]
    counts = sorted(values.value_counts().items(), key=lambda item: (-item[1], str(item[0])))
    parts = [f"{count_of(int(count), 'row')} with {outcome.column} {quote(value)}" for value, count in counts]
    return _joined(parts)


def _tell_unique(outcome: Outcome) -> str:
    if outcome.positions:
        return _tell_values(outcome)
    return count_of(int(outcome.frame[outcome.column].nunique()), f"distinct {outcome.column}")


def _tell_splits(outcome: Outcome) -> str:
    rows = outcome.frame.iloc[list(outcome.positions)] if outcome.positions else outcome.frame
    return ", ".join(
        f"{count_of(int(count), 'row')} in {split}"
        for split, count in zip(rows["split"], rows["rows"], strict=True)
    )


def _tell_shares(outcome: Outcome) -> str:
    frame = outcome.frame.iloc[list(outcome.positions)] if outcome.positions else outcome.frame
    ordered = frame.sort_values(["share", "split", "label"], kind="stable")
    parts = [
        f"{share:.4f} of {split} for {quote(label)} ({count_of(int(rows), 'row')})"
        for share, split, label, rows in ordered[["share", "split", "label", "rows"]].to_numpy().tolist()
    ]
    return _joined(parts) if outcome.positions else f"at least {parts[0]}"


def _tell_groups(outcome: Outcome) -> str:
    frame = outcome.frame
    if not outcome.positions:
        return f"{count_of(len(frame), outcome.frame.columns[0])}, each in one split"
    broken = frame.iloc[list(outcome.positions)]
    names, splits = broken[frame.columns[0]], broken["in"]
    return _joined(
        [f"{frame.columns[0]} {quote(name)} in {text}" for name, text in zip(names, splits, strict=True)]
    )


def _in_set(column: str, allowed: Sequence[str], check: str, expected: str, hint: str) -> Rule:
    return Rule(
        check,
        "ExpectColumnValuesToBeInSet",
        {"column": column, "value_set": list(allowed)},
        f"{expected} ({name_some(allowed, limit=20)})",
        _tell_values,
        hint,
        column=column,
        needs=(column,),
    )


def _column_rules(columns: Sequence[str]) -> list[Rule]:
    rules = [
        Rule(
            f"{column}-present",
            "ExpectColumnValuesToNotBeNull",
            {"column": column},
            f"no null or blank {column}",
            _tell_nulls,
            f"give every image a {column} in the source",
            column=column,
            needs=(column,),
        )
        for column in columns
    ]
    unique = Rule(
        "id-unique",
        "ExpectColumnValuesToBeUnique",
        {"column": "id"},
        "unique ids",
        _tell_unique,
        "give every image an id of its own in the source",
        column="id",
        needs=("id",),
    )
    return [*rules, unique]


def _described_rules(columns: Sequence[str], description: Description | None) -> list[Rule]:
    rows = description.rows if description else 0
    labels = _in_set(
        "label",
        description.classes if description else (),
        "label-known",
        "a label among classes of data.json",
        "correct the label in the source, or add the class to the data",
    )
    return [
        Rule(
            "manifest-columns",
            "ExpectTableColumnsToMatchOrderedList",
            {"column_list": list(columns)},
            f"the columns {name_some(columns, limit=20)}, in this order",
            _tell_columns(columns),
            "name slice columns in prepare.slices of params.yaml, and run `dvc repro prepare`",
            describes=True,
        ),
        Rule(
            "manifest-rows",
            "ExpectTableRowCountToEqual",
            {"value": rows},
            f"{count_of(rows, 'row')}, as data.json says"
            if description
            else "as many rows as data.json says",
            _tell_rows,
            HINT,
            describes=True,
        ),
        replace(labels, describes=True),
    ]


def _allowed_rules(limits: Validate) -> list[Rule]:
    return [
        _in_set("split", SPLITS, "split-known", "a split LeanGate knows", "rename the split in the source"),
        _in_set(
            "license",
            limits.allowed_licenses,
            "license-allowed",
            "a license in validate.allowed_licenses of params.yaml",
            "remove those rows from the source, or have the license cleared and add it to the list",
        ),
        _in_set(
            "consent",
            limits.allowed_consent,
            "consent-allowed",
            "a consent in validate.allowed_consent of params.yaml",
            "remove those rows from the source, or obtain the consent",
        ),
    ]


def _share_rules(limits: Validate) -> list[Rule]:
    least, share = limits.min_split_rows, limits.min_class_share
    return [
        Rule(
            "split-rows",
            "ExpectColumnValuesToBeBetween",
            {"column": "rows", "min_value": least},
            f"at least {count_of(least, 'row')} in every split (validate.min_split_rows of params.yaml)",
            _tell_splits,
            "add examples, or change prepare.splits of params.yaml",
            column="split",
            needs=("split",),
            table="splits",
        ),
        Rule(
            "class-share",
            "ExpectColumnValuesToBeBetween",
            {"column": "share", "min_value": share},
            f"a share of at least {share:g} for every class in every split "
            "(validate.min_class_share of params.yaml)",
            _tell_shares,
            "add examples of the class, change prepare.splits of params.yaml, or drop the class",
            column="label",
            needs=("split", "label"),
            table="classes",
            describes=True,
        ),
    ]


def _disjoint_rule(column: str) -> Rule:
    return Rule(
        f"{column}-in-one-split",
        "ExpectColumnValuesToBeBetween",
        {"column": "splits", "min_value": 1, "max_value": 1},
        f"each {column} in exactly one split",
        _tell_groups,
        f"keep all rows of one {column} in one split: what was learnt must not be what is tested",
        column=column,
        needs=(column, "split"),
        table=column,
    )


def manifest_rules(description: Description | None, limits: Validate) -> list[Rule]:
    """Return every rule on the manifest, each with a name of its own.

    Args:
        description: `data.json`, or None if it cannot be read; rules that need it are there all the same.
        limits: What `params.yaml` demands.
    """
    columns = [*COLUMNS, *(description.slices if description else ())]
    return [
        *_described_rules(columns, description),
        *_column_rules(columns),
        *_allowed_rules(limits),
        *_share_rules(limits),
        _disjoint_rule("id"),
        _disjoint_rule("unit"),
    ]
