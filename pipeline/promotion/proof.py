# SPDX-License-Identifier: Apache-2.0
"""What a registry derives itself when a version is registered, and compares with the files ever after."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from checks.attempts import read_attempt
from checks.canonical import sha256_file
from checks.errors import EvidenceError
from pipeline.attestation.envelopes import read_signed, who_signed
from pipeline.card.contents import ATTESTATIONS, MANIFEST, Contents, read_bundle
from pipeline.card.files import list_files
from pipeline.params import load_yaml
from pipeline.restricted import RESTRICTED_VARIABLE, find_restricted, restricted_folder
from pipeline.verification import verify_bundle

if TYPE_CHECKING:
    from securesystemslib.signer import Key

__all__ = [
    "ONNX",
    "Proof",
    "expect_counted_on",
    "expect_model_unchanged",
    "expect_signed",
    "expect_unchanged",
    "prove",
]

ONNX = "model.onnx"
_DESCRIPTION = "MLmodel"
_WRITTEN_BY_READERS = frozenset({"registered_model_meta"})
"""What MLflow puts into the model's folder when somebody reads it through the registry."""


@dataclass(frozen=True)
class Proof:
    """What was derived from a bundle and the files of a registered version.

    Attributes:
        onnx_sha256: Of the ONNX file that was judged.
        baseline_sha256: Of the ONNX file it was judged against.
        data_sha256: Of the examples it was judged on.
        policy_sha256: Of the policy it was judged under.
        decision_sha256: Of the decision.
        bundle_sha256: Of the bundle's manifest.
        makers: Ids of the keys that signed the bundle.
        attempt: The how manieth candidate its test split was shown: `number`, of the split `test_sha256`;
            `rounds` has the SHA-256 of the line of every round so far.
        waivers: What was waived: rule, slice, the last day on which it is, and the id of the key that did.
        bundle: Path to SHA-256 of every file of the bundle.
        model: Path to SHA-256 of every file that is loaded or shown with the model.
    """

    onnx_sha256: str
    baseline_sha256: str
    data_sha256: str
    policy_sha256: str
    decision_sha256: str
    bundle_sha256: str
    makers: tuple[str, ...]
    attempt: Mapping[str, Any]
    waivers: tuple[Mapping[str, str], ...]
    bundle: Mapping[str, str]
    model: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """Return it as an entry of the ledger holds it."""
        return asdict(self) | {"makers": list(self.makers), "waivers": [dict(one) for one in self.waivers]}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Proof:
        """Read it back."""
        lists = {key: tuple(value[key]) for key in ("makers", "waivers")}
        return cls(**(dict(value) | lists))


def _hash_all(folder: Path, digest: Callable[[Path], str] = sha256_file) -> dict[str, str]:
    return {
        name: digest(path) for name, path in list_files(folder).items() if name not in _WRITTEN_BY_READERS
    }


def _expect_loads(folder: Path) -> None:
    """Refuse a description by which MLflow would load anything but the ONNX file beside it."""
    path = folder / _DESCRIPTION
    try:
        value = load_yaml(path, EvidenceError)  # type: ignore[arg-type]
        flavors = dict(value["flavors"])
        onnx, python = dict(flavors["onnx"]), dict(flavors["python_function"])
    except (TypeError, KeyError, ValueError) as error:
        raise EvidenceError(
            "expected a model with the flavours onnx and python_function", where=str(path)
        ) from error
    for what, want, came in (
        ("only the flavours", ["onnx", "python_function"], sorted(flavors)),
        ("flavors.onnx.data", ONNX, onnx.get("data")),
        ("flavors.onnx.code", None, onnx.get("code")),
        ("flavors.onnx.onnx_session_options", None, onnx.get("onnx_session_options")),
        ("flavors.python_function.data", ONNX, python.get("data")),
        ("flavors.python_function.code", None, python.get("code")),
        ("flavors.python_function.loader_module", "mlflow.onnx", python.get("loader_module")),
    ):
        if want != came:
            raise EvidenceError(
                f"expected {what} {want}, got {came!r}"[:300],
                where=str(path),
                hint="what was judged is the ONNX file, and nothing else may run in its place",
            )


def _attempt(bundle: Path, contents: Contents) -> dict[str, Any]:
    """Return the attempt; refused if it was written down under another policy than the decision's."""
    path = bundle / "records" / "attempts.json"
    attempt = read_attempt(path)
    if attempt is None:
        raise EvidenceError("expected an attempt on a test split, got none", where=str(path))
    planned, decided = attempt.rounds[-1].policy_sha256, contents.digest("policy.yaml")
    if planned != decided:
        raise EvidenceError(
            f"expected a decision under the policy that lay there before the test split was looked at, "
            f"{planned}, got one under {decided}",
            where=str(path),
            hint="a policy is approved first; judge a new candidate, or on a fresh test split",
        )
    return {
        "test_sha256": attempt.test_sha256,
        "number": attempt.number,
        "rounds": [one.sha256 for one in attempt.rounds],
    }


def expect_counted_on(proof: Proof, earlier: Iterable[Proof]) -> None:
    """Refuse an attempt that was counted past what is registered on the same test split.

    Raises:
        EvidenceError: if the rounds of one are not the beginning of the other's.
    """
    mine = proof.attempt["rounds"]
    for other in earlier:
        theirs = other.attempt["rounds"]
        common = min(len(mine), len(theirs))
        if other.attempt["test_sha256"] == proof.attempt["test_sha256"] and mine[:common] != theirs[:common]:
            raise EvidenceError(
                f"expected attempt {proof.attempt['number']} counted on from the {len(theirs)} rounds that "
                "are registered on this test split, got another count",
                where="attempts.jsonl",
                hint="bring back the lines that were lost, and judge again; or take a fresh test split",
            )


