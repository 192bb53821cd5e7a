# SPDX-License-Identifier: Apache-2.0
"""The sections on rules, searches and single examples; each returns its blocks in order."""

from __future__ import annotations

from collections import Counter

from pipeline.card.contents import Contents
from pipeline.card.figures import Judged, cite, declared, judgement_of, slice_words, value_of
from pipeline.card.sections import JUDGEMENT
from pipeline.decision_entries import Finding
from pipeline.markdown import DASH, Markdown, bullets, code, heading, literal, table, text
from pipeline.report.glossary import explain
from pipeline.report.wording import LISTED, NO_FIGURE, SEARCH, describe_value

__all__ = ["flips_section", "policy_section", "screens_section"]

_SHOWN = ("accuracy_change", "robust_accuracy_change")
_LISTED_SHOWN = 20


def flips_section(contents: Contents, judged: Judged) -> list[Markdown]:
    """Return the examples whose decision changed the most, or nothing where none is named."""
    decided = judged.decision.most_changed
    if not decided:
        return []
    rows = [
        (
            text(one.id),
            text(f"label={one.label}"),
            DASH if one.baseline is None else text(one.baseline),
            DASH if one.candidate is None else text(one.candidate),
            literal(describe_value(one.margin_change, "change", "1")),
        )
        for one in decided
    ]
    return [
        heading(2, literal("Flip exemplars")),
        literal(
            "Examples that the candidate decides otherwise than the baseline, those whose label lost the "
            "most first. The margin is the score of the label above the best other one."
        ),
        table(("Example", "Label", "Baseline", "Candidate", "Change of margin"), rows, "llllr"),
        cite(contents, "decision.json", "evidence/baseline.npz", "evidence/candidate.npz"),
    ]


def screens_section(contents: Contents, judged: Judged) -> list[Markdown]:
    """Return what was searched and what that is worth, or nothing where nothing was."""
    if not judged.decision.screens:
        return []
    rows = [_other(finding) for finding in judged.decision.screens]
    return [
        heading(2, literal("Searches")),
        literal(SEARCH),
        table(("Rule", "Metric", "On", "n", "Value", *JUDGEMENT), rows, "lllrrrrrl"),
        cite(contents, "decision.json", "evidence/baseline.npz", "evidence/candidate.npz"),
    ]


def _other(finding: Finding) -> tuple[Markdown, ...]:
    count = literal(NO_FIGURE if finding.n is None else f"{finding.n:,}")
    about = slice_words(finding)
    return code(finding.rule), code(finding.metric), about, count, value_of(finding), *judgement_of(finding)


def _is_shown(finding: Finding) -> bool:
    """Whether another section shows it."""
    shown = finding.metric in _SHOWN or finding.metric.endswith("_change_gap") or finding.kind == "screen"
    return finding.quiet or (shown and bool(finding.slice))


def _listed(judged: Judged) -> list[Markdown]:
    listed = judged.decision.listed
    if not listed:
        return []
    cells = [
        literal(f"{code(one.rule)}: {slice_words(one)} (n = {one.n or 0:,})")
        for one in listed[:_LISTED_SHOWN]
    ]
    if len(listed) > _LISTED_SHOWN:
        cells.append(literal(f"and {len(listed) - _LISTED_SHOWN:,} more in `decision.json`"))
    return [literal(f"Listed only. {LISTED}"), bullets(cells)]


def policy_section(contents: Contents, judged: Judged) -> list[Markdown]:
    """Return every rule with its reason, and the findings that no other section shows."""
    by_rule: dict[str, list[Finding]] = {}
    for finding in judged.decision.findings:
        by_rule.setdefault(finding.rule, []).append(finding)
    rules = []
    for rule, found in by_rule.items():
        counts = Counter("listed only" if finding.quiet else finding.verdict for finding in found)
        advisory = not any(finding.blocking for finding in found)
        rules.append(
            (
                code(rule),
                literal(f"{text(found[0].kind)}{', advisory' if advisory else ''}"),
                literal(f"{code(found[0].metric)} {explain(found[0].metric).meaning}".rstrip()),
                literal(", ".join(f"{count} {text(verdict)}" for verdict, count in sorted(counts.items()))),
                declared(found[0].rule_reason),
            )
        )
    others = [_other(finding) for finding in judged.decision.findings if not _is_shown(finding)]
    name = contents.decision.inner("policy").text("name")
    parts = [
        heading(2, literal("Policy")),
        literal(
            f"{text(name)}, SHA-256 `{contents.digest('policy.yaml')}`. Its rules, and why they are there:"
        ),
        table(("Rule", "Kind", "What is measured", "Findings", "Reason given"), rules),
    ]
    if others:
        header = ("Rule", "Metric", "On", "n", "Value", *JUDGEMENT)
        parts += [literal("Findings that no table above shows:"), table(header, others, "lllrrrrrl")]
    return [*parts, *_listed(judged), cite(contents, "decision.json", "policy.yaml")]
