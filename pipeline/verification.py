# SPDX-License-Identifier: Apache-2.0
"""A bundle checked from its own files alone: digests, chain, every verdict derived anew from the evidence.

Nothing is run and nothing is asked of a server: numpy and the pure checks are enough.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from checks.attempts import Attempt, read_attempt
from checks.canonical import dumps, read_json
from checks.decision import Decision, Outcome, decide
from checks.errors import EvidenceError
from checks.evidence import RESTRICTED
from pipeline.card.contents import (
    ATTESTATIONS,
    CARD,
    DOCUMENTS,
    Contents,
    expect_named,
    read_contents,
    read_manifest,
)
from pipeline.card.documents import documents
from pipeline.fields import Fields
from pipeline.judgement import describe, expect_attempted, expect_cost, expect_whole
from pipeline.plain import shorten
from pipeline.policy_file import PolicyFile, load_policy
from pipeline.restricted import find_restricted, measure_shown, measurements_shown
from pipeline.version import VERSION
from pipeline.waiver import today
from pipeline.waivers import check_waivers

if TYPE_CHECKING:
    from securesystemslib.signer import Key

__all__ = ["Step", "verify_bundle"]

_CHANGED = "the bundle was changed after it was made, or made by another version"
_SHOWN = 3
_MALFORMED = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


@dataclass(frozen=True)
class Step:
    """One thing that was looked at, and does not speak against the bundle.

    Attributes:
        name: In a word or two.
        said: What holds; or what was not checked, and why.
        state: `holds`; `none` where there was nothing to check; `unchecked` where it could not be.
    """

    name: str
    said: str
    state: Literal["holds", "none", "unchecked"] = "holds"


def _named(value: Mapping[str, Any]) -> dict[str, Any]:
    """Every finding and measurement under a name of its own, and the rest of a decision under its key."""
    found = {key: entry for key, entry in value.items() if key not in ("findings", "measurements")}
    for key in ("findings", "measurements"):
        for index, entry in enumerate(value.get(key, ())):
            what = entry.get("rule") or entry.get("metric")
            found[f"{key}[{index}] {what} on {entry.get('slice')}"] = entry
    return found


def _without_words(value: Mapping[str, Any]) -> dict[str, Any]:
    """A decision without its sentences, which another version may word otherwise."""
    findings = [
        {key: part for key, part in entry.items() if key != "message"} for entry in value.get("findings", ())
    ]
    return dict(value) | {"findings": findings}


def _expect_same(recorded: Mapping[str, Any], derived: Mapping[str, Any], where: str) -> None:
    if dumps(recorded) == dumps(derived):
        return
    one, other = _named(recorded), _named(derived)
    differing = [key for key in {**one, **other} if one.get(key) != other.get(key)]
    more = f", and {len(differing) - _SHOWN} more" if len(differing) > _SHOWN else ""
    raise EvidenceError(
        f"expected what follows from the evidence, got another {'; '.join(differing[:_SHOWN])}{more}",
        where=where,
        hint=_CHANGED,
    )


def _prepare(folder: Path, contents: Contents) -> tuple[PolicyFile, Attempt, str, str | None]:
    """Read policy, attempt, slot and candidate, and refuse evidence that contradicts itself."""
    file = load_policy(folder / "policy.yaml")
    slots = read_json(folder / "records" / "shortlist.json")["slots"]
    slot = contents.verdict.text("slot")
    where = folder / "evidence"
    expect_whole(contents.evidence, str(where))
    for model, record in (("baseline", contents.baseline), ("candidate", contents.model)):
        expect_cost(contents.evidence, model, record.value, f"{where / 'cost.json'} {model}")
    path = folder / "records" / "attempts.json"
    attempt = expect_attempted(read_attempt(path), contents.evidence, str(path))
    return file, attempt, slot, slots[slot]


def _derive(folder: Path, contents: Contents) -> dict[str, Any]:
    """Judge the evidence under the policy as the stage `gate` did."""
    file, attempt, slot, candidate = _prepare(folder, contents)
    decision = decide(file.checks, contents.evidence, file.policy, alpha=attempt.alpha(file.policy))
    return describe(slot, candidate, file, attempt, decision, contents.evidence)


def _verdicts(folder: Path, manifest: Fields, contents: Contents) -> Step:
    """Derive the decision whole."""
    recorded, derived = contents.decision.value, _derive(folder, contents)
    if manifest.inner("environment").text("leangate") != VERSION:
        recorded, derived = _without_words(recorded), _without_words(derived)
    _expect_same(recorded, derived, str(folder / "decision.json"))
    findings, measurements = derived["findings"], derived["measurements"]
    return Step(
        "verdicts",
        f"{len(findings)} findings and {len(measurements)} measurements follow from the evidence",
    )


def _verdicts_without(folder: Path, contents: Contents, trusted: Mapping[str, Key] | None) -> Step:
    """Derive what needs no column that is withheld: no verdict, since claims of harm are judged together."""
    file, attempt, slot, candidate = _prepare(folder, contents)
    recorded, sha256 = contents.decision.value, contents.restricted_sha256
    evidence, alpha = contents.evidence, attempt.alpha(file.policy)
    measured = measure_shown(evidence, file)
    made = Decision(Outcome.ERROR, (), measured, alpha)
    derived = describe(slot, candidate, file, attempt, made, evidence)
    derived["evidence"] |= {RESTRICTED: sha256}
    shown = measurements_shown(recorded["measurements"], evidence, file)
    _expect_same(
        _without_verdicts(dict(recorded) | {"measurements": shown}),
        _without_verdicts(derived),
        str(folder / "decision.json"),
    )
    names = ", ".join(shorten(name, 60) for name in evidence.examples.withheld)
    said = (
        f"{len(measured)} of {len(recorded['measurements'])} measurements follow from the evidence; the "
        f"others and all {len(recorded['findings'])} findings need {names}, in the restricted table {sha256}"
    )
    if trusted is None:
        lacking = "given by neither --restricted nor LEANGATE_RESTRICTED, and no trusted signature answers"
        return Step("verdicts", f"{said}: {lacking}", "unchecked")
    return Step("verdicts", f"{said}: the signature answers for them")


def _without_verdicts(value: Mapping[str, Any]) -> dict[str, Any]:
    return {key: entry for key, entry in value.items() if key not in ("findings", "outcome", "open")}


def _expect_documents(folder: Path, manifest: Fields, contents: Contents) -> None:
    """Write every document anew and compare byte for byte."""
    for name, want in documents(contents, manifest.inner("environment")).items():
        path = folder / name
        if not path.is_file():
            raise EvidenceError("expected a document, got none", where=str(path), hint=_CHANGED)
        if path.read_bytes() != want.encode():
            raise EvidenceError(
                "expected the text that follows from the evidence, got another one",
                where=str(path),
                hint=_CHANGED,
            )


def _signatures(
    folder: Path, contents: Contents, trusted: Mapping[str, Key] | None, revoked: Mapping[str, str]
) -> Step:
    """Check the attestations; only with keys to trust do they have to be there."""
    if trusted is None and not (folder / ATTESTATIONS).exists():
        return Step("signatures", "none: anyone could have made these files", "none")
    from pipeline.attestation.envelopes import read_signed

    signed = read_signed(folder, contents, trusted or {})
    stated = f"{len(signed.predicates)} statements are about these files"
    by = ", ".join(f"{key[:16]}{revoked.get(key, '')}" for key in signed.strangers) or "nobody"
    if trusted is None:
        return Step("signatures", f"{stated}; said to be signed by {by}, which --trust would check", "none")
    if not signed.keys:
        raise EvidenceError(
            f"expected every statement signed by one of {len(trusted)} trusted keys, got signatures of {by}",
            where=str(folder / ATTESTATIONS),
            hint="name the folder of the maker's public key with --trust",
        )
    return Step("signatures", f"{stated}, signed by {', '.join(key[:16] for key in signed.keys)}")


def _waivers(folder: Path, contents: Contents, on: date) -> Step:
    """Check that the waivers, whose signatures hold, still hold on a day."""
    check_waivers(load_policy(folder / "policy.yaml"), contents.waivers, on)
    told = "; ".join(
        f"{shorten(waiver.rule, 60)} on {shorten(waiver.subject, 120)} until {waiver.until} by "
        f"{shorten(waiver.approver, 60)}, key {waiver.key_id[:16]}"
        for waiver in contents.waivers
    )
    count = len(contents.waivers)
    words = "1 finding did not pass and is" if count == 1 else f"{count} findings did not pass and are"
    return Step("waivers", f"{words} waived on {on}: {told}")


def verify_bundle(
    folder: Path,
    trusted: Mapping[str, Key] | None = None,
    *,
    signatures: bool = True,
    on: date | None = None,
    revoked: Mapping[str, str] | None = None,
    restricted: Path | None = None,
) -> Iterator[Step]:
    """Check a bundle step by step.

    Args:
        folder: The bundle.
        trusted: Public keys by their ids, of which one must have signed; None asks for no signature.
        signatures: Whether to look at them; whoever signs anew does not.
        on: The day on which waivers must hold, UTC; today by default.
        revoked: Ids of keys that no longer count to what is known of it; none of them is in `trusted`.
        restricted: The table of sensitive slice columns, or a folder that may hold it as `<sha256>.npz`.

    Raises:
        InputError: if `restricted` is a file, and not the one that the decision names.
        EvidenceError: at the first thing that does not hold.
        PolicyError: if the policy is none.
        CheckError: if the policy names a check of a distribution that is not installed.
        StorageError: if a file cannot be read.
    """
    try:
        yield from _steps(
            folder,
            trusted,
            signatures=signatures,
            on=on or today(),
            revoked=revoked or {},
            restricted=restricted,
        )
    except _MALFORMED as error:
        # Files can be wrong in ways nobody thought of; what cannot be read as a bundle is none.
        raise EvidenceError(
            f"expected a bundle, got {type(error).__name__}: {error}"[:400], where=str(folder), hint=_CHANGED
        ) from error


def _steps(
    folder: Path,
    trusted: Mapping[str, Key] | None,
    *,
    signatures: bool,
    on: date,
    revoked: Mapping[str, str],
    restricted: Path | None,
) -> Iterator[Step]:
    manifest = read_manifest(folder)
    files = manifest.inner("files")
    total = sum(files.inner(name).count("bytes") for name in files.value)
    yield Step("files", f"{len(files.value)} files, {total:,} bytes, each with its SHA-256")
    contents = read_contents(folder, find_restricted(folder, restricted))
    expect_named(manifest, contents)
    about = contents.digest("model.onnx")
    yield Step("subject", f"decision, policy, records and evidence are about model.onnx {about}")
    if contents.evidence.examples.withheld:
        yield _verdicts_without(folder, contents, trusted)
    else:
        yield _verdicts(folder, manifest, contents)
    if contents.waivers:
        yield _waivers(folder, contents, on)
    maker = manifest.inner("environment").text("leangate")
    if maker == VERSION:
        _expect_documents(folder, manifest, contents)
        said = f"{CARD} and {len(DOCUMENTS) - 1} more say what follows from the evidence, and nothing else"
        yield Step("documents", said)
    else:
        other = f"leangate {maker} worded the documents, and this is another version"
        if trusted is None:
            yield Step("documents", f"not compared: {other}; --trust checks who signed it", "unchecked")
        else:
            yield Step("documents", f"{other}: the signature answers for its words")
    if signatures:
        yield _signatures(folder, contents, trusted, revoked)
