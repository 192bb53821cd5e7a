# SPDX-License-Identifier: Apache-2.0
"""The sections on what was decided and measured; each returns its blocks in order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from checks.canonical import dumps
from checks.errors import EvidenceError
from pipeline.card.contents import Contents
from pipeline.card.figures import (
    Finding,
    Judged,
    Reading,
    batch_size,
    cite,
    declared,
    interval_of,
    judgement_of,
    order_slices,
    slice_words,
    value_of,
)
from pipeline.card.markdown import DASH, Markdown, code, heading, literal, table, text
from pipeline.fields import Fields

__all__ = [
    "PROVISO",
    "accuracy_section",
    "attack_section",
    "compression_section",
    "decision_section",
    "disparity_section",
    "policy_section",
    "policy_words",
]

PROVISO = (
    "The claim is against this pool of attacks and this budget only: another attack may do better, so each "
    "accuracy is an upper bound on robustness, and none is a guarantee."
)
_SHOWN = ("accuracy_change", "accuracy_change_gap", "robust_accuracy_change")
_TIMES = "\N{MULTIPLICATION SIGN}"
_JUDGEMENT = ("Deciding bound", "Limit", "Verdict")


def policy_words(decision: Fields) -> Markdown:
    """Return the policy's name and digest."""
    policy = decision.inner("policy")
    return literal(f"policy {text(policy.text('name'), 100)} (`{policy.text('sha256')[:12]}`)")


def decision_section(contents: Contents, judged: Judged) -> list[Markdown]:
    """Return what was decided, on what, by which rules."""
    decision, subject = contents.decision, contents.evidence.subject
    counts = Counter(finding.verdict for finding in judged.findings)
    told = ", ".join(f"{count} {text(verdict)}" for verdict, count in sorted(counts.items()))
    finalists = decision.count("finalists")
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
        literal(
            f"**Passed.** {code(contents.verdict.text('candidate'))} meets every blocking rule of "
            f"{policy_words(decision)}. Findings: {told}."
        ),
        literal(
            f"Bounded rules were judged at a one-sided error of {decision.number('alpha_each'):g} "
            f"({decision.number('alpha'):g} shared by {finalists} finalist{'' if finalists == 1 else 's'}). "
            "Intervals below are 90 % intervals, each end a one-sided 95 % bound; the deciding bound is the "
            "one that the rule held against its limit."
        ),
        table(("What", "Name", "SHA-256"), [(literal(a), b, literal(f"`{c}`")) for a, b, c in rows]),
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
    sizes = [(batch_size(reading.metric) or 0, reading) for reading in judged.readings.values()]
    named = [
        (f"Time, batch of {size}", reading)
        for size, reading in sorted(sizes, key=lambda pair: pair[0])
        if size
    ]
    memory = judged.reading("peak_memory_ratio")
    named += [("Peak memory of a process", memory)] if memory else []
    return [(literal(title), DASH, DASH, value_of(reading), interval_of(reading)) for title, reading in named]


def _option(value: object) -> str:
    return value if isinstance(value, str) else " ".join(dumps(value).split())


def _passes(model: Fields) -> Markdown:
    rows = []
    for index, entry in enumerate(model.entries("passes"), start=1):
        told = {key: value for key, value in entry.value.items() if key not in ("pass", "options")}
        options = entry.maybe_inner("options")
        told |= dict(options.value) if options else {}
        words = ", ".join(f"{key} = {_option(value)}" for key, value in sorted(told.items()))
        rows.append((literal(str(index)), code(entry.text("pass")), text(words, limit=2_000) or DASH))
    if not rows:
        raise EvidenceError("expected at least one pass, got none", where=model.where)
    return table(("#", "Pass", "Options and outcome"), rows, "r")


def compression_section(contents: Contents, judged: Judged) -> list[Markdown]:
    """Return what compression saved, and how it was done."""
    header = ("Figure", "Baseline", "Candidate", "Candidate / baseline", "90 % interval")
    files = ("evidence/cost.json", "evidence/timing.npz", "records/model.json", "records/baseline.json")
    return [
        heading(2, literal("Compression")),
        table(header, [*_costs(contents), *_timings(judged)], "lrrrr"),
        cite(contents, *files, "decision.json"),
        literal("How the candidate was made, in this order:"),
        _passes(contents.model),
        cite(contents, "records/model.json"),
    ]


def _ruled(judged: Judged, readings: Iterable[Reading]) -> list[tuple[Reading, Finding | None]]:
    """Pair each measurement with each rule on it, or with None where there is no rule."""
    return [
        (reading, finding) for reading in readings for finding in (judged.findings_on(reading) or (None,))
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
            slice_words(change.slice),
            _count(change),
            value_of(judged.reading("baseline_accuracy", change.slice)),
            value_of(judged.reading("candidate_accuracy", change.slice)),
            value_of(change),
            interval_of(change),
            *judgement_of(rule),
        )
        for change, rule in _ruled(judged, changes)
    ]
    header = ("Slice", "n", "Baseline", "Candidate", "Change", "90 % interval", *_JUDGEMENT)
    return table(header, rows, "lrrrrrrrl")


