# SPDX-License-Identifier: Apache-2.0
"""What a bundle holds: every file re-hashed and held against the decision before a word is written."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from checks.attempts import expect_attempt, read_attempt
from checks.canonical import dumps, sha256_file, sha256_value
from checks.errors import EvidenceError, GovernanceError
from checks.evidence import RESTRICTED, Evidence, Subject, read_evidence
from pipeline.card.files import expect_names, list_files
from pipeline.decision_file import DECISION_SCHEMA, parse_decision
from pipeline.fields import Fields, read_fields
from pipeline.governance import Governance, load_governance
from pipeline.waiver import Waiver
from pipeline.waiver_file import WAIVERS, read_waivers

__all__ = [
    "ANNEX_IV",
    "ATTESTATIONS",
    "BOM",
    "BUNDLE_SCHEMA",
    "CARD",
    "CROSSWALK",
    "CROSSWALK_JSON",
    "DOCUMENTS",
    "GOVERNANCE",
    "MANIFEST",
    "PAGE",
    "RECORDS",
    "TABLES",
    "Contents",
    "expect_named",
    "read_bundle",
    "read_contents",
    "read_manifest",
    "with_digest",
]

BUNDLE_SCHEMA = "leangate/bundle/2"
MANIFEST = "bundle.json"
CARD = "MODEL_CARD.md"
PAGE = "MODEL_CARD.html"
ANNEX_IV = "compliance/annex-iv.md"
CROSSWALK = "compliance/crosswalk.md"
CROSSWALK_JSON = "compliance/crosswalk.json"
BOM = "bom.cdx.json"
GOVERNANCE = "governance.yaml"
ATTESTATIONS = "attestations.jsonl"

TABLES = (
    "examples.npz",
    "baseline.npz",
    "candidate.npz",
    "contract.npz",
    "attacks.npz",
    "cost.json",
    "groups.json",
    "timing.npz",
)
"""The evidence a decision rests on, in `evidence/`."""

RECORDS = ("attempts", "model", "compression", "baseline", "data", "selection", "shortlist", "verdict")
"""What the stages said of their outputs, in `records/`: the card's figures that are no evidence."""

DOCUMENTS = (CARD, PAGE, ANNEX_IV, CROSSWALK, CROSSWALK_JSON, BOM)
"""What is written from the other files, and says nothing that they do not."""

_ABOUT = (*DOCUMENTS, MANIFEST, ATTESTATIONS)
"""What describes the other files."""

SHA256 = re.compile(r"[0-9a-f]{64}")
_SELF = "manifest_sha256"
_STALE = "the files are of different runs, or were changed; run `dvc repro`"


@dataclass(frozen=True)
class Contents:
    """The files of a bundle that are judged or described, and what they say.

    Attributes:
        verdict: `records/verdict.json`.
        decision: `decision.json`.
        model: `records/model.json`, of the candidate.
        compression: `records/compression.json`, how the candidate was made.
        baseline: `records/baseline.json`, as `model`, of the baseline.
        data: `records/data.json`.
        data_findings: `data-findings.json`.
        evidence: The tables of `evidence/`.
        governance: `governance.yaml`, what people declare of the model.
        digests: Path below the bundle to SHA-256, without the documents and the manifest.
        waivers: Of `waivers.jsonl`; each lets one finding through that blocks, and none is there too many.
    """

    verdict: Fields
    decision: Fields
    model: Fields
    compression: Fields
    baseline: Fields
    data: Fields
    data_findings: Fields
    evidence: Evidence
    governance: Governance
    digests: Mapping[str, str]
    waivers: tuple[Waiver, ...] = ()

    @property
    def outcome(self) -> str:
        """`passed`, or `waived` where the decision is closed and waivers let it through."""
        return "waived" if self.waivers else "passed"

    @property
    def restricted_sha256(self) -> str | None:
        """SHA-256 of the table of sensitive slice columns, which no bundle holds; None if there is none."""
        return self.decision.inner("evidence").maybe_text(RESTRICTED)

    def digest(self, path: str) -> str:
        """Return the SHA-256 of one file of the bundle."""
        return self.digests[path]


def _expect(want: object, came: object, what: str, where: str) -> None:
    if want != came:
        raise EvidenceError(f"expected {what} {want}, got {came}"[:400], where=where, hint=_STALE)


