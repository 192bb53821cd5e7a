# SPDX-License-Identifier: Apache-2.0
"""The sections on what was decided and measured; each returns its blocks in order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pipeline.card.contents import Contents
from pipeline.card.figures import (
    Judged,
    cite,
    interval_of,
    judgement_of,
    order_slices,
    slice_words,
    value_of,
)
from pipeline.decision_entries import Finding, Reading, attribute_of
from pipeline.fields import Fields
from pipeline.markdown import DASH, Markdown, code, heading, join, literal, table, text
from pipeline.report.passes import NUMBERS, PASSES, pass_columns, pass_rows, passes_in
from pipeline.report.wording import (
    describe_timings,
    summarise_findings,
)

__all__ = [
    "JUDGEMENT",
    "PROVISO",
    "accuracy_section",
    "attack_section",
    "compression_section",
    "costs",
    "decision_section",
    "disparity_section",
    "passes",
    "policy_words",
]

PROVISO = (
    "The claim is against this pool of attacks and this budget only: another attack may do better, so each "
    "accuracy is an upper bound on robustness, and none is a guarantee."
)
_TIMES = "\N{MULTIPLICATION SIGN}"
JUDGEMENT = ("Deciding bound", "Limit", "Detectable", "Verdict")


def policy_words(decision: Fields) -> Markdown:
    """Return the policy's name and digest."""
    policy = decision.inner("policy")
    return literal(f"policy {text(policy.text('name'), 100)} (`{policy.text('sha256')[:12]}`)")


def _outcome_words(contents: Contents) -> str:
    name = code(contents.verdict.text("candidate"))
    if not contents.waivers:
        return f"**Passed.** {name} meets every blocking rule of"
    return f"**Waived, not passed.** {name} ships although it does not meet every blocking rule of"


def decision_section(contents: Contents, judged: Judged) -> list[Markdown]:
    """Return what was decided, on what, by which rules."""
    decision, subject = contents.decision, contents.evidence.subject
    told = text(summarise_findings(judged.decision))
    attempt = judged.decision.attempt
    alpha = f"{decision.number('alpha'):g}"
    counted = (
        f"The candidate is attempt {attempt.number} on this test split. Bounded rules were judged at a "
        f"one-sided error of {decision.number('alpha_each'):.4g}, {attempt.describe(alpha)}. "
        if attempt
        else ""
    )
    rows = [
        ("Candidate", code(contents.verdict.text("candidate")), subject.candidate_sha256),
        ("Baseline", literal("the model before compression"), subject.baseline_sha256),
        ("Policy", text(decision.inner("policy").text("name")), contents.digest("policy.yaml")),
        ("Decision", literal("`decision.json`"), contents.digest("decision.json")),
        ("Data", literal("examples and manifest"), subject.data_sha256),
        ("Code that measured", literal("probes"), subject.code_sha256),
    ]
    return [
        heading(2, literal("Decision")),
        literal(f"{_outcome_words(contents)} {policy_words(decision)}. Findings: {told}."),
        literal(
            f"{counted}Intervals below are 90 % intervals, each end a one-sided 95 % bound; the deciding "
            "bound is the one that the rule held against its limit. Detectable is the smallest harm that so "
            "many examples tell from none in four cases of five."
        ),
        table(("What", "Name", "SHA-256"), [(literal(a), b, literal(f"`{c}`")) for a, b, c in rows]),
        cite(contents, "decision.json", "policy.yaml", "records/attempts.json"),
    ]


def _costs(contents: Contents) -> list[tuple[Markdown, ...]]:
    """Rows of what both files cost; all but the size after gzip is evidence."""
    cost = Fields(contents.evidence.cost, "evidence/cost.json")
    sides = cost.inner("baseline"), cost.inner("candidate")
    words = {"bytes": "File, bytes", "macs": "Multiply-accumulates", "parameters": "Parameters"}
    figures = {title: tuple(side.count(key) for side in sides) for key, title in words.items()}
    figures["File after gzip, bytes"] = (
        contents.baseline.count("gzip_bytes"),
        contents.model.count("gzip_bytes"),
    )
    return [
        (
            literal(title),
            literal(f"{before:,}"),
            literal(f"{after:,}"),
            literal(f"{after / before:.3f}{_TIMES}") if before else DASH,
            DASH,
        )
        for title, (before, after) in figures.items()
    ]


