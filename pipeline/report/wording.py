# SPDX-License-Identifier: Apache-2.0
"""Numbers, verdicts and distances in words: the same ones on the terminal, in Markdown and in HTML."""

from __future__ import annotations

import math
from collections.abc import Sequence

from checks.latency import LONGEST_MS
from checks.statistics.proportions import LARGEST_RATIO
from pipeline.decision_entries import Finding, Reading
from pipeline.decision_file import Decision, Exemplar
from pipeline.plain import clean
from pipeline.report.figures import Candidate, Comparison
from pipeline.report.glossary import explain

__all__ = [
    "LISTED",
    "NO_FIGURE",
    "SEARCH",
    "count_of",
    "describe_bytes",
    "describe_certainty",
    "describe_detectable",
    "describe_distance",
    "describe_exemplar",
    "describe_interval",
    "describe_limit",
    "describe_macs",
    "describe_mark",
    "describe_outcome",
    "describe_p",
    "describe_place",
    "describe_range",
    "describe_reading",
    "describe_reason",
    "describe_remedy",
    "describe_saving",
    "describe_standing",
    "describe_timings",
    "describe_value",
    "describe_waiver",
    "headline",
    "summarise_findings",
    "summarise_searches",
    "summarise_timings",
]

NO_FIGURE = "\u2013"
_MINUS = "\u2212"
_PROXY = " (proxy)"

_REASONS = {
    "too_small": "so few examples that no result on them could pass this rule",
    "underpowered": "fewer examples than a harmless candidate needs to pass reliably",
    "borderline": "examples enough for a harmless candidate, but this one lies too near the limit to tell",
    "noisy_host": "the baseline timed against its own copy differed too much on this machine",
}

_TIMED_REASONS = {
    "too_small": "so few timed calls or sessions that no result on them could pass this rule",
    "borderline": "sessions enough, but this candidate lies too near the limit to tell",
}
_TIMED = ("hodges_lehmann", "order_statistic")

SEARCH = "A search promises nothing about what it did not find."
LISTED = "Too small to be judged alone; their parents are."


def _fixed(number: float, digits: int, *, signed: bool = False) -> str:
    rounded = round(number, digits) + 0.0
    text = f"{abs(rounded):,.{digits}f}"
    return (_MINUS if rounded < 0 else "+" if signed and rounded > 0 else "") + text


def _is_change(metric: str) -> bool:
    return "change" in metric or "gap" in metric


def describe_value(number: float | None, metric: str, unit: str, digits: int = 2) -> str:
    """Return `number` with its unit; changes of a proportion are percentage points and carry a sign.

    Args:
        number: In `unit`; None prints as a dash.
        metric: Decides whether a proportion is a change.
        unit: `proportion`, `ratio`, `proxy`, `ms`, `bytes`, `count`, `1`; another one stands behind the
            number.
        digits: Decimals of percentages and points; ratios show as many.
    """
    if number is None:
        return NO_FIGURE
    if unit == "proportion":
        return _fixed(100 * number, digits, signed=_is_change(metric)) + (
            " pp" if _is_change(metric) else " %"
        )
    if unit in ("ratio", "proxy"):
        return _fixed(number, max(digits, 2)) + "\u00d7" + (_PROXY if unit == "proxy" else "")
    if unit == "ms":
        size = abs(number)
        return _fixed(number, 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 4) + " ms"
    if unit == "bytes":
        return describe_bytes(number)
    if unit == "count" and number == int(number):
        return _fixed(number, 0)
    text = f"{number:{'+' if _is_change(metric) and number else ''}.4g}".replace("-", _MINUS)
    return text if unit in ("1", "count") else f"{text} {unit}"


def describe_interval(interval: tuple[float, float] | None, metric: str, unit: str, digits: int = 2) -> str:
    """Return both ends of an interval with one unit, or nothing for none."""
    if interval is None:
        return ""
    low, high = (describe_value(end, metric, unit, digits) for end in interval)
    return f"at least {low}" if _is_endless(interval[1], unit) else f"{_bare(low)} to {high}"


def _is_endless(end: float, unit: str) -> bool:
    """Whether the end is what checks write for infinity: too few values bound it."""
    return end >= {"ms": LONGEST_MS, "ratio": LARGEST_RATIO, "proxy": LARGEST_RATIO}.get(unit, math.inf)


