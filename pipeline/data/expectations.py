# SPDX-License-Identifier: Apache-2.0
"""Great Expectations over the manifest, and over tables derived from it.

Great Expectations judges whatever is a property of rows or of a table: columns, nulls, uniqueness, sets,
bounds. Two kinds of rule are no property of a row, so they are judged as bounds on a derived table that
has one row a split, a class in a split, or a unit. `UnexpectedRowsExpectation` would say them in SQL, but
it does not run on data frames.

What Great Expectations passes for want of data (no rows, only nulls) is a FAIL here.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pipeline.data.contents import DESCRIPTION, MANIFEST, Contents, Description
from pipeline.data.findings import DataFinding, first_rows, quote
from pipeline.data.manifest_rules import Outcome, Rule, manifest_rules
from pipeline.data.splits import SPLITS
from pipeline.params import Validate

if TYPE_CHECKING:
    import pandas as pd
    from great_expectations.data_context import AbstractDataContext

__all__ = ["judge_manifest"]


def _splits_frame(manifest: pd.DataFrame) -> pd.DataFrame:
    """One row a split, also where no example is in it."""
    import pandas as pd

    counts = manifest["split"].value_counts()
    return pd.DataFrame({"split": SPLITS, "rows": [int(counts.get(name, 0)) for name in SPLITS]})


def _classes_frame(manifest: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """One row a class in a split, also where no example is in it; a share of nothing is 0, not NaN."""
    import pandas as pd

    rows = manifest["split"].value_counts()
    counts = manifest.groupby(["split", "label"]).size().to_dict()
    keys = [(split, label) for split in SPLITS for label in classes]
    frame = pd.DataFrame(keys, columns=["split", "label"])
    frame["rows"] = [int(counts.get(key, 0)) for key in keys]
    frame["share"] = [int(counts.get(key, 0)) / max(1, int(rows.get(key[0], 0))) for key in keys]
    return frame


def _groups_frame(manifest: pd.DataFrame, column: str) -> pd.DataFrame:
    """One row an id or unit, with the number of splits it is in, and their names if they are several."""
    import pandas as pd

    splits_of: dict[str, set[str]] = {}
    for name, split in manifest[[column, "split"]].dropna().itertuples(index=False):
        splits_of.setdefault(name, set()).add(split)
    records = [
        (name, len(splits), " and ".join(map(quote, sorted(splits)[:8])))
        for name, splits in splits_of.items()
    ]
    return pd.DataFrame(records, columns=[column, "splits", "in"])


def _frame(table: str, manifest: pd.DataFrame, description: Description | None) -> pd.DataFrame:
    if table == "manifest":
        return manifest
    if table == "splits":
        return _splits_frame(manifest)
    if table == "classes":
        return _classes_frame(manifest, description.classes if description else ())
    return _groups_frame(manifest, table)


def _context() -> AbstractDataContext:
    """Return a context that lives in memory: no files in the user's folders, no bars, no telemetry."""
    with warnings.catch_warnings():
        # Its import uses two standard modules that Python 3.11 deprecates; nothing of ours can avoid it.
        warnings.filterwarnings(
            "ignore", message="module 'sre_.*' is deprecated", category=DeprecationWarning
        )
        import great_expectations as gx
        from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.enable_analytics(enable=False)
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    return context


def _run_suite(
    context: AbstractDataContext, name: str, frame: pd.DataFrame, rules: Sequence[Rule]
) -> dict[str, Any]:
    """Run the rules of one table; results by check."""
    import great_expectations as gx
    import great_expectations.expectations as kinds

    asset = context.data_sources.add_pandas(name).add_dataframe_asset(name)
    batch = asset.add_batch_definition_whole_dataframe(name)
    expectations = [getattr(kinds, rule.kind)(**rule.options, meta={"check": rule.check}) for rule in rules]
    suite = context.suites.add(gx.ExpectationSuite(name, expectations=expectations))
    definition = context.validation_definitions.add(
        gx.ValidationDefinition(name=name, data=batch, suite=suite)
    )
    validation = definition.run(
        batch_parameters={"dataframe": frame}, result_format={"result_format": "COMPLETE"}
    )
    results: Sequence[Any] = validation.results
    return {result.expectation_config.meta["check"]: result for result in results}


