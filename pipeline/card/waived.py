# SPDX-License-Identifier: Apache-2.0
"""What was waived: on the card's first screen, and in a section of its own."""

from __future__ import annotations

from pipeline.card.contents import Contents
from pipeline.card.figures import Judged, cite, judgement_of, slice_words, value_of
from pipeline.markdown import Markdown, heading, literal, table, text
from pipeline.report.wording import count_of
from pipeline.waiver import MAX_REASON
from pipeline.waiver_file import WAIVERS

__all__ = ["waived_notice", "waivers_section"]


def waived_notice(contents: Contents) -> list[Markdown]:
    """Return the sentence that nobody is to overlook, or nothing where nothing was waived."""
    if not contents.waivers:
        return []
    count = count_of(len(contents.waivers), "finding that blocks", "findings that block")
    first = min(waiver.until for waiver in contents.waivers)
    return [
        literal(f"**Waived: {count} did not pass. What was waived ships until {first}, and not longer.**")
    ]


def waivers_section(contents: Contents, judged: Judged) -> list[Markdown]:
    """Return every waiver beside the finding it lets through, or nothing."""
    rows = [
        (
            text(finding.rule),
            slice_words(finding),
            literal(f"**{text(finding.verdict)}**"),
            value_of(finding),
            judgement_of(finding)[1],
            text(waiver.reason, MAX_REASON),
            literal(f"{text(waiver.approver)}, key `{waiver.key_id[:16]}`"),
            literal(f"{waiver.since} to {waiver.until}"),
        )
        for finding in judged.decision.waived
        if (waiver := finding.waiver) is not None
    ]
    if not rows:
        return []
    return [
        heading(2, literal("Waivers")),
        literal(
            "These findings block, and did not pass. An approver whom the policy names answers for each, for "
            "this file, under this policy and on these data alone; from the day after its last one the gate "
            "is closed again. Days are UTC."
        ),
        table(("Rule", "On", "Verdict", "Value", "Limit", "Reason", "Approver", "Holds"), rows, "lllrrlll"),
        cite(contents, WAIVERS, "decision.json", "policy.yaml"),
    ]
