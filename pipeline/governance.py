# SPDX-License-Identifier: Apache-2.0
"""`governance.yaml`: what only people can say of a model, typed; an answer left empty is printed as open."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from checks.errors import GovernanceError
from pipeline.params import load_yaml
from pipeline.section_errors import explain
from pipeline.sections import Section

__all__ = ["KEYS", "Governance", "Risk", "answers_to", "completed_by", "load_governance"]

Line = Annotated[str, Field(max_length=200)]
Answer = Annotated[str, Field(max_length=4_000)]
Answers = Annotated[tuple[Answer, ...], Field(max_length=50)]

_MAX_DEPTH = 6
_DEPLOYER = frozenset({"oversight.responsible"})


class Provider(Section):
    """Who answers for the model."""

    name: Line = ""
    contact: Line = ""


class Contacts(Section):
    """Whom to reach beside the provider."""

    incidents: Line = Field(default="", description="where incidents and errors are reported, and told")
    concerns: Line = Field(default="", description="where anybody may raise a concern")


class Use(Section):
    """What the model is for, and what it is not for."""

    purpose: Answer = ""
    users: Answer = Field(default="", description="who is meant to use it")
    affected: Answer = Field(default="", description="persons and groups it is likely to affect")
    deployment: Answer = Field(default="", description="where, in which form, under which conditions")
    system: Answer = Field(default="", description="hardware, software and interface around the model")
    instructions: Answer = Field(default="", description="the instructions for use, or where they are")
    out_of_scope: Answers = ()
    limitations: Answers = ()


class Oversight(Section):
    """How people keep control."""

    measures: Answers = ()
    responsible: Answer = Field(default="", description="who watches and may stop it; said by the deployer")


class Risk(Section):
    """One risk, and what is done about it."""

    risk: Annotated[str, Field(min_length=1, max_length=2_000)]
    measure: Annotated[str, Field(max_length=2_000)] = ""


class Risks(Section):
    """Where risks are managed."""

    reference: Answer = Field(default="", description="the risk management file, or where it is")
    impact_assessment: Answer = ""
    known: Annotated[tuple[Risk, ...], Field(max_length=50)] = ()


class Data(Section):
    """What no manifest can say of the data."""

    suitability: Answer = Field(default="", description="why these data suit the purpose")
    collection: Answer = Field(default="", description="how they were obtained, labelled and cleaned")
    personal: Answer = Field(default="", description="personal data in them, and on which ground")


class Security(Section):
    """Cybersecurity of the model and of what is around it."""

    measures: Answers = ()


class Monitoring(Section):
    """After the release."""

    plan: Answer = ""
    logs: Answer = ""
    changes: Answer = Field(default="", description="changes foreseen, and how changes are decided")


class Organisation(Section):
    """The organisation around the model."""

    policy: Answer = Field(default="", description="the AI policy, or where it is")
    roles: Answer = ""
    third_parties: Answer = Field(default="", description="what others supplied, and who answers for what")
    standards: Answer = Field(default="", description="standards applied, in full or in part")
    declaration: Answer = Field(default="", description="the EU declaration of conformity, or where it is")


class Governance(Section):
    """All of `governance.yaml`; every answer may be left out."""

    title: Line = ""
    version: Line = ""
    license: Annotated[str, Field(max_length=100, description="an SPDX id")] = ""
    provider: Provider = Provider()
    contacts: Contacts = Contacts()
    use: Use = Use()
    oversight: Oversight = Oversight()
    risks: Risks = Risks()
    data: Data = Data()
    security: Security = Security()
    monitoring: Monitoring = Monitoring()
    organisation: Organisation = Organisation()


def _keys(section: Section, prefix: str = "") -> tuple[str, ...]:
    names: list[str] = []
    for name, value in section:
        names += _keys(value, f"{prefix}{name}.") if isinstance(value, Section) else [f"{prefix}{name}"]
    return tuple(names)


KEYS = _keys(Governance())
"""Every answer by its dotted key, in order."""


def completed_by(key: str) -> str:
    """Return who owes an answer: `provider` or `deployer`."""
    return "deployer" if key in _DEPLOYER else "provider"


def answers_to(governance: Governance, key: str) -> tuple[str, ...]:
    """Return what was declared under a dotted key, none where it was left empty; a risk is one sentence.

    Raises:
        KeyError: if there is no such key.
    """
    if key not in KEYS:
        raise KeyError(key)
    value: Any = governance
    for part in key.split("."):
        value = getattr(value, part)
    entries = value if isinstance(value, tuple) else (value,)
    words = (
        (f"{entry.risk} Measure: {entry.measure}" if entry.measure.strip() else entry.risk)
        if isinstance(entry, Risk)
        else entry
        for entry in entries
    )
    return tuple(entry for entry in words if entry.strip())


def _plain(value: Any, where: str, depth: int = 0) -> Any:
    """Lists as the immutable tuples that sections hold; what has no value counts as left out."""
    if depth > _MAX_DEPTH:  # an alias within its own anchor never ends
        raise GovernanceError(f"expected at most {_MAX_DEPTH} levels, got more", where=where)
    if isinstance(value, list):
        return tuple(_plain(entry, where, depth + 1) for entry in value if entry is not None)
    if isinstance(value, dict):
        return {key: _plain(entry, where, depth + 1) for key, entry in value.items() if entry is not None}
    return value


def load_governance(path: Path) -> Governance:
    """Read and check `governance.yaml`; an empty file leaves every answer open.

    Raises:
        GovernanceError: naming every wrong key, if the file is missing or anything in it is wrong.
    """
    value = load_yaml(path, GovernanceError)
    if value is None:
        return Governance()
    if not isinstance(value, dict):
        raise GovernanceError("expected keys (title, provider, use, ...)", where=str(path))
    try:
        return Governance.model_validate(_plain(value, str(path)))
    except ValidationError as error:
        raise GovernanceError(
            "; ".join(explain(Governance, error)),
            where=str(path),
            hint="correct the named keys, of which docs/card.md has a list; numbers and dates need quotes",
        ) from error