def accuracy_section(contents: Contents, judged: Judged) -> list[Markdown]:
    """Return accuracy overall, by slice and by class."""
    changes = _ordered(judged.readings_of("accuracy_change"), contents.data)
    classes = [change for change in changes if change.slice.partition("=")[0] == "label"]
    rest = [change for change in changes if change not in classes]
    source = cite(
        contents, "decision.json", "evidence/examples.npz", "evidence/baseline.npz", "evidence/candidate.npz"
    )
    whole = judged.reading("candidate_accuracy")
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


def _compared(judged: Judged) -> list[Reading]:
    """Return one direction of each pair with a rule, and of every other attribute the widest gap."""
    worst: dict[object, tuple[float, Reading]] = {}
    gaps = judged.readings_of("accuracy_change_gap")
    ruled = {gap.slice.partition("=")[0] for gap in gaps if judged.findings_on(gap)}
    for gap in gaps:
        attribute = gap.slice.partition("=")[0]
        bounds = [finding.bound for finding in judged.findings_on(gap) if finding.bound is not None]
        pair = frozenset((gap.slice, gap.versus)) if attribute in ruled else attribute
        reach = max(bounds, default=gap.value)
        if pair not in worst or reach > worst[pair][0]:
            worst[pair] = reach, gap
    return [gap for _, gap in worst.values()]


def disparity_section(contents: Contents, judged: Judged) -> list[Markdown]:
    """Return what compression took from one slice more than from another."""
    rows = [
        (
            slice_words(gap.slice, gap.versus),
            _count(gap),
            value_of(gap),
            interval_of(gap),
            *judgement_of(rule),
        )
        for gap, rule in _ruled(judged, _ordered(_compared(judged), contents.data))
    ]
    title = heading(2, literal("Disparity added by compression"))
    if not rows:
        return [title, literal("Not measured: no check compared slices, so nothing is claimed.")]
    header = ("Between", "n", "Gap added", "90 % interval", *_JUDGEMENT)
    return [
        title,
        literal(
            "How much more accuracy compression cost one slice than another; a gap that the baseline had is "
            "not in it. Pairs are judged in both directions, and the one that came nearer its limit is "
            "shown; where no rule compares the levels of an attribute, its widest gap is."
        ),
        table(header, rows, "lrrrrrl"),
        cite(contents, "decision.json", "evidence/groups.json", "evidence/examples.npz"),
    ]


def _attack_tables(contents: Contents, judged: Judged) -> list[Markdown]:
    """Robust accuracy of both models and each attack alone, then what the rules said of the change."""
    robust = [judged.reading(f"{model}_robust_accuracy") for model in ("baseline", "candidate")]
    shown = [(literal("**all of them, the worst of each example**"), robust)]
    for name in contents.evidence.attacks.names:
        alone = [
            judged.reading(f"{model}_attack_accuracy", f"attack={name}")
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
            slice_words(change.slice),
            _count(change),
            value_of(change),
            interval_of(change),
            *judgement_of(rule),
        )
        for change, rule in _ruled(
            judged, _ordered(judged.readings_of("robust_accuracy_change"), contents.data)
        )
    ]
    header = ("Accuracy under", "n", "Baseline", "90 % interval", "Candidate", "90 % interval")
    return [
        table(header, accuracies, "lrrrrr"),
        table(("Change of robust accuracy", "n", "Change", "90 % interval", *_JUDGEMENT), changes, "lrrrrrl"),
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


def policy_section(contents: Contents, judged: Judged) -> list[Markdown]:
    """Return every rule with its reason, and the findings that no other section shows."""
    verdicts: dict[str, Counter[str]] = {}
    for finding in judged.findings:
        verdicts.setdefault(finding.rule, Counter())[finding.verdict] += 1
    first = {finding.rule: finding for finding in reversed(judged.findings)}
    rules = [
        (
            code(rule),
            literal(f"{text(first[rule].kind)}{'' if first[rule].blocking else ', advisory'}"),
            literal(", ".join(f"{count} {text(verdict)}" for verdict, count in sorted(counts.items()))),
            declared(first[rule].rule_reason),
        )
        for rule, counts in verdicts.items()
    ]
    others = [
        (
            code(finding.rule),
            code(finding.reading.metric),
            slice_words(finding.reading.slice, finding.reading.versus),
            value_of(finding.reading),
            *judgement_of(finding),
        )
        for finding in judged.findings
        if finding.reading.metric not in _SHOWN
    ]
    name = contents.decision.inner("policy").text("name")
    parts = [
        heading(2, literal("Policy")),
        literal(
            f"{text(name)}, SHA-256 `{contents.digest('policy.yaml')}`. Its rules, and why they are there:"
        ),
        table(("Rule", "Kind", "Findings", "Reason given"), rules),
    ]
    if others:
        header = ("Rule", "Metric", "On", "Value", *_JUDGEMENT)
        parts += [literal("Findings that no table above shows:"), table(header, others, "lllrrrl")]
    return [*parts, cite(contents, "decision.json", "policy.yaml")]
