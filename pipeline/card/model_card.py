# SPDX-License-Identifier: Apache-2.0
"""The model card: every number from the decision or from evidence, every table naming its file."""

from __future__ import annotations

from pipeline.card.compliance import compliance_table
from pipeline.card.contents import CARD, Contents
from pipeline.card.figures import Judged, cite, declared, read_judged, slice_words, value_of
from pipeline.card.front import front_matter
from pipeline.card.provenance import data_section, verify_section
from pipeline.card.rules import flips_section, policy_section, screens_section
from pipeline.card.sections import (
    PROVISO,
    accuracy_section,
    attack_section,
    compression_section,
    decision_section,
    disparity_section,
    policy_words,
)
from pipeline.card.waived import waived_notice, waivers_section
from pipeline.fields import Fields
from pipeline.markdown import Markdown, bullets, code, heading, join, literal, table, text
from pipeline.params import Bundle
from pipeline.report.wording import SEARCH

__all__ = ["MAX_SUMMARY", "model_card", "summary"]

MAX_SUMMARY = 4_900
"""Registries keep a version's description in 5,000 characters."""

_MOST_BATCHES = 6

_LIMITATIONS = (
    "Every claim holds for the population the test examples were drawn from, and for no other.",
    (
        "Proof has an error rate: a candidate that violates a bounded rule passes it with a probability of "
        "at most the error stated above (up to half as much again for gaps and ratios between small groups, "
        "whose bounds are approximate). All attempts on one test split together err with at most the "
        "policy's alpha, as long as nobody builds a candidate from what this split showed of an earlier one."
    ),
    f"Screens search for trouble. {SEARCH}",
    "Time, energy and memory hold on the machine that measured them; another machine may give other figures.",
    "Harm is measured against the baseline; faults that the baseline already had are still there.",
)


def model_card(contents: Contents, provider: Bundle) -> str:
    """Return the whole card.

    Args:
        contents: Of the bundle, checked.
        provider: What the provider says of the model.

    Raises:
        EvidenceError: if a figure that the card needs is malformed.
    """
    judged = read_judged(contents.decision, contents.waivers)
    answers = {"Purpose": provider.purpose, "Licence": provider.license, "Contact": provider.contact}
    limitations = [declared(entry) for entry in provider.limitations] or [declared("")]
    blocks = [
        literal(front_matter(contents, judged, provider)),
        heading(1, text(provider.title)),
        bullets(literal(f"**{name}:** {declared(answer)}") for name, answer in answers.items()),
        *waived_notice(contents),
        _glance(contents, judged),
        cite(contents, "decision.json", "evidence/cost.json"),
        *decision_section(contents, judged),
        *waivers_section(contents, judged),
        *compression_section(contents, judged),
        *accuracy_section(contents, judged),
        *disparity_section(contents, judged),
        *attack_section(contents, judged),
        *flips_section(contents, judged),
        *screens_section(contents, judged),
        *policy_section(contents, judged),
        *data_section(contents),
        heading(2, literal("Limitations")),
        literal("Declared by the provider:"),
        bullets(limitations),
        literal("Of the method:"),
        bullets(literal(entry) for entry in _LIMITATIONS),
        *verify_section(contents),
        heading(2, literal("Index for assessments")),
        literal(
            "Which file speaks to which heading. Whether a heading is met is for the provider and the "
            "assessor to judge; nothing here says so."
        ),
        compliance_table(contents, provider),
    ]
    return join(blocks, "\n\n") + "\n"


def _glance(contents: Contents, judged: Judged) -> Markdown:
    """Return the table most readers stop at."""
    cost = Fields(contents.evidence.cost, "evidence/cost.json")
    before, after = (cost.inner(side).count("bytes") for side in ("baseline", "candidate"))
    rows = {"File, bytes": literal(f"{before:,} → {after:,}")}
    for metric, words in (("accuracy", "Accuracy"), ("robust_accuracy", "Accuracy under attack")):
        both = [value_of(judged.decision.reading(f"{model}_{metric}")) for model in ("baseline", "candidate")]
        rows[words] = join(both, " → ")
    changes = judged.decision.slices_of("accuracy_change")
    if changes:
        worst = min(changes, key=lambda reading: (reading.value, reading.slice))
        rows["Change on the worst slice"] = literal(f"{value_of(worst)} ({slice_words(worst)})")
    for size, reading in judged.decision.by_batch("latency_ratio")[-_MOST_BATCHES:]:
        rows[f"Time, batch of {size}"] = literal(f"{value_of(reading)} of the baseline's")
    cells = [(literal(words), value) for words, value in rows.items()]
    return table(("Test split", "Baseline → candidate"), cells, "lr")


def summary(contents: Contents, provider: Bundle) -> str:
    """Return the short card for a registry: at most `MAX_SUMMARY` characters.

    Args:
        contents: Of the bundle, checked.
        provider: What the provider says of the model.
    """
    judged = read_judged(contents.decision, contents.waivers)
    words = "Waived, not passed, under" if contents.waivers else "Passed"
    passed = f"{words} {policy_words(contents.decision)} as {code(contents.verdict.text('candidate'))}."
    onnx_sha256 = contents.digest("model.onnx")
    blocks = [
        # Escaping makes a sign at most five characters, so even names of nothing but signs fit.
        literal(f"**{text(provider.title, 100)}**"),
        declared(provider.purpose, 300),
        literal(passed),
        *waived_notice(contents),
        _glance(contents, judged),
        literal(PROVISO),
        literal(f"`model.onnx` has SHA-256 `{onnx_sha256}`; the full card is `{CARD}`."),
    ]
    return join(blocks, "\n\n")
