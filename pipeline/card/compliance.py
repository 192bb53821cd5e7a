# SPDX-License-Identifier: Apache-2.0
"""Which evidence speaks to which heading of which framework: an index, and no judgement.

Headings: Regulation (EU) 2024/1689 (AI Act); NIST AI 100-1 (AI RMF 1.0); ISO/IEC 42001:2023 Annex A.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.card.contents import Contents
from pipeline.card.figures import TO_COMPLETE
from pipeline.markdown import DASH, Markdown, join, literal, table
from pipeline.params import Bundle

__all__ = ["PROVISIONS", "Provision", "compliance_table"]


@dataclass(frozen=True)
class Provision:
    """One heading of a framework.

    Attributes:
        framework: Its short name.
        heading: Number and title.
        here: What this bundle holds that speaks to it, or nothing.
        files: Files of the bundle that hold it.
        declared: Fields of `params.yaml bundle` that a person has to fill in for it.
        missing: What it also asks for and no file here can show, or nothing.
    """

    framework: str
    heading: str
    here: str
    files: tuple[str, ...] = ()
    declared: tuple[str, ...] = ()
    missing: str = ""


_AI_ACT = "EU AI Act"
_NIST = "NIST AI RMF"
_ISO = "ISO/IEC 42001"

PROVISIONS = (
    Provision(
        _AI_ACT,
        "Art. 9 Risk management system",
        "limits on the harm compression may do, and the decision against them",
        ("policy.yaml", "decision.json"),
        missing="risks of the use itself, and how they are managed over the lifetime",
    ),
    Provision(
        _AI_ACT,
        "Art. 10 Data and data governance",
        "sources, licences, consent, splits, and the checks of the data",
        ("records/data.json", "data-findings.json"),
        missing="why these data suit the intended purpose",
    ),
    Provision(
        _AI_ACT,
        "Art. 11 Technical documentation",
        "how the model was made and measured",
        ("records/compression.json", "decision.json"),
        missing="the other parts of Annex IV",
    ),
    Provision(
        _AI_ACT,
        "Art. 12 Record-keeping",
        "the record of this decision",
        ("decision.json", "records/verdict.json"),
        missing="logs of the system in use",
    ),
    Provision(
        _AI_ACT,
        "Art. 13 Transparency and provision of information to deployers",
        "purpose, limitations and contact on this card",
        declared=("purpose", "limitations", "contact"),
        missing="instructions for use",
    ),
    Provision(
        _AI_ACT,
        "Art. 15 Accuracy, robustness and cybersecurity",
        "accuracy and accuracy under attack, example by example",
        ("evidence/baseline.npz", "evidence/candidate.npz", "evidence/attacks.npz"),
        missing="cybersecurity of the system around the model",
    ),
    Provision(
        _NIST,
        "MEASURE 2.1 Test sets, metrics and details about the tools",
        "test examples, measurements and methods",
        ("evidence/examples.npz", "decision.json"),
    ),
    Provision(
        _NIST,
        "MEASURE 2.5 Valid and reliable",
        "accuracy against the baseline, with intervals, and limitations",
        ("evidence/candidate.npz", "decision.json"),
        declared=("limitations",),
    ),
    Provision(
        _NIST,
        "MEASURE 2.7 Security and resilience",
        "outcomes of a pool of attacks on both models",
        ("evidence/attacks.npz",),
        missing="other threats than changed pixels",
    ),
    Provision(
        _NIST,
        "MEASURE 2.11 Fairness and bias",
        "accuracy by slice, and the disparity compression added",
        ("evidence/groups.json", "decision.json"),
        missing="whether these slices are the groups that matter in use",
    ),
    Provision(
        _NIST,
        "MANAGE 1.1 Whether to proceed",
        "the decision, and the policy it rests on",
        ("decision.json", "policy.yaml"),
        missing="the decision to deploy",
    ),
    Provision(_NIST, "MANAGE 4.1 Post-deployment monitoring", "", missing="a monitoring plan"),
    Provision(
        _ISO,
        "A.2 Policies related to AI",
        "the policy of the gate",
        ("policy.yaml",),
        missing="the AI policy",
    ),
    Provision(_ISO, "A.3 Internal organization", "", missing="roles, and how concerns are reported"),
    Provision(
        _ISO,
        "A.4 Resources for AI systems",
        "the data, by source and digest",
        ("records/data.json",),
        missing="system, computing and human resources",
    ),
    Provision(_ISO, "A.5 Assessing impacts of AI systems", "", missing="the impact assessment"),
    Provision(
        _ISO,
        "A.6 AI system life cycle",
        "verification and validation before release",
        ("decision.json", "records/model.json"),
        missing="requirements, deployment, operation and monitoring",
    ),
    Provision(
        _ISO,
        "A.7 Data for AI systems",
        "provenance, preparation and quality of the data",
        ("records/data.json", "data-findings.json"),
    ),
    Provision(
        _ISO,
        "A.8 Information for interested parties of AI systems",
        "this card",
        declared=("purpose", "limitations", "contact"),
        missing="incident communication",
    ),
    Provision(
        _ISO,
        "A.9 Use of AI systems",
        "the intended purpose",
        declared=("purpose",),
        missing="processes of use",
    ),
    Provision(
        _ISO, "A.10 Third-party and customer relationships", "", missing="how responsibilities are shared"
    ),
)
"""Every row of the index, in order."""


def _where(provision: Provision, contents: Contents, declared: Bundle) -> Markdown:
    cells = [literal(f"`{name}` (`{contents.digest(name)[:12]}`)") for name in provision.files]
    cells += [
        literal(f"{name}: {'declared input' if getattr(declared, name) else TO_COMPLETE}")
        for name in provision.declared
    ]
    return join(cells, ", ") if cells else DASH


def compliance_table(contents: Contents, declared: Bundle) -> Markdown:
    """Return the index: heading, what is here, where it is, what is left to the provider.

    Args:
        contents: Of the bundle; its digests are cited.
        declared: What the provider says of the model; empty answers show as open.
    """
    rows = [
        (
            literal(f"{provision.framework}, {provision.heading}"),
            literal(provision.here or "nothing"),
            _where(provision, contents, declared),
            literal(f"{provision.missing}: {TO_COMPLETE}") if provision.missing else DASH,
        )
        for provision in PROVISIONS
    ]
    return table(("Heading", "What is here", "Evidence", "What is not"), rows)
