# SPDX-License-Identifier: Apache-2.0
"""The model card: every number from the decision or from evidence, every table naming its file."""

from __future__ import annotations

from pipeline.card.compliance import crosswalk_index
from pipeline.card.contents import ANNEX_IV, BOM, CARD, GOVERNANCE, Contents
from pipeline.card.figures import (
    TO_COMPLETE,
    Judged,
    cite,
    declared,
    declared_at,
    read_judged,
    slice_words,
    title_of,
    value_of,
)
from pipeline.card.front import front_matter
from pipeline.card.method import LIMITATIONS
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
from pipeline.governance import answers_to
from pipeline.markdown import Markdown, bullets, code, heading, join, literal, table, text

__all__ = ["MAX_SUMMARY", "model_card", "summary"]

MAX_SUMMARY = 4_900
"""Registries keep a version's description in 5,000 characters."""

_MOST_BATCHES = 6


_ASKED = {
    "Purpose": "use.purpose",
    "Intended users": "use.users",
    "Not meant for": "use.out_of_scope",
    "Provider": "provider.name",
    "Contact": "provider.contact",
    "Version": "version",
    "Licence": "license",
}
"""What people declare at the head of the card."""


def model_card(contents: Contents) -> str:
    """Return the whole card.

    Args:
        contents: Of the bundle, checked.

    Raises:
        EvidenceError: if a figure that the card needs is malformed.
    """
    judged = read_judged(contents.decision, contents.waivers)
    governance = contents.governance
    limitations = [text(entry, 4_000) for entry in answers_to(governance, "use.limitations")]
    blocks = [
        literal(front_matter(contents, judged)),
        heading(1, text(title_of(contents))),
        bullets(literal(f"**{name}:** {declared_at(governance, key)}") for name, key in _ASKED.items()),
        cite(contents, GOVERNANCE),
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
        bullets(limitations or [TO_COMPLETE]),
        literal("Of the method:"),
        bullets(literal(entry) for entry in LIMITATIONS),
        *_oversight(contents),
        *verify_section(contents),
        heading(2, literal("Index for assessments")),
        *crosswalk_index(contents),
        literal(
            f"`{ANNEX_IV}` is the technical documentation as far as this bundle can tell it; `{BOM}` is "
            "the bill of materials (CycloneDX 1.6)."
        ),
    ]
    return join(blocks, "\n\n") + "\n"


def _oversight(contents: Contents) -> list[Markdown]:
    """Return what people declared of oversight, risks and monitoring."""
    asked = {
        "Measures": "oversight.measures",
        "Who watches and may stop it": "oversight.responsible",
        "Risk management": "risks.reference",
        "Monitoring": "monitoring.plan",
        "Incidents": "contacts.incidents",
    }
    return [
        heading(2, literal("Human oversight and monitoring")),
        bullets(
            literal(f"**{name}:** {declared_at(contents.governance, key)}") for name, key in asked.items()
        ),
        cite(contents, GOVERNANCE),
    ]


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


def summary(contents: Contents) -> str:
    """Return the short card for a registry: at most `MAX_SUMMARY` characters.

    Args:
        contents: Of the bundle, checked.
    """
    judged = read_judged(contents.decision, contents.waivers)
    words = "Waived, not passed, under" if contents.waivers else "Passed"
    passed = f"{words} {policy_words(contents.decision)} as {code(contents.verdict.text('candidate'))}."
    onnx_sha256 = contents.digest("model.onnx")
    blocks = [
        # Escaping makes a sign at most five characters, so even names of nothing but signs fit.
        literal(f"**{text(title_of(contents), 100)}**"),
        declared(contents.governance.use.purpose, 300),
        literal(passed),
        *waived_notice(contents),
        _glance(contents, judged),
        literal(PROVISO),
        literal(f"`model.onnx` has SHA-256 `{onnx_sha256}`; the full card is `{CARD}`."),
    ]
    return join(blocks, "\n\n")
