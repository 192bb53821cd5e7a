# SPDX-License-Identifier: Apache-2.0
"""The parts of the page on single finalists: slices, findings, searches, flips, times, attacks."""

from __future__ import annotations

import re
from collections.abc import Callable

from pipeline.decision_entries import Finding, Reading
from pipeline.decision_file import Decision
from pipeline.report.figures import Comparison
from pipeline.report.forest import ACCURACY, draw_forest, forest_metrics, forest_of
from pipeline.report.glossary import explain
from pipeline.report.markup import Markup, chip, code, table, tag
from pipeline.report.sections import legend_of
from pipeline.report.wording import (
    LISTED,
    NO_FIGURE,
    SEARCH,
    count_of,
    describe_detectable,
    describe_interval,
    describe_limit,
    describe_outcome,
    describe_p,
    describe_reading,
    describe_timings,
    describe_value,
    summarise_findings,
    summarise_searches,
)

__all__ = ["attacks", "finalists"]

_OPEN_UP_TO = 80
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
    parts: list[str] = [tag("h3", name, chip(item.standing, describe_outcome(item.standing)))]
    if item.candidate is None:
        parts.append(tag("p", "This slot is empty: the shortlist found no further candidate for it."))
        return tag("article", *parts, id=f"finalist-{item.slot}")
    text = f"Slot {item.slot}, judged by policy {item.policy_name}: {summarise_findings(item)}."
    parts += [tag("p", text), *(_forest(item, metric) for metric in forest_metrics(item))]
    proofs = [one for one in (*item.unsettled, *_settled(item)) if one.kind != "screen"]
    if proofs:
        parts.append(_folded(f"All {count_of(len(proofs), 'finding')} on {name}", _findings(proofs, name)))
    parts += [part for part in (_searches(item, name), _flips(item, name), _times(item, name)) if part]
    if item.listed:
        count = f"Listed only: {count_of(len(item.listed), 'finding')} on combinations of attributes"
        parts.append(_folded(count, tag("p", LISTED), _listed(item, name), open_up_to=0))
    return tag("article", *parts, id=f"finalist-{item.slot}")


def _settled(item: Decision) -> list[Finding]:
    return [one for one in item.findings if one.settled]


def _folded(summary: str, *content: Markup, open_up_to: int = _OPEN_UP_TO) -> Markup:
    rows = sum(part.count("<tr") for part in content)
    shown = {"open": ""} if rows <= open_up_to else {}
    return tag("details", tag("summary", summary), *content, **shown)


def _forest(item: Decision, metric: str) -> Markup:
    drawn, forest = draw_forest(item, metric), forest_of(item, metric)
    if drawn is None or forest is None:
        return tag("p", "No change in accuracy was measured, so there are no slices to draw.")
    legend = [
        ("pass", "PASS"),
        ("fail", "FAIL"),
        ("open", "INCONCLUSIVE"),
        ("error", "ERROR"),
        ("calm", "no rule"),
    ]
    each = describe_value(item.alpha_each, "alpha", "proportion", 1)
    about = "" if metric == ACCURACY else f": {explain(metric).meaning}" if explain(metric).meaning else ""
    more = f" {count_of(forest.left_out, 'further row')} in the table of findings." if forest.left_out else ""
    text = (
        f"{forest.words} by slice{about or ', candidate minus baseline'}, on the same test examples. "
        "Thick line: 90 % interval. "
        f"Upright tick: the one-sided bound that decides (error at most {each}). Dashed: the margin; a slice "
        f"passes once its bound is clear of it. Solid: no change.{more}"
    )
    return tag(
        "figure", tag("div", drawn, class_="frame of-forest"), legend_of(legend), tag("figcaption", text)
    )


def _findings(found: list[Finding], name: str) -> Markup:
    groups: dict[str, list[Finding]] = {}
    for finding in found:
        groups.setdefault(finding.rule, []).append(finding)
    heads = ("Verdict", "Slice", "Measured", "Bound", "Limit", "Detectable", "n")
    bodies = [_group(rule, members, len(heads), _finding) for rule, members in groups.items()]
    caption = (
        f"Every finding on {name}, by rule; what is not settled comes first. Detectable: the "
        "smallest harm that so many examples tell from none in four cases of five."
    )
    return table(caption, heads, bodies, label=f"Findings on {name}", look="findings")


def _group(rule: str, found: list[Finding], columns: int, row: Callable[[Finding], Markup]) -> Markup:
    kinds = ", ".join(sorted({f"{one.kind}, {'blocking' if one.blocking else 'advisory'}" for one in found}))
    why = next((one.rule_reason for one in found if one.rule_reason), "")
    meaning = explain(found[0].metric).meaning
    told = [
        tag("small", words) for words in (f"{found[0].metric}: {meaning}" if meaning else "", why) if words
    ]
    head = tag(
        "th", code(rule), " ", tag("span", kinds, class_="tag"), *told, colspan=columns, scope="rowgroup"
    )
    return tag("tbody", tag("tr", head, class_="rule"), *(row(one) for one in found))


