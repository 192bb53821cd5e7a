# SPDX-License-Identifier: Apache-2.0
"""validate: prepared data to findings; nothing is learnt from data with a blocking one."""

from __future__ import annotations

from collections.abc import Sequence

from checks.errors import DataError
from pipeline.data.agreement import judge_agreement
from pipeline.data.contents import Contents, read_contents
from pipeline.data.duplicates import judge_duplicates
from pipeline.data.expectations import judge_manifest
from pipeline.data.findings import DataFinding
from pipeline.data.validation_docs import render_docs
from pipeline.files import output_dir, write_json, write_text
from pipeline.layout import Layout
from pipeline.params import Params

__all__ = ["run"]


def _write(layout: Layout, contents: Contents, findings: Sequence[DataFinding]) -> None:
    value = {
        "schema": "leangate/data-findings/1",
        "data_sha256": contents.data_sha256,
        "open": bool(findings) and all(finding.passed for finding in findings),
        "findings": [finding.to_json() for finding in findings],
    }
    with output_dir(layout.validation) as folder:
        write_json(folder / "findings.json", value)
        write_text(folder / "docs" / "index.html", render_docs(contents, findings))


def _refusal(layout: Layout, failed: Sequence[DataFinding]) -> DataError:
    """One error that names every failure; what could not be judged follows from the rest."""
    page = layout.validation / "docs" / "index.html"
    causes = [finding for finding in failed if finding.judged] or list(failed)
    unjudged = len(failed) - len(causes)
    tail = f"; {unjudged} more could not be judged" if unjudged else ""
    if len(causes) == 1:
        cause = causes[0]
        hint = f"{cause.hint}; all findings: {page}" if cause.hint else f"all findings: {page}"
        return DataError(cause.sentence + tail, where=str(layout.data / cause.where), hint=hint)
    lines = "".join(f"\n  {cause.where}: {cause.sentence}" for cause in causes)
    return DataError(
        f"expected data that pass every check, got {len(causes)} that fail{tail}:{lines}",
        where=str(layout.data),
        hint=f"what to do about each: {page}",
    )


def run(layout: Layout, params: Params) -> None:
    """Write `findings.json` and `docs/index.html`, then refuse data that break a rule.

    Args:
        layout: Where the prepared data lie and the findings go.
        params: Its section `validate` holds the limits.

    Raises:
        DataError: naming every broken rule and its rows, after the findings were written.
        StorageError: if they cannot be written.
    """
    contents = read_contents(layout.data)
    findings = [
        *contents.findings,
        *judge_agreement(contents),
        *judge_manifest(contents, params.validate_),
        judge_duplicates(contents),
    ]
    _write(layout, contents, findings)
    failed = [finding for finding in findings if not finding.passed]
    if failed:
        raise _refusal(layout, failed)