def _expect_maker(bundle: Path, makers: Mapping[str, Key]) -> None:
    """Refuse files that no maker signed before any of them is read as evidence: anybody may send some."""
    path = bundle / ATTESTATIONS
    digests = _hash_all(bundle)
    if ATTESTATIONS not in digests:
        raise EvidenceError("expected signed attestations, got none", where=str(path), hint="sign the bundle")
    files = {name: digest for name, digest in digests.items() if name != ATTESTATIONS}
    signed, strangers = who_signed(bundle, files, makers)
    if not signed:
        by = ", ".join(key[:16] for key in strangers) or "nobody"
        raise EvidenceError(
            f"expected every statement signed by one of {len(makers)} trusted keys, got signatures of {by}",
            where=str(path),
            hint="the maker's public key belongs to the registry's makers",
        )


def _expect_derived(bundle: Path, contents: Contents, restricted: Path | None) -> None:
    """Refuse a signature in place of verdicts: whoever made the bundle does not answer for them here."""
    if contents.restricted_sha256 and find_restricted(bundle, restricted) is None:
        raise EvidenceError(
            "expected every verdict derived, got none: that needs the restricted table "
            f"{contents.restricted_sha256}",
            where=str(bundle),
            hint=f"the server's operator puts it as {contents.restricted_sha256}.npz into the folder that "
            f"{RESTRICTED_VARIABLE} names",
        )


def prove(
    bundle: Path,
    model: Path,
    makers: Mapping[str, Key],
    environment: Mapping[str, str] = os.environ,
) -> Proof:
    """Derive every verdict anew, and hold the files that would be loaded against what was judged.

    Args:
        bundle: The bundle that came with the version.
        model: The folder that MLflow would load.
        makers: Public keys by id; one of them must have signed the bundle.
        environment: `LEANGATE_RESTRICTED` names the folder of restricted tables, if there is one.

    Raises:
        EvidenceError: at the first thing that does not hold.
        LeanGateError: if it cannot be checked.
    """
    _expect_maker(bundle, makers)
    restricted = restricted_folder(environment)
    for step in verify_bundle(bundle, makers, restricted=restricted):
        if step.state == "unchecked":
            raise EvidenceError(
                f"expected all of it checked, got {step.name}: {step.said}", where=str(bundle)
            )
    _, contents = read_bundle(bundle)
    _expect_derived(bundle, contents, restricted)
    signed = read_signed(bundle, contents, makers)
    subject = contents.evidence.subject
    files = _hash_all(model)
    if files.get(ONNX) != subject.candidate_sha256:
        raise EvidenceError(
            f"expected the judged ONNX file {subject.candidate_sha256}, got {files.get(ONNX)}",
            where=str(model / ONNX),
            hint="register the file that was judged",
        )
    _expect_loads(model)
    for waiver in contents.waivers:
        if waiver.key_id in signed.keys:
            raise EvidenceError(
                f"expected {waiver.rule} waived by somebody who did not make the bundle, "
                f"got key {waiver.key_id[:16]} for both",
                where=str(bundle),
                hint="somebody else waives",
            )
    digests = _hash_all(bundle)
    return Proof(
        onnx_sha256=subject.candidate_sha256,
        baseline_sha256=subject.baseline_sha256,
        data_sha256=subject.data_sha256,
        policy_sha256=contents.digest("policy.yaml"),
        decision_sha256=contents.digest("decision.json"),
        bundle_sha256=digests[MANIFEST],
        makers=signed.keys,
        attempt=_attempt(bundle, contents),
        waivers=tuple(
            {"rule": one.rule, "slice": one.slice, "until": one.until.isoformat(), "key": one.key_id}
            for one in contents.waivers
        ),
        bundle=digests,
        model=files,
    )


def expect_unchanged(
    want: Mapping[str, str], folder: Path, what: str, digest: Callable[[Path], str] = sha256_file
) -> None:
    """Refuse a folder whose files are not, byte for byte, those that were recorded.

    Args:
        want: SHA-256 by path.
        folder: The folder.
        what: It is, for messages.
        digest: Of one file.

    Raises:
        EvidenceError: naming the files.
    """
    came = _hash_all(folder, digest)
    if came != want:
        differing = sorted(name for name in {**want, **came} if want.get(name) != came.get(name))
        more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
        raise EvidenceError(
            f"expected {what} as it was registered, got another {', '.join(differing[:3])}{more}",
            hint="files were replaced after the evidence was derived: find out by whom, register again",
        )


def expect_model_unchanged(proof: Proof, model: Path, digest: Callable[[Path], str] = sha256_file) -> None:
    """Refuse a model whose bytes are no longer those that were judged.

    Args:
        proof: What was derived.
        model: The folder that would be loaded.
        digest: Of one file.

    Raises:
        EvidenceError: naming the files.
    """
    expect_unchanged(proof.model, model, "the model", digest)


def expect_signed(proof: Proof, bundle: Path, makers: Mapping[str, Key]) -> None:
    """Check a registered bundle's files and signatures again, with the keys that count now.

    Raises:
        EvidenceError: if a file changed, or no key that counts has signed.
    """
    expect_unchanged(proof.bundle, bundle, "the bundle")
    # What the statements say was held against these very bytes when the version was registered.
    files = {name: digest for name, digest in proof.bundle.items() if name != ATTESTATIONS}
    if not who_signed(bundle, files, makers)[0]:
        raise EvidenceError(
            f"expected a bundle signed by one of {len(makers)} makers, got one by "
            + ", ".join(key[:16] for key in proof.makers),
            hint="the key was withdrawn; sign and register again",
        )