def _timings(judged: Judged) -> list[tuple[Markdown, ...]]:
    """Rows of what was timed: ratios in the column of ratios, times of one model in its own."""
    rows: list[tuple[Markdown, ...]] = []
    for words, reading in describe_timings(judged.decision):
        value, spread = value_of(reading), interval_of(reading)
        side = reading.metric.partition("_")[0]
        if side in ("baseline", "candidate"):
            cells = (value, DASH, DASH) if side == "baseline" else (DASH, value, DASH)
        else:
            cells = (DASH, DASH, value)
        rows.append((literal(words), *cells, spread))
    return rows


def _passes(compression: Fields) -> Markdown:
    found = passes_in(compression)
    columns = pass_columns(found)
    rows = [
        [
            code(lines[0])
            if column == "Pass"
            else join((text(line, limit=1_000) for line in lines), " " if column in NUMBERS else "<br>")
            for column, lines in zip(columns, cells, strict=True)
        ]
        for cells in pass_rows(found)
    ]
    return table(columns, rows, "".join("r" if column in NUMBERS else "l" for column in columns))


def costs(contents: Contents, judged: Judged) -> list[Markdown]:
    """Return what both files cost, and in which time they run."""
    header = ("Figure", "Baseline", "Candidate", "Candidate / baseline", "90 % interval")
    files = ("evidence/cost.json", "evidence/timing.npz", "records/model.json", "records/baseline.json")
    return [
        table(header, [*_costs(contents), *_timings(judged)], "lrrrr"),
        cite(contents, *files, "decision.json"),
    ]


def passes(contents: Contents) -> list[Markdown]:
    """Return how the candidate was made."""
    return [
        literal("How the candidate was made, in this order:"),
        _passes(contents.compression),
        literal(PASSES),
        cite(contents, "records/compression.json"),
    ]


def compression_section(contents: Contents, judged: Judged) -> list[Markdown]:
    """Return what compression saved, and how it was done."""
    return [heading(2, literal("Compression")), *costs(contents, judged), *passes(contents)]


def _ruled(judged: Judged, readings: Iterable[Reading]) -> list[tuple[Reading, Finding | None]]:
    """Pair each measurement with each rule on it, or with None where there is no rule."""
    return [
        (reading, finding)
        for reading in readings
        for finding in (judged.decision.findings_on(reading) or (None,))
    ]


def _count(reading: Reading | None) -> Markdown:
    return DASH if reading is None else literal(f"{reading.n:,}")


def _ordered(readings: Iterable[Reading], data: Fields) -> list[Reading]:
    """Sort measurements by slice, as people read slices."""
    kept = list(readings)
    places = {name: place for place, name in enumerate(order_slices({one.slice for one in kept}, data))}
    return sorted(kept, key=lambda one: (places[one.slice], one.versus or ""))


def _accuracy_table(judged: Judged, changes: Sequence[Reading]) -> Markdown:
    rows = [
        (
            slice_words(change),
            _count(change),
            value_of(judged.decision.reading("baseline_accuracy", change.slice)),
            value_of(judged.decision.reading("candidate_accuracy", change.slice)),
            value_of(change),
            interval_of(change),
            *judgement_of(rule),
        )
        for change, rule in _ruled(judged, changes)
    ]
    header = ("Slice", "n", "Baseline", "Candidate", "Change", "90 % interval", *JUDGEMENT)
    return table(header, rows, "lrrrrrrrrl")