def _expect_files(folder: Path, came: set[str]) -> None:
    want = {"model.onnx", "decision.json", "policy.yaml", GOVERNANCE, "data-findings.json"}
    want |= {f"evidence/{name}" for name in TABLES} | {f"records/{name}.json" for name in RECORDS}
    want |= {WAIVERS} & came  # only where something is waived
    _expect(sorted(want), sorted(came - {*_ABOUT}), "the files", str(folder))


def _check_model(model: Fields, sha256: str, size: int) -> None:
    _expect(sha256, model.text("sha256"), "SHA-256", model.where)
    _expect(size, model.count("bytes"), "bytes", model.where)


def _check_shortlist(shortlist: Fields, verdict: Fields, subject: Subject) -> None:
    slot, candidate = verdict.text("slot"), verdict.text("candidate")
    _expect(candidate, shortlist.inner("slots").maybe_text(slot), f"slot {slot} to hold", shortlist.where)
    _expect(
        subject.baseline_sha256, shortlist.inner("baseline").text("sha256"), "the baseline", shortlist.where
    )
    for entry in shortlist.entries("candidates"):
        if entry.text("name") == candidate:
            _expect(subject.candidate_sha256, entry.text("sha256"), "SHA-256", entry.where)
            return
    raise EvidenceError(f"expected {candidate} among the candidates", where=shortlist.where, hint=_STALE)


def _check_selection(selection: Fields, verdict: Fields, outcome: str) -> None:
    _expect(outcome, selection.text("outcome"), "outcome", selection.where)
    chosen = selection.inner("chosen")
    _expect(verdict.text("slot"), chosen.text("slot"), "slot", chosen.where)
    _expect(verdict.text("candidate"), chosen.text("candidate"), "candidate", chosen.where)
    _expect(verdict.text("onnx_sha256"), chosen.text("sha256"), "SHA-256", chosen.where)


def _check_decision(decision: Fields, verdict: Fields, waivers: Sequence[Waiver]) -> None:
    _expect(verdict.text("slot"), decision.text("slot"), "slot", decision.where)
    _expect(verdict.text("candidate"), decision.text("candidate"), "candidate", decision.where)
    if waivers:
        return  # its findings are held against the waivers, once the policy is known to be the one
    _expect("passed", decision.text("outcome"), "outcome", decision.where)
    _expect(True, decision.flag("open"), "open", decision.where)
    findings = list(decision.entries("findings"))
    if not any(entry.flag("blocking") for entry in findings):
        raise EvidenceError("expected findings of blocking rules, got none", where=decision.where)
    for entry in findings:
        verdict_of_rule = entry.text("verdict")
        wanted = "NO-FINDING" if entry.text("kind") == "screen" else "PASS"
        if verdict_of_rule == "ERROR" or (entry.flag("blocking") and verdict_of_rule != wanted):
            raise EvidenceError(
                f"expected an open decision to hold only what passed, got {verdict_of_rule}",
                where=entry.where,
                hint=_STALE,
            )


def _check_waivers(folder: Path, decision: Fields, verdict: Fields, waivers: Sequence[Waiver]) -> None:
    """Hold waivers against the findings: each that blocks has one, each has a finding, and each held once."""
    said = [entry.value for entry in verdict.entries("waived")] if "waived" in verdict.value else []
    outcome = verdict.maybe_text("outcome") or "passed"
    _expect("waived" if waivers else "passed", outcome, "outcome", verdict.where)
    if not waivers:
        _expect([], said, "waived", verdict.where)
        return
    from pipeline.policy_file import load_policy
    from pipeline.waivers import apply_waivers, object_to

    where, file = str(folder / WAIVERS), load_policy(folder / "policy.yaml")
    for waiver in waivers:
        # Whether it holds today is for whoever acts today: verify, register, the registry.
        if why := object_to(waiver, file, None):
            raise EvidenceError(
                f"expected waivers that the policy allows, got one of {waiver.rule}: {why}", where=where
            )
    judged = apply_waivers(parse_decision(decision), file, waivers, None)
    if judged.standing != "waived":
        stopping = [f"{one.verdict} of {one.rule} on {one.subject}" for one in judged.findings if one.stops]
        raise EvidenceError(
            f"expected a waiver for every finding that blocks, got none for {stopping[:3]}"[:400],
            where=where,
            hint=_STALE,
        )
    used = [one.waiver for one in judged.waived if one.waiver is not None]
    _expect(len(waivers), len(used), "waivers that let a finding through:", where)
    _expect([waiver.to_json() for waiver in used], said, "waived", verdict.where)


