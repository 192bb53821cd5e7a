# SPDX-License-Identifier: Apache-2.0
"""The parts of the page on single finalists: slices, all findings, attacks."""

from __future__ import annotations

import re

from pipeline.report.figures import Comparison, Decision, Finding, Reading
from pipeline.report.forest import draw_forest
from pipeline.report.markup import Markup, chip, code, table, tag
from pipeline.report.sections import legend_of
from pipeline.report.wording import (
    NO_FIGURE,
    describe_interval,
    describe_limit,
    describe_outcome,
    describe_reading,
    describe_value,
    summarise_findings,
)

__all__ = ["attacks", "finalists"]

_OPEN_UP_TO = 60
_ATTACKED = re.compile(
    r"(?:(baseline|candidate)_)?(?:robust_accuracy|attack_accuracy|robust_accuracy_change)"
)
_FITNESS = {
    "attack_budget_violations": "examples outside the budget:",
    "attack_budget_used": "largest part of the budget used:",
    "twin_disagreement": "disagreement of the twin that gradients come from:",
}


def finalists(comparison: Comparison) -> Markup:
    """Draw, for every slot, the forest plot of slices and the table of all findings."""
    return tag(
        "section",
        tag("h2", "Finalists"),
        *(_finalist(item) for item in comparison.decisions),
        "" if comparison.decisions else tag("p", "No slot was declared."),
        id="finalists",
    )


def _finalist(item: Decision) -> Markup:
    name = item.candidate or f"Slot {item.slot}"
    parts: list[str] = [tag("h3", name, chip(item.outcome, describe_outcome(item.outcome)))]
    if item.candidate is None:
        parts.append(tag("p", "This slot is empty: the shortlist found no further candidate for it."))
    else:
        text = f"Slot {item.slot}, judged by policy {item.policy_name}: {summarise_findings(item)}."
        parts += [tag("p", text), _forest(item)]
    if item.findings:
        shown = {"open": ""} if len(item.findings) <= _OPEN_UP_TO else {}
        count = f"All {len(item.findings):,} findings on {name}"
        parts.append(tag("details", tag("summary", count), _findings(item, name), **shown))
    return tag("article", *parts, id=f"finalist-{item.slot}")


def _forest(item: Decision) -> Markup:
    drawn = draw_forest(item)
    if drawn is None:
        return tag("p", "No change in accuracy was measured, so there are no slices to draw.")
    legend = [
        ("pass", "PASS"),
        ("fail", "FAIL"),
        ("open", "INCONCLUSIVE"),
        ("error", "ERROR"),
        ("calm", "no rule"),
    ]
    each = describe_value(item.alpha_each, "alpha", "proportion", 1)
    text = (
        "Change in accuracy by slice, candidate minus baseline, on the same test examples. "
        "Thick line: 90 % interval. "
        f"Upright tick: the one-sided bound that decides (error at most {each}). Dashed: the margin; a slice "
        "passes once its bound is clear of it. Solid: no change."
    )
    return tag(
        "figure", tag("div", drawn, class_="frame of-forest"), legend_of(legend), tag("figcaption", text)
    )


def _findings(item: Decision, name: str) -> Markup:
    groups: dict[str, list[Finding]] = {}
    for finding in (*item.unsettled, *(found for found in item.findings if found.settled)):
        groups.setdefault(finding.rule, []).append(finding)
    heads = ("Verdict", "Slice", "Measured", "Bound", "Limit", "n")
    bodies = [_group(rule, found, len(heads)) for rule, found in groups.items()]
    return table(
        f"Every finding on {name}, by rule; what is not settled comes first.", heads, bodies, look="findings"
    )


def _group(rule: str, found: list[Finding], columns: int) -> Markup:
    kinds = ", ".join(sorted({f"{one.kind}, {'blocking' if one.blocking else 'advisory'}" for one in found}))
    why = next((one.rule_reason for one in found if one.rule_reason), "")
    told = [tag("small", why)] if why else []
    head = tag(
        "th", code(rule), " ", tag("span", kinds, class_="tag"), *told, colspan=columns, scope="rowgroup"
    )
    return tag("tbody", tag("tr", head, class_="rule"), *(_finding(one) for one in found))


def _finding(one: Finding) -> Markup:
    spread = describe_interval(one.interval, one.metric, one.unit)
    value = describe_value(one.value, one.metric, one.unit)
    return tag(
        "tr",
        tag("td", chip(one.verdict)),
        tag("th", code(one.subject or "not measured"), tag("small", one.message), scope="row"),
        tag("td", value, *([tag("small", spread)] if spread else []), class_="num"),
        tag("td", describe_value(one.bound, one.metric, one.unit), class_="num"),
        tag("td", describe_limit(one) if one.limit is not None else NO_FIGURE, class_="num"),
        tag("td", f"{one.n:,}" if one.n is not None else NO_FIGURE, class_="num"),
    )


def attacks(comparison: Comparison) -> Markup:
    """Draw accuracy under attack, on the whole pool and by attack, and the fitness of the attacks."""
    parts: list[str] = [
        tag(
            "p",
            "Both models faced the same examples of one pool of attacks; an example counts as robust if the "
            "model is right on it, clean and under every attack. The claim is about this pool: a stronger "
            "attack can only lower these figures.",
        )
    ]
    heads = ("Attack", "Baseline", "Candidate", "Change", "n")
    for item in comparison.judged:
        rows = [_attack(place, pair) for place, pair in _by_attack(item).items()]
        name = item.candidate or ""
        if rows:
            parts.append(table(f"Accuracy under attack, {name}.", heads, rows, look="slim"))
        else:
            parts.append(tag("p", tag("b", name), ": no accuracy under attack was measured."))
        fit = [reading for metric in _FITNESS if (reading := item.reading(metric))]
        told = "; ".join(f"{_FITNESS[one.metric]} {describe_reading(one)}" for one in fit)
        parts += [tag("p", f"Fitness of the attacks: {told}.", class_="note")] if told else []
    return tag("section", tag("h2", "Attacks"), *parts, id="attacks")


def _by_attack(item: Decision) -> dict[str, dict[str, Reading]]:
    """Return, for the whole pool and then for each attack, the readings by the model they are about."""
    places: dict[str, dict[str, Reading]] = {}
    for reading in item.readings:
        found = _ATTACKED.fullmatch(reading.metric)
        if found and reading.versus is None:
            places.setdefault(reading.slice, {})[found[1] or "change"] = reading
    return dict(sorted(places.items(), key=lambda pair: (pair[0] != "overall", pair[0])))


def _attack(place: str, readings: dict[str, Reading]) -> Markup:
    cells = [_reading(readings.get(name)) for name in ("baseline", "candidate", "change")]
    count = max(reading.n for reading in readings.values())
    name = "all together" if place == "overall" else place.removeprefix("attack=")
    return tag("tr", tag("th", name, scope="row"), *cells, tag("td", f"{count:,}", class_="num"))


def _reading(reading: Reading | None) -> Markup:
    if reading is None:
        return tag("td", NO_FIGURE)
    spread = describe_interval(reading.interval, reading.metric, reading.unit, 1)
    return tag("td", describe_reading(reading), *([tag("small", spread)] if spread else []), class_="num")
