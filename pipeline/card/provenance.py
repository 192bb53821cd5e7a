# SPDX-License-Identifier: Apache-2.0
"""The sections on where the data came from, and how to check a card against its files."""

from __future__ import annotations

from collections import Counter

from pipeline.card.contents import CARD, Contents
from pipeline.card.figures import TO_COMPLETE, cite
from pipeline.markdown import Markdown, code, heading, literal, table, text

__all__ = ["data_section", "verify_section"]


def _slice_meaning(name: str, origins: object) -> Markdown:
    origin = origins.get(name) if isinstance(origins, dict) else None
    if not isinstance(origin, dict):
        return TO_COMPLETE
    if origin.get("from") == "pixels" and isinstance(origin.get("formula"), str):
        edges, levels = origin.get("edges"), origin.get("levels")
        cut = ""
        if isinstance(edges, list) and isinstance(levels, list):
            at = ", ".join(f"{float(edge):.4g}" for edge in edges)
            cut = f"; levels {text(', '.join(map(str, levels)))}, cut at {at}"
        return literal(f"computed from the pixels: {text(origin['formula'])}{cut}")
    return literal(f"given by the source; its meaning is {TO_COMPLETE}")


def data_section(contents: Contents) -> list[Markdown]:
    """Return sources, terms, splits, classes and the meaning of the slices."""
    data, findings = contents.data, list(contents.data_findings.entries("findings"))
    classes = data.texts("classes")
    sources = [
        (
            *(text(entry.text(key)) for key in ("source", "license", "consent")),
            literal(f"{entry.count('rows'):,}"),
        )
        for entry in data.entries("sources")
    ]
    splits = data.inner("splits")
    order = [name for name in ("train", "calibration", "validation", "test") if name in splits.value]
    order += sorted(set(splits.value) - set(order))
    origins = data.value.get("slice_origins")
    meanings = [(code(name), _slice_meaning(name, origins)) for name in data.texts("slices")]
    checks = Counter(entry.text("verdict") for entry in findings)
    told = ", ".join(f"{count} {text(verdict)}" for verdict, count in sorted(checks.items())) or "none ran"
    parts = [
        heading(2, literal("Data")),
        table(("Source", "Licence", "Consent", "Examples"), sources, "lllr"),
        table(
            ("Split", "Examples"), [(code(name), literal(f"{splits.count(name):,}")) for name in order], "lr"
        ),
        literal(f"Classes ({len(classes)}): {', '.join(text(name, 60) for name in classes)}."),
    ]
    if meanings:
        parts.append(table(("Slice column", "Meaning"), meanings))
    parts.append(literal(f"Checks of the data: {told}."))
    if contents.restricted_sha256:
        named = ", ".join(code(name) for name in contents.evidence.examples.restricted)
        parts.append(
            literal(
                f"Sensitive: {named}. What they say of single examples is not in this bundle but in a "
                f"restricted table of SHA-256 `{contents.restricted_sha256}`, which "
                "`leangate verify --restricted` takes; figures on them are of groups."
            )
        )
    return [*parts, cite(contents, "records/data.json", "data-findings.json")]


def verify_section(contents: Contents) -> list[Markdown]:
    """Return the digests of every file behind the card, ready for sha256sum."""
    listed = "\n".join(f"{digest}  {name}" for name, digest in sorted(contents.digests.items()))
    return [
        heading(2, literal("How to verify")),
        literal(
            f"In the bundle's folder, `sed -n '/^[0-9a-f]\\{{64\\}}  /p' {CARD} | sha256sum --check` "
            "re-hashes every file that a number of this card came from. `bundle.json` lists the same "
            "digests, those of all documents included. The decision follows from `policy.yaml` and "
            "`evidence/` alone, and can be judged again from them."
        ),
        literal(f"```text\n{listed}\n```"),
    ]
