# SPDX-License-Identifier: Apache-2.0
"""bundle: the chosen ONNX file, its evidence, documents about it, and a manifest with their digests."""

from __future__ import annotations

import os
import platform
import re
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

from checks.canonical import sha256_file
from checks.errors import EvidenceError
from checks.evidence import RESTRICTED
from pipeline.card.contents import (
    BUNDLE_SCHEMA,
    GOVERNANCE,
    MANIFEST,
    TABLES,
    Contents,
    read_bundle,
    read_contents,
    with_digest,
)
from pipeline.card.documents import documents
from pipeline.card.files import list_files
from pipeline.data.dataset import data_digest
from pipeline.fields import Fields, read_fields
from pipeline.files import output_dir, write_json, write_text
from pipeline.layout import Layout
from pipeline.params import Params
from pipeline.version import VERSION
from pipeline.waiver_file import WAIVERS, lines_of, write_lines

__all__ = ["run"]

_SLOT = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,39}")

_LIBRARIES = (
    *(
        "adversarial-robustness-toolbox",
        "fairlearn",
        "great-expectations",
        "markdown-it-py",
        "numpy",
        "onnx",
        "onnxruntime",
    ),
    *("onnxscript", "pandas", "pyarrow", "safetensors", "scikit-learn", "scipy", "torch"),
)
"""Distributions whose version could change a number or a byte of a bundle."""


def _sources(layout: Layout, slot: str) -> dict[str, Path]:
    """Path in the bundle to the file it is a copy of."""
    named = {
        "model.onnx": layout.finalist(slot) / "model.onnx",
        "decision.json": layout.decision(slot),
        "policy.yaml": layout.policy,
        GOVERNANCE: layout.governance,
        "data-findings.json": layout.validation / "findings.json",
        "records/model.json": layout.finalist(slot) / "model.json",
        "records/compression.json": layout.finalist(slot) / "compression.json",
        "records/attempts.json": layout.attempt(slot),
        "records/baseline.json": layout.baseline / "model.json",
        "records/data.json": layout.data / "data.json",
        "records/selection.json": layout.selection,
        "records/shortlist.json": layout.shortlist / "shortlist.json",
        "records/verdict.json": layout.verdict,
    }
    for name in TABLES:
        folder = layout.timing(slot) if name == "timing.npz" else layout.evidence(slot)
        named[f"evidence/{name}"] = folder / name
    for path in named.values():
        if not path.is_file():
            raise EvidenceError("expected a file, got none", where=str(path), hint="run `dvc repro`")
    return named


def _copy_waivers(folder: Path, layout: Layout) -> None:
    """Copy the lines that the verdict rests on, and no other: what was waived of others stays at home."""
    verdict = read_fields(layout.verdict, "leangate/verdict/1")
    if not verdict.value.get("waived"):
        return
    wanted = [entry.text("sha256") for entry in verdict.entries("waived")]
    lines = lines_of(layout.root)
    missing = [sha256 for sha256 in wanted if sha256 not in lines]
    if missing:
        raise EvidenceError(
            f"expected the waivers that the verdict names, got none of SHA-256 {missing[0]}",
            where=str(layout.root / WAIVERS),
            hint="run `dvc repro`",
        )
    write_lines(folder, [lines[sha256] for sha256 in wanted])


def _slot(layout: Layout) -> str:
    verdict = read_fields(layout.verdict, "leangate/verdict/1")
    slot = verdict.text("slot")
    if not _SLOT.fullmatch(slot):
        raise EvidenceError(f"expected a slot's name, got {slot!r}"[:120], where=f"{layout.verdict} slot")
    return slot