def _bare(words: str) -> str:
    """Return a value without its unit, for where the unit stands beside it already."""
    for suffix in (_PROXY, " pp", " %", " ms", "\u00d7"):
        words = words.removesuffix(suffix)
    return words


def describe_range(interval: tuple[float, float] | None, metric: str, unit: str, digits: int) -> str:
    """Return both ends of an interval without their unit, for where it stands below its value."""
    if interval is None:
        return ""
    if _is_endless(interval[1], unit):
        return f"\u2265 {_bare(describe_value(interval[0], metric, unit, digits))}"
    return "\u2013".join(_bare(describe_value(end, metric, unit, digits)) for end in interval)


def describe_bytes(number: float) -> str:
    """Return a size in thousands (KB) or millions (MB) of bytes."""
    if abs(number) < 1000:
        return _fixed(number, 0) + " B"
    return f"{_fixed(number / 1e6, 2)} MB" if abs(number) >= 1e6 else f"{_fixed(number / 1e3, 1)} KB"


def describe_macs(number: int) -> str:
    """Return multiply-accumulates in thousands, millions or billions."""
    for scale, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= scale:
            return f"{_fixed(number / scale, 2 if number < 100 * scale else 0)} {letter}"
    return str(number)


def describe_saving(baseline: int, candidate: int, less: str, more: str) -> str:
    """Return how the candidate's cost compares, for example `5.7x smaller`, or a dash for a cost of 0."""
    if not baseline or not candidate:
        return NO_FIGURE
    times = baseline / candidate
    text = _fixed(max(times, 1 / times), 1) + "\u00d7"
    return text + (f" {less}" if times > 1 else f" {more}") if text != "1.0\u00d7" else "the same"


def describe_limit(finding: Finding) -> str:
    """Return the limit with its direction, for example `above -2.00 pp`."""
    if finding.limit_kind == "alarm":
        return f"alarm at p {finding.limit:g}, shared"
    limit = describe_value(finding.limit, finding.metric, finding.unit)
    words = "above" if finding.limit_kind == "margin" else finding.side
    return f"{words} {limit}" if words else limit


def _unsigned(number: float, finding: Finding) -> str:
    # The distance between two percentages is in points whatever the metric.
    metric = "change" if finding.unit == "proportion" else finding.metric
    return describe_value(abs(number), metric, finding.unit).removeprefix("+")


def describe_distance(finding: Finding) -> str:
    """Return how far value and deciding bound lie from the limit, or nothing where that is unknown."""
    value, bound = finding.room(finding.value), finding.room(finding.bound)
    parts = []
    if value is not None:
        place = "inside" if value > 0 else "beyond"
        parts.append(
            f"measured {_unsigned(value, finding)} {place} the limit" if value else "measured at the limit"
        )
    if bound is not None and finding.bound != finding.value and (value is None or value >= 0 or bound < 0):
        place = "inside" if bound > 0 else "beyond"
        parts.append(
            f"the bound {_unsigned(bound, finding)} {place} it" if bound else "the bound at the limit"
        )
    return ", ".join(parts)


def describe_detectable(finding: Finding) -> str:
    """Return the smallest harm that this many examples would show, or nothing where that is unknown."""
    return "" if finding.detectable is None else _unsigned(finding.detectable, finding)


def describe_p(p: float | None) -> str:
    """Return a p-value with two digits, or nothing for none."""
    return "" if p is None else "p < 0.0001" if p < 1e-4 else f"p {p:.2g}"


def describe_reason(finding: Finding) -> str:
    """Return why a finding is INCONCLUSIVE in words, or nothing."""
    known = {**_REASONS, **(_TIMED_REASONS if finding.method in _TIMED else {})}
    return known.get(finding.reason, finding.reason)


def _examples_wanted(finding: Finding) -> str:
    seen, equal = finding.further_examples, finding.further_if_equal
    of = "" if finding.subject == "overall" else f" of {clean(finding.subject)}"
    if seen:
        more = count_of(seen, "more test example")
        other = f"; about {equal:,} if the models are in truth equal" if equal and equal != seen else ""
        return f"Collect about {more}{of}; they would settle it if what was seen holds{other}."
    less = "compress less, or recover for longer"
    if equal:
        more = count_of(equal, "more test example")
        return (
            f"If what was seen holds, more examples will not settle it: {less}. If the models are in truth "
            f"equal, about {more}{of} would."
        )
    return f"Collect more test examples{of}, or {less}."