def _finding(one: Finding) -> Markup:
    p = describe_p(one.p)
    return tag(
        "tr",
        _verdict(one),
        tag("th", code(one.subject or "not measured"), tag("small", one.message), scope="row"),
        _measured(one),
        tag(
            "td",
            describe_value(one.bound, one.metric, one.unit),
            *([tag("small", p)] if p else []),
            class_="num",
        ),
        tag("td", describe_limit(one), class_="num"),
        tag("td", describe_detectable(one) or NO_FIGURE, class_="num"),
        tag("td", f"{one.n:,}" if one.n is not None else NO_FIGURE, class_="num"),
    )


def _verdict(one: Finding) -> Markup:
    waived = [tag("small", f"waived until {one.waiver.until}")] if one.waiver is not None else []
    return tag("td", chip(one.verdict), *waived)


def _search(one: Finding) -> Markup:
    return tag(
        "tr",
        _verdict(one),
        tag("th", code(one.subject or "not measured"), tag("small", one.message), scope="row"),
        _measured(one),
        tag("td", describe_p(one.p).removeprefix("p ") or NO_FIGURE, class_="num"),
        tag("td", describe_limit(one), class_="num"),
        tag("td", f"{one.n:,}" if one.n is not None else NO_FIGURE, class_="num"),
    )


def _measured(one: Finding) -> Markup:
    spread = describe_interval(one.interval, one.metric, one.unit)
    value = describe_value(one.value, one.metric, one.unit)
    return tag("td", value, *([tag("small", spread)] if spread else []), class_="num")


def _searches(item: Decision, name: str) -> Markup | None:
    """Draw what the screens found apart from what was proven: they promise less."""
    if not item.screens:
        return None
    groups: dict[str, list[Finding]] = {}
    for finding in item.screens:
        groups.setdefault(finding.rule, []).append(finding)
    heads = ("Verdict", "Slice", "Measured", "p", "Alarm", "n")
    bodies = [_group(rule, found, len(heads), _search) for rule, found in groups.items()]
    drawn = table(f"What was searched on {name}, by rule.", heads, bodies, look="findings")
    settled = all(finding.settled for finding in item.screens)
    folded = _folded(summarise_searches(item), drawn, open_up_to=0 if settled else _OPEN_UP_TO)
    return tag("div", tag("h4", "Searches"), tag("p", SEARCH), folded, class_="searches")


def _listed(item: Decision, name: str) -> Markup:
    heads = ("Slice", "Rule", "Measured", "n")
    rows = [
        tag(
            "tr",
            tag("th", code(one.subject), tag("small", one.message), scope="row"),
            tag("td", code(one.rule)),
            _measured(one),
            tag("td", f"{one.n or 0:,}", class_="num"),
        )
        for one in item.listed
    ]
    return table(f"Listed only, on {name}.", heads, rows, look="findings")


def _flips(item: Decision, name: str) -> Markup | None:
    if not item.most_changed:
        return None
    rows = [
        tag(
            "tr",
            tag("th", code(one.id), scope="row"),
            tag("td", code(f"label={one.label}")),
            tag("td", NO_FIGURE if one.baseline is None else code(one.baseline)),
            tag("td", NO_FIGURE if one.candidate is None else code(one.candidate)),
            tag("td", describe_value(one.margin_change, "change", "1"), class_="num"),
        )
        for one in item.most_changed
    ]
    heads = ("Example", "Label", "Baseline", "Candidate", "Change of margin")
    caption = (
        f"Flip exemplars on {name}: examples whose decision changed, those whose label lost the most first. "
        "Margin: score of the label above the best other one."
    )
    drawn = table(caption, heads, rows, label=f"Flip exemplars, {name}", look="slim")
    count = f"Flip exemplars: the {count_of(len(rows), 'example')} that changed most on {name}"
    return _folded(count, drawn, open_up_to=10)


def _times(item: Decision, name: str) -> Markup | None:
    rows = [
        tag(
            "tr",
            tag("th", words, scope="row"),
            tag("td", describe_reading(reading, 2), class_="num"),
            tag("td", describe_interval(reading.interval, reading.metric, reading.unit), class_="num"),
        )
        for words, reading in describe_timings(item)
    ]
    if not rows:
        return None
    caption = f"Time, energy and memory of {name}, on the machine that measured them."
    return table(caption, ("Measured", "Value", "90 % interval"), rows, label=f"Times, {name}")


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