def _check_data(data: Fields, findings: Fields, subject: Subject) -> None:
    parts = {"examples.npz": data.text("examples_sha256"), "manifest.parquet": data.text("manifest_sha256")}
    _expect(subject.data_sha256, sha256_value(parts), "data", data.where)
    _expect(subject.data_sha256, findings.text("data_sha256"), "data", findings.where)
    _expect(True, findings.flag("open"), "open", findings.where)


def _check_restricted(evidence: Evidence, recorded: Fields, data: Fields) -> None:
    """Hold the columns that lie apart against what the data declare, and the decision's digest of them."""
    apart = list(evidence.examples.restricted)
    _expect(data.value.get("sensitive", []), apart, "the sensitive columns", "evidence/examples.npz")
    named = sorted([*TABLES, RESTRICTED] if apart else TABLES)
    _expect(named, sorted(recorded.value), "evidence", recorded.where)
    if apart and not SHA256.fullmatch(recorded.text(RESTRICTED)):
        raise EvidenceError("expected a SHA-256", where=f"{recorded.where} {RESTRICTED}")


def _check_attempt(path: Path, decision: Fields, evidence: Evidence) -> None:
    attempt = expect_attempt(
        read_attempt(path),
        test_sha256=evidence.examples.test_sha256,
        candidate_sha256=evidence.subject.candidate_sha256,
        where=str(path),
    )
    said = decision.inner("attempt")
    _expect(attempt.number, said.count("number"), "attempt", said.where)
    _expect(attempt.test_sha256, said.text("test_sha256"), "the test split", said.where)


def _subject(decision: Fields) -> Subject:
    fields = decision.inner("subject")
    return Subject(
        baseline_sha256=fields.text("baseline_sha256"),
        candidate_sha256=fields.text("candidate_sha256"),
        data_sha256=fields.text("data_sha256"),
        code_sha256=fields.text("code_sha256"),
    )


def _read_governance(path: Path) -> Governance:
    try:
        return load_governance(path)
    except GovernanceError as error:
        raise EvidenceError(error.what, where=error.where, hint=_STALE) from error


def read_contents(folder: Path, restricted: Path | None = None) -> Contents:
    """Read the files of a bundle and refuse any that is not what the decision was about.

    1. The files are exactly those of a bundle; each is hashed.
    2. The decision has the SHA-256 that the verdict names, is open, and passed; or every finding that blocks
       has a signed waiver in the bundle, by an approver of its policy, as the verdict says.
    3. The policy has the SHA-256 that decision and verdict name.
    4. The ONNX file has the SHA-256 of verdict, decision, selection, shortlist and its own two records.
    5. Every evidence file has the SHA-256 in the decision, and says itself that it is about this subject.
    6. Data, data findings and baseline are those of the decision.

    Args:
        folder: The bundle; the documents and the manifest may still be missing.
        restricted: The table of sensitive slice columns, of the digest that the decision names; None leaves
            them withheld.

    Raises:
        EvidenceError: if anything is missing, malformed, or of something else.
        StorageError: if a file cannot be read.
    """
    files = list_files(folder)
    _expect_files(folder, set(files))
    digests = {name: sha256_file(path) for name, path in files.items() if name not in _ABOUT}
    records = {
        name: read_fields(
            folder / "records" / f"{name}.json", f"leangate/{'model' if name == 'baseline' else name}/1"
        )
        for name in RECORDS
    }
    verdict = records["verdict"]
    _expect(
        verdict.text("decision_sha256"), digests["decision.json"], "SHA-256", str(folder / "decision.json")
    )
    decision = read_fields(folder / "decision.json", DECISION_SCHEMA)
    waivers = read_waivers(folder)
    _check_decision(decision, verdict, waivers)
    policy_sha256 = decision.inner("policy").text("sha256")
    _expect(policy_sha256, digests["policy.yaml"], "SHA-256", str(folder / "policy.yaml"))
    _expect(verdict.text("policy_sha256"), policy_sha256, "policy", decision.where)
    subject = _subject(decision)
    onnx = folder / "model.onnx"
    _expect(verdict.text("onnx_sha256"), digests["model.onnx"], "SHA-256", str(onnx))
    _expect(subject.candidate_sha256, digests["model.onnx"], "SHA-256", str(onnx))
    _check_waivers(folder, decision, verdict, waivers)
    _check_selection(records["selection"], verdict, "waived" if waivers else "passed")
    _check_shortlist(records["shortlist"], verdict, subject)
    _check_model(records["model"], digests["model.onnx"], onnx.stat().st_size)
    made = records["compression"]
    _expect(digests["model.onnx"], made.text("sha256"), "SHA-256", made.where)
    _expect(subject.baseline_sha256, records["baseline"].text("sha256"), "SHA-256", records["baseline"].where)
    recorded = decision.inner("evidence")
    for name in TABLES:
        _expect(recorded.text(name), digests[f"evidence/{name}"], "SHA-256", str(folder / "evidence" / name))
    evidence = read_evidence(folder / "evidence", folder / "evidence", subject, restricted)
    _check_restricted(evidence, recorded, records["data"])
    findings = read_fields(folder / "data-findings.json", "leangate/data-findings/1")
    _check_data(records["data"], findings, subject)
    _check_attempt(folder / "records" / "attempts.json", decision, evidence)
    return Contents(
        verdict=verdict,
        decision=decision,
        model=records["model"],
        compression=made,
        baseline=records["baseline"],
        data=records["data"],
        data_findings=findings,
        evidence=evidence,
        governance=_read_governance(folder / GOVERNANCE),
        digests=digests,
        waivers=waivers,
    )