def _offenders(rule: Rule, outcome: Outcome, manifest: pd.DataFrame) -> list[str]:
    """Ids of the rows of the manifest that break a rule; a row without an id is named by its number."""
    rows: Sequence[int] = outcome.positions
    if rule.table in ("id", "unit"):
        broken = set(outcome.frame[rule.table].iloc[list(rows)])
        rows = [row for row, value in enumerate(manifest[rule.table]) if value in broken]
    elif rule.table != "manifest":
        return []  # a split or a class that has too few rows has no row to blame
    ids: list[str | None] = manifest["id"].tolist() if "id" in manifest.columns else [None] * len(manifest)
    return [ids[row] or f"row {row}" for row in rows]


def _raised(result: Any) -> str:
    """Message of the exception that Great Expectations caught, or empty."""
    information = result.exception_info or {}
    entries = [information] if "raised_exception" in information else list(information.values())
    return next(
        (str(entry["exception_message"]) or "?" for entry in entries if entry["raised_exception"]), ""
    )


def _to_finding(rule: Rule, result: Any, frame: pd.DataFrame, manifest: pd.DataFrame) -> DataFinding:
    """Turn what Great Expectations returned into a finding; run ids, times and batch ids stay behind."""
    observed = result.result
    elements, missing = observed.get("element_count"), observed.get("missing_count", 0)
    reason = _raised(result)
    if not reason and elements is not None and elements == missing:
        # Great Expectations passes these: none of no values is wrong.
        reason = "every value is null" if elements else "there are no rows"
    if reason:
        return _not_judged(rule, reason)
    positions = tuple(int(position) for position in observed.get("unexpected_index_list") or ())
    outcome = Outcome(frame, positions, rule.column)
    offenders = _offenders(rule, outcome, manifest)
    return DataFinding(
        check=rule.check,
        passed=bool(result.success),
        file=MANIFEST,
        expected=rule.expected,
        came=rule.tell(outcome),
        column=rule.column,
        hint=rule.hint,
        expectation=str(result.expectation_config.type),
        rows=first_rows(offenders),
        row_count=len(offenders),
    )


def _not_judged(rule: Rule, reason: str) -> DataFinding:
    return DataFinding.not_judged(rule.check, MANIFEST, rule.expected, reason, column=rule.column)


def _lack(rule: Rule, contents: Contents) -> str:
    """Why a rule cannot be judged, or empty."""
    if contents.manifest is None:
        return f"{MANIFEST} cannot be read"
    if rule.describes and contents.description is None:
        return f"{DESCRIPTION} cannot be read"
    for column in rule.needs:
        if column not in contents.manifest.columns:
            return f"there is no column {quote(column)}"
        if column in contents.unreadable_columns:
            return f"column {quote(column)} is no text"
    return ""


def judge_manifest(contents: Contents, limits: Validate) -> list[DataFinding]:
    """Judge the manifest by every expectation.

    Args:
        contents: The files, as far as they could be read.
        limits: What `params.yaml` demands.

    Returns:
        One finding an expectation, always the same checks; one that could not be judged is a FAIL.
    """
    rules = manifest_rules(contents.description, limits)
    findings = {rule.check: _not_judged(rule, _lack(rule, contents)) for rule in rules}
    if contents.manifest is not None:
        context = _context()
        for table in dict.fromkeys(rule.table for rule in rules):
            judged = [rule for rule in rules if rule.table == table and not _lack(rule, contents)]
            if judged:
                frame = _frame(table, contents.manifest, contents.description)
                results = _run_suite(context, table, frame, judged)
                for rule in judged:
                    findings[rule.check] = _to_finding(rule, results[rule.check], frame, contents.manifest)
    return list(findings.values())