def describe_remedy(finding: Finding) -> str:
    """Return what to do about a finding that is not settled."""
    if finding.verdict == "INCONCLUSIVE":
        if finding.reason == "noisy_host":
            return "Run `dvc repro` again on a quieter machine."
        if finding.method == "order_statistic":
            return "Raise time.rounds or time.calls in params.yaml."
        if finding.method in _TIMED:
            return "Raise time.sessions in params.yaml, or time on a quieter machine."
        return _examples_wanted(finding)
    if finding.verdict == "FAIL":
        return explain(finding.metric).remedy
    if finding.verdict == "ERROR":
        return "Mend what the message names and run again: until it can be judged, the gate stays shut."
    if finding.verdict == "NOT-RUN":
        shut = "; until it has run, the gate stays shut" if finding.stops else ""
        return f"See that what the rule names has test examples, and run again{shut}."
    return "Find out what this verdict means before anything ships."


def count_of(number: int, noun: str, plural: str = "") -> str:
    """Return `1 finding`, `2 findings`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def describe_place(concern: Sequence[Finding]) -> str:
    """Return the rule and the slice it was applied to, or the rules that measured nothing."""
    finding = concern[0]
    if finding.subject:
        return clean(f"{finding.rule} on {finding.subject}")
    more = f" and {count_of(len(concern) - 1, 'more rule')}" if len(concern) > 1 else ""
    return clean(finding.rule) + more


def describe_mark(finding: Finding) -> str:
    """Return the verdict, with a word where it stops nothing."""
    if finding.waiver is not None:
        return f"{clean(finding.verdict)}, WAIVED until {finding.waiver.until}"
    return clean(finding.verdict if finding.stops or finding.settled else f"{finding.verdict}, advisory")


def describe_outcome(outcome: str) -> str:
    """Return the outcome of one decision in a word or two."""
    return {"absent": "empty slot", "error": "could not judge"}.get(outcome, outcome)


def describe_standing(candidate: Candidate) -> str:
    """Return the decision column of one candidate."""
    if candidate.decision is None:
        return "not a finalist"
    words = describe_outcome(candidate.decision.standing)
    return f"{words}, chosen" if candidate.chosen else words


def describe_certainty(comparison: Comparison) -> list[str]:
    """Return what a pass is worth, once for each level at which finalists were judged."""
    levels = {
        (item.alpha_each, item.attempt.describe(describe_value(item.alpha, "alpha", "proportion", 1)))
        for item in comparison.judged
        if item.attempt is not None
    }
    return [
        "How sure is a pass: a candidate that breaks the limit of any blocking bounded rule passes with a "
        f"probability of at most {describe_value(each, 'alpha', 'proportion', 1)} "
        f"({why}). "
        "For gaps and ratios between small groups, whose bounds are approximate, up to half as much again. "
        "Verdicts come from bounds, never from a point estimate."
        for each, why in sorted(levels)
    ]


def headline(comparison: Comparison) -> tuple[str, str]:
    """Return the decision of the run: what ships, and one sentence why."""
    winner, judged = comparison.winner, comparison.judged
    many = count_of(len(judged), "finalist")
    if winner and winner.decision and comparison.outcome == "waived":
        waived = winner.decision.waived
        until = min(one.waiver.until for one in waived if one.waiver is not None)
        why = (
            f"It did not pass: {count_of(len(waived), 'finding that blocks is', 'findings that block are')} "
            f"waived. It may ship until {until}, and not longer."
        )
        return f"{clean(winner.name)} ships, waived", why
    if winner:
        rivals = sum(decision.open for decision in judged)
        why = "It passed every blocking rule of the policy."
        if rivals > 1:
            order = ", then ".join(clean(entry) for entry in comparison.preference)
            why = f"It passed every blocking rule, and was preferred among {rivals} that did (by {order})."
        return f"{clean(winner.name)} ships", why
    if not judged:
        return "Nothing ships", "There was no finalist to judge."
    if comparison.outcome == "inconclusive":
        return "Nothing ships yet", f"{many} judged, none passed; more test data can settle what is open."
    if comparison.outcome == "error":
        return (
            "Nothing ships: could not judge",
            f"{many}, none passed, and part of the evidence could not be judged.",
        )
    return "Nothing ships", f"{many} judged, none passed."


def describe_waiver(finding: Finding) -> str:
    """Return who lets a finding through, until when and why, or nothing where nobody does."""
    waiver = finding.waiver
    if waiver is None:
        return ""
    return (
        f"until {waiver.until} by {clean(waiver.approver)} (key {waiver.key_id[:16]}): {clean(waiver.reason)}"
    )


def summarise_findings(decision: Decision) -> str:
    """Return how many findings have which verdict, in a fixed order."""
    order = ["PASS", "NO-FINDING", "FAIL", "INCONCLUSIVE", "ERROR", "NOT-RUN"]
    verdicts = [
        "listed only" if finding.quiet else f"{finding.verdict} waived" if finding.waiver else finding.verdict
        for finding in decision.findings
    ]
    ranked = sorted(
        set(verdicts),
        key=lambda verdict: (order.index(word) if (word := verdict.split()[0]) in order else 99, verdict),
    )
    return ", ".join(f"{verdicts.count(verdict)} {clean(verdict)}" for verdict in ranked) or "no finding"


def describe_reading(reading: Reading | None, digits: int = 1) -> str:
    """Return the value of a measurement, or a dash for none."""
    return describe_value(reading.value, reading.metric, reading.unit, digits) if reading else NO_FIGURE


def summarise_searches(decision: Decision) -> str:
    """Return how many searches were declared and what came of them, or nothing for none."""
    verdicts = [finding.verdict for finding in decision.screens]
    if not verdicts:
        return ""
    found, idle = verdicts.count("FAIL"), verdicts.count("NOT-RUN")
    odd = sum(not finding.settled for finding in decision.screens) - found - idle
    parts = [f"{found:,} found something"] if found else []
    parts += [f"{idle:,} did not run"] if idle else []
    parts += [f"{odd:,} could not be judged"] if odd else []
    return f"{count_of(len(verdicts), 'search', 'searches')}: {', '.join(parts) or 'nothing found'}"


def describe_exemplar(exemplar: Exemplar) -> str:
    """Return what became of one example whose decision changed, `3: 3 to 5` for example."""
    before, after = (NO_FIGURE if name is None else name for name in (exemplar.baseline, exemplar.candidate))
    return clean(f"label={exemplar.label}: {before} \u2192 {after}")


_TIMINGS = (
    ("baseline_p99_ms", "99 of 100 calls, baseline"),
    ("candidate_p99_ms", "99 of 100 calls, candidate"),
    ("latency_ratio", "time of a call, candidate over baseline"),
    ("energy_ratio", "energy, candidate over baseline"),
    ("energy_proxy_ratio", "processor time, candidate over baseline; a proxy for energy, never judged"),
)


def describe_timings(decision: Decision) -> tuple[tuple[str, Reading], ...]:
    """Return what was timed beside its name in words: by batch size, then the memory of a process."""
    rows = [
        (f"batch {size}: {words}", size, place, reading)
        for place, (metric, words) in enumerate(_TIMINGS)
        for size, reading in decision.by_batch(metric)
    ]
    named = [(words, reading) for words, _, _, reading in sorted(rows, key=lambda row: row[1:3])]
    memory = decision.reading("peak_memory_ratio")
    named += [("peak memory of a process, candidate over baseline", memory)] if memory else []
    return tuple(named)


def summarise_timings(decision: Decision) -> str:
    """Return what was timed beside latency in one line, or nothing."""
    parts = []
    batches = {size for metric, _ in _TIMINGS for size, _ in decision.by_batch(metric)}
    for size in sorted(batches):
        found = {
            metric: describe_reading(reading, 2)
            for metric, _ in _TIMINGS
            for batch, reading in decision.by_batch(metric)
            if batch == size
        }
        told = []
        if "candidate_p99_ms" in found:
            told.append(f"p99 {found['candidate_p99_ms']}")
            if "baseline_p99_ms" in found:
                told[-1] += f" (baseline {found['baseline_p99_ms']})"
        if "energy_ratio" in found:
            told.append(f"energy {found['energy_ratio']}")
        if "energy_proxy_ratio" in found:
            told.append(f"processor time {found['energy_proxy_ratio']}")
        if told:
            parts.append(f"b{size} {', '.join(told)}")
    memory = decision.reading("peak_memory_ratio")
    parts += [f"peak memory {describe_reading(memory, 2)}"] if memory else []
    return "; ".join(parts)
