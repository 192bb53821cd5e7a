# SPDX-License-Identifier: Apache-2.0
"""Numbers, verdicts and distances in words: the same ones on the terminal, in Markdown and in HTML."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.report.figures import Candidate, Comparison, Decision, Finding, Reading

__all__ = [
    "NO_FIGURE",
    "REASONS",
    "clean",
    "count_of",
    "describe_bytes",
    "describe_certainty",
    "describe_distance",
    "describe_interval",
    "describe_limit",
    "describe_macs",
    "describe_mark",
    "describe_outcome",
    "describe_place",
    "describe_range",
    "describe_reading",
    "describe_remedy",
    "describe_saving",
    "describe_standing",
    "describe_value",
    "headline",
    "shorten",
    "summarise_findings",
]

NO_FIGURE = "\u2013"
_MINUS = "\u2212"
_JOINERS = "\u200c\u200d"

REASONS = {
    "too_small": "so few examples that no result on them could pass this rule",
    "underpowered": "fewer examples than a harmless candidate needs to pass reliably",
    "borderline": "examples enough for a harmless candidate, but this one lies too near the limit to tell",
    "noisy_host": "the baseline timed against its own copy differed too much on this machine",
}

_FAILED = (
    ("accuracy", "The loss is proven, so more data will not help: compress less, or recover for longer."),
    (
        "robust_accuracy",
        "The loss is proven, so more data will not help: compress less, or recover for longer.",
    ),
    ("candidate_", "Change the recipe in params.yaml, or measure what the policy should ask for."),
    ("latency_ratio", "Fewer operations are not always faster: try another recipe or precision."),
    ("bytes_ratio", "Compress more: prune further, or quantise."),
    ("macs_ratio", "Compress more: prune further."),
    ("parameters_ratio", "Compress more: prune further."),
    ("peak_memory_ratio", "Try another recipe or precision."),
    ("attack_", "The attacks are not fit to judge by: see evaluate.attack in params.yaml."),
    ("twin_", "The attacks are not fit to judge by: the twin their gradients come from decides otherwise."),
    ("nonfinite_", "The scores are broken: see under Lineage how this model was made."),
    ("group_table", "Two computations of one table disagree: run evaluate again, and look for a defect."),
)
"""What to do about a FAIL, by the start of its metric's name."""


def clean(text: str) -> str:
    """Return `text` on one line, with whatever cannot be printed shown as U+FFFD.

    Names of slices, classes and rows come from data: control characters could rewrite a terminal, and
    direction overrides could make one name read as another.
    """
    kept = [c if c.isprintable() or c in _JOINERS else " " if c.isspace() else "\ufffd" for c in text]
    return "".join(kept)


def shorten(text: str, length: int) -> str:
    """Return `text` cleaned and, if longer than `length` characters, cut with an ellipsis."""
    text = clean(text)
    return text if len(text) <= length else text[: length - 1] + "\u2026"


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
        unit: `proportion`, `ratio`, `bytes`, `count`, `1`; another one is printed behind the number.
        digits: Decimals of percentages and points; ratios show as many.
    """
    if number is None:
        return NO_FIGURE
    if unit == "proportion":
        return _fixed(100 * number, digits, signed=_is_change(metric)) + (
            " pp" if _is_change(metric) else " %"
        )
    if unit == "ratio":
        return _fixed(number, max(digits, 2)) + "\u00d7"
    if unit == "bytes":
        return describe_bytes(number)
    if unit == "count" and number == int(number):
        return _fixed(number, 0)
    text = f"{number:.4g}".replace("-", _MINUS)
    return text if unit in ("1", "count") else f"{text} {unit}"


def describe_interval(interval: tuple[float, float] | None, metric: str, unit: str, digits: int = 2) -> str:
    """Return both ends of an interval with one unit, or nothing for none."""
    if interval is None:
        return ""
    low, high = (describe_value(end, metric, unit, digits) for end in interval)
    for suffix in (" pp", " %", "\u00d7"):
        low = low.removesuffix(suffix)
    return f"{low} to {high}"


def describe_range(interval: tuple[float, float] | None, metric: str, unit: str, digits: int) -> str:
    """Return both ends of an interval without their unit, for where it stands below its value."""
    if interval is None:
        return ""
    ends = (describe_value(end, metric, unit, digits) for end in interval)
    return "\u2013".join(end.removesuffix(" %").removesuffix(" pp").removesuffix("\u00d7") for end in ends)


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
    """Return the limit with its direction where that is known, for example `at least -2.00 pp`."""
    limit = describe_value(finding.limit, finding.metric, finding.unit)
    words = "above" if finding.limit_kind == "margin" else finding.side
    return f"{words} {limit}" if words and finding.limit is not None else limit


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


def describe_remedy(finding: Finding) -> str:
    """Return what to do about a finding that is not settled, or nothing if its message says all there is."""
    if finding.verdict == "INCONCLUSIVE":
        if not finding.further_examples:
            return ""
        more = count_of(finding.further_examples, "more test example")
        of = "" if finding.subject == "overall" else f" of {clean(finding.subject)}"
        return f"Collect about {more}{of}; they would settle it if what was seen holds."
    if finding.verdict == "FAIL":
        return next((told for start, told in _FAILED if finding.metric.startswith(start)), "")
    if finding.verdict == "ERROR":
        return "Repair what broke and run again: nothing was judged here, and an error keeps the gate shut."
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
    return clean(finding.verdict if finding.stops or finding.settled else f"{finding.verdict}, advisory")


def describe_outcome(outcome: str) -> str:
    """Return the outcome of one decision in a word or two."""
    return {"absent": "empty slot", "error": "could not judge"}.get(outcome, outcome)


def describe_standing(candidate: Candidate) -> str:
    """Return the decision column of one candidate."""
    if candidate.decision is None:
        return "not a finalist"
    return "passed, chosen" if candidate.chosen else describe_outcome(candidate.decision.outcome)


def describe_certainty(comparison: Comparison) -> list[str]:
    """Return what a pass is worth, once for each level at which finalists were judged."""
    levels = sorted({(item.alpha, item.alpha_each, item.finalists) for item in comparison.judged})
    return [
        "How sure is a pass: a candidate that breaks the limit of any blocking bounded rule passes with a "
        f"probability of at most {describe_value(each, 'alpha', 'proportion', 1)} "
        f"({describe_value(alpha, 'alpha', 'proportion', 1)} shared by {count_of(finalists, 'finalist')}). "
        "Verdicts come from bounds, never from a point estimate."
        for alpha, each, finalists in levels
    ]


def headline(comparison: Comparison) -> tuple[str, str]:
    """Return the decision of the run: what ships, and one sentence why."""
    winner, judged = comparison.winner, comparison.judged
    many = count_of(len(judged), "finalist")
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


def summarise_findings(decision: Decision) -> str:
    """Return how many findings have which verdict, in a fixed order."""
    order = ["PASS", "NO-FINDING", "FAIL", "INCONCLUSIVE", "ERROR", "NOT-RUN"]
    verdicts = [finding.verdict for finding in decision.findings]
    ranked = sorted(
        set(verdicts), key=lambda verdict: (order.index(verdict) if verdict in order else 99, verdict)
    )
    return ", ".join(f"{verdicts.count(verdict)} {clean(verdict)}" for verdict in ranked) or "no finding"


def describe_reading(reading: Reading | None, digits: int = 1) -> str:
    """Return the value of a measurement, or a dash for none."""
    return describe_value(reading.value, reading.metric, reading.unit, digits) if reading else NO_FIGURE