def with_digest(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return a manifest with the SHA-256 of everything else in it: what damages it by accident is found.

    Args:
        manifest: The value of `bundle.json`, with or without its own digest.
    """
    value = {key: entry for key, entry in manifest.items() if key != _SELF}
    return value | {_SELF: sha256_value(value)}


def read_manifest(folder: Path) -> Fields:
    """Read `bundle.json` and refuse it unless the files are those it names, with their digests.

    Raises:
        EvidenceError: if a file is missing, unnamed or changed.
        StorageError: if a file cannot be read.
    """
    files = list_files(folder)
    manifest = read_fields(folder / MANIFEST, BUNDLE_SCHEMA)
    if (folder / MANIFEST).read_bytes() != dumps(with_digest(manifest.value)).encode():
        raise EvidenceError(
            f"expected {MANIFEST} as it was written, with its own digest, got another text",
            where=manifest.where,
            hint=_STALE,
        )
    named = manifest.inner("files")
    expect_names(named.value, f"{manifest.where} files")
    # Signatures are put around the whole, the manifest included.
    want, came = {*named.value, MANIFEST}, {*files} - {ATTESTATIONS}
    if want != came:
        told = [
            f"{word} {sorted(names)[:3]}"
            for word, names in (("no", want - came), ("also", came - want))
            if names
        ]
        raise EvidenceError(
            f"expected the {len(want)} files that {MANIFEST} names, got {' and '.join(told)}"[:400],
            where=str(folder),
            hint=_STALE,
        )
    for name in sorted(named.value):
        entry = named.inner(name)
        _expect(entry.count("bytes"), files[name].stat().st_size, "bytes", str(files[name]))
        _expect(entry.text("sha256"), sha256_file(files[name]), "SHA-256", str(files[name]))
    return manifest


def expect_named(manifest: Fields, contents: Contents) -> None:
    """Hold what the manifest says of its files against the files.

    Raises:
        EvidenceError: naming the key.
    """
    want: dict[str, object] = {
        name: contents.verdict.text(name)
        for name in ("slot", "candidate", "onnx_sha256", "policy_sha256", "decision_sha256")
    }
    want |= {"restricted_sha256": contents.restricted_sha256}  # None where the manifest has no such key
    want |= {"subject": contents.evidence.subject.to_json(), "passes": contents.compression.value["passes"]}
    for name, value in want.items():
        _expect(value, manifest.value.get(name), name, f"{manifest.where} {name}")


def read_bundle(folder: Path) -> tuple[Fields, Contents]:
    """Read a finished bundle and refuse it unless every digest of its manifest holds.

    Returns:
        `bundle.json`, and the contents.

    Raises:
        EvidenceError: if a file is missing, unnamed, changed, or about something else.
        StorageError: if a file cannot be read.
    """
    manifest = read_manifest(folder)
    contents = read_contents(folder)
    expect_named(manifest, contents)
    return manifest, contents