def _recount(layout: Layout) -> dict[str, Any]:
    """Count sources and splits in the manifest itself, whose digest the decision names."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = layout.data / "manifest.parquet"
    try:
        table = pq.read_table(path, columns=["split", "source", "license", "consent"])
        splits = table.group_by("split").aggregate([([], "count_all")]).to_pylist()
        sources = table.group_by(["source", "license", "consent"]).aggregate([([], "count_all")]).to_pylist()
    except (OSError, pa.ArrowException) as error:
        text = " ".join(str(error).split())
        raise EvidenceError(
            f"expected a manifest, got {text}", where=str(path), hint="run `dvc repro`"
        ) from error
    return {
        "splits": {str(row["split"]): row["count_all"] for row in splits},
        "sources": sorted(
            (row["source"], row["license"], row["consent"], row["count_all"]) for row in sources
        ),
    }


def _check_originals(layout: Layout, contents: Contents) -> None:
    """Hold what is described, but not copied, against the decision: the data and the baseline."""
    subject = contents.evidence.subject
    for what, want, came, path in (
        ("data", subject.data_sha256, data_digest(layout.data), layout.data),
        (
            "the baseline",
            subject.baseline_sha256,
            sha256_file(layout.baseline / "model.onnx"),
            layout.baseline,
        ),
    ):
        if came != want:
            raise EvidenceError(
                f"expected {what} {want}, got {came}", where=str(path), hint="run `dvc repro`"
            )
    _check_restricted(layout, contents)
    splits = contents.data.inner("splits")
    said = {
        "splits": {name: splits.count(name) for name in splits.value if splits.count(name)},
        "sources": sorted(
            (entry.text("source"), entry.text("license"), entry.text("consent"), entry.count("rows"))
            for entry in contents.data.entries("sources")
        ),
    }
    came_counts = _recount(layout)
    if said != came_counts:
        raise EvidenceError(
            f"expected the sources and splits of manifest.parquet, {came_counts}"[:400]
            + f", got {said}"[:400],
            where=str(layout.data / "data.json"),
            hint="the file was changed after it was made; run `dvc repro`",
        )


def _check_restricted(layout: Layout, contents: Contents) -> None:
    """Hold the table that stays here against the decision, which the bundle will name it by."""
    want = contents.restricted_sha256
    path = layout.evidence(contents.verdict.text("slot")) / RESTRICTED
    if want is not None and (not path.is_file() or sha256_file(path) != want):
        raise EvidenceError(
            f"expected the restricted table {want}, got none or another",
            where=str(path),
            hint="run `dvc repro`",
        )


def _at_origin(error: EvidenceError, folder: Path, sources: dict[str, Path]) -> EvidenceError:
    """Name the file that was copied: the copy is gone by the time anyone reads the message."""
    for name, source in sources.items():
        if error.where.startswith(str(folder / name)):
            return EvidenceError(
                error.what, where=error.where.replace(str(folder / name), str(source)), hint=error.hint
            )
    return error


def _environment() -> dict[str, str]:
    versions = {"python": platform.python_version(), "leangate": VERSION}
    for name in _LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _manifest(folder: Path, contents: Contents, environment: Fields) -> dict[str, Any]:
    verdict = contents.verdict
    return {
        "schema": BUNDLE_SCHEMA,
        "slot": verdict.text("slot"),
        "candidate": verdict.text("candidate"),
        "onnx_sha256": verdict.text("onnx_sha256"),
        "policy_sha256": verdict.text("policy_sha256"),
        "decision_sha256": verdict.text("decision_sha256"),
        **({"restricted_sha256": contents.restricted_sha256} if contents.restricted_sha256 else {}),
        "subject": contents.evidence.subject.to_json(),
        "passes": contents.compression.value["passes"],
        "environment": dict(environment.value),
        "files": {
            name: {"sha256": sha256_file(path), "bytes": path.stat().st_size}
            for name, path in list_files(folder).items()
        },
    }


def _sign(folder: Path, layout: Layout) -> None:
    """Sign the finished bundle, where the environment names a key."""
    from pipeline.attestation.keys import find_signer

    signer = find_signer(os.environ)
    if signer is None:
        return
    from pipeline.attestation.envelopes import attest
    from pipeline.attestation.origin import read_origin

    manifest, contents = read_bundle(folder)
    attest(folder, manifest, contents, read_origin(layout.root), signer)


def run(layout: Layout, params: Params) -> None:
    """Write the bundle: copies first, then judge the copies, so that what was hashed is what ships.

    Raises:
        EvidenceError: if any file is not the one the decision was about; nothing is written then.
        InputError: if the environment names a key that is none.
        StorageError: if a file cannot be read or written.
    """
    slot = _slot(layout)
    sources = _sources(layout, slot)
    with output_dir(layout.bundle) as folder:
        for name, source in sources.items():
            target = folder / name
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(source, target)
        _copy_waivers(folder, layout)
        try:
            contents = read_contents(folder)
        except EvidenceError as error:
            raise _at_origin(error, folder, sources) from error
        _check_originals(layout, contents)
        environment = Fields(_environment(), f"{MANIFEST} environment")
        for name, text in documents(contents, environment).items():
            write_text(folder / name, text)
        write_json(folder / MANIFEST, with_digest(_manifest(folder, contents, environment)))
        _sign(folder, layout)