def accuracy_section(contents: Contents, judged: Judged) -> list[Markdown]:
    """Return accuracy overall, by slice and by class."""
    decision = judged.decision
    whole_change = [one for one in decision.readings_of("accuracy_change") if one.slice == "overall"]
    changes = _ordered([*whole_change, *decision.slices_of("accuracy_change")], contents.data)
    classes = [change for change in changes if attribute_of(change.slice) == "label"]
    rest = [change for change in changes if change not in classes]
    source = cite(
        contents, "decision.json", "evidence/examples.npz", "evidence/baseline.npz", "evidence/candidate.npz"
    )
    whole = decision.reading("candidate_accuracy")
    sections = [
        heading(2, literal("Accuracy on the test split")),
        literal(
            f"Accuracy of the candidate on all test examples: {value_of(whole)} "
            f"(90 % interval {interval_of(whole)}, n = {_count(whole)}). A change is candidate minus "
            "baseline on the same examples."
        ),
        heading(3, literal("Overall and by slice")),
        _accuracy_table(judged, rest),
        source,
    ]
    if classes:
        sections += [heading(3, literal("By class")), _accuracy_table(judged, classes), source]
    return sections


def disparity_section(contents: Contents, judged: Judged) -> list[Markdown]:
    """Return what compression took from one slice more than from another."""
    gaps = [one for one in judged.decision.readings if one.metric.endswith("_change_gap")]
    rows = [
        (
            code(gap.metric),
            slice_words(rule or gap),
            _count(gap),
            value_of(rule or gap),
            interval_of(rule or gap),
            *judgement_of(rule),
        )
        for gap, rule in _ruled(judged, _ordered(gaps, contents.data))
    ]
    title = heading(2, literal("Disparity added by compression"))
    if not rows:
        return [title, literal("Not measured: no check compared slices, so nothing is claimed.")]
    header = ("Metric", "Between", "n", "Gap added", "90 % interval", *JUDGEMENT)
    return [
        title,
        literal(
            "How much more compression cost one slice than another; a gap that the baseline had is not in "
            "it. Every two levels of an attribute are compared in both directions, and the pair that comes "
            "nearest its limit, or breaks it, is shown."
        ),
        table(header, rows, "llrrrrrrl"),
        cite(contents, "decision.json", "evidence/groups.json", "evidence/examples.npz"),
    ]


def _attack_tables(contents: Contents, judged: Judged) -> list[Markdown]:
    """Robust accuracy of both models and each attack alone, then what the rules said of the change."""
    robust = [judged.decision.reading(f"{model}_robust_accuracy") for model in ("baseline", "candidate")]
    shown = [(literal("**all of them, the worst of each example**"), robust)]
    for name in contents.evidence.attacks.names:
        alone = [
            judged.decision.reading(f"{model}_attack_accuracy", f"attack={name}")
            for model in ("baseline", "candidate")
        ]
        shown.append((code(name), alone))
    accuracies = [
        (
            words,
            _count(baseline or candidate),
            value_of(baseline),
            interval_of(baseline),
            value_of(candidate),
            interval_of(candidate),
        )
        for words, (baseline, candidate) in shown
    ]
    changes = [
        (
            slice_words(change),
            _count(change),
            value_of(change),
            interval_of(change),
            *judgement_of(rule),
        )
        for change, rule in _ruled(
            judged, _ordered(judged.decision.readings_of("robust_accuracy_change"), contents.data)
        )
    ]
    header = ("Accuracy under", "n", "Baseline", "90 % interval", "Candidate", "90 % interval")
    return [
        table(header, accuracies, "lrrrrr"),
        table(("Change of robust accuracy", "n", "Change", "90 % interval", *JUDGEMENT), changes, "lrrrrrrl"),
    ]


def attack_section(contents: Contents, judged: Judged) -> list[Markdown]:
    """Return accuracy under the pool of attacks, and what that does not say."""
    attacks = contents.evidence.attacks
    named = ", ".join(code(name) for name in attacks.names)
    baseline, candidate = (f"{100 * share:.1f} %" for share in attacks.twin_agreement)
    return [
        heading(2, literal("Adversarial robustness")),
        literal(
            f"Attacks: {named}. No pixel may change by more than {attacks.epsilon:g} of the pixel range; "
            f"{len(attacks.ids):,} test examples were attacked, and both models saw every attack's images. "
            "Gradients were taken on differentiable twins, which predict what the ONNX files predict on "
            f"{baseline} (baseline) and {candidate} (candidate) of these examples."
        ),
        literal(PROVISO),
        *_attack_tables(contents, judged),
        cite(contents, "evidence/attacks.npz", "decision.json"),
    ]
