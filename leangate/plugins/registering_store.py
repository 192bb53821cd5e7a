# SPDX-License-Identifier: Apache-2.0
"""Registering: a version that claims evidence is made only if all of it is derived anew, and holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion, ModelVersionTag
from mlflow.exceptions import MlflowException

from checks.errors import EvidenceError, LeanGateError
from leangate.plugins.artifacts import expect_kept_here, files_of, seal
from leangate.plugins.ledgered_store import LedgeredStore, folded, shown
from pipeline.promotion.config import Trust, load_trust
from pipeline.promotion.proof import (
    Proof,
    expect_counted_on,
    expect_model_unchanged,
    expect_signed,
    prove,
)

__all__ = ["PREFIX", "RegisteringStore"]

PREFIX = "leangate."
"""Of tags that this store alone writes."""

_BUNDLE_TAG = "leangate.bundle_sha256"
_CLAIMS = {
    "leangate.onnx_sha256": "onnx_sha256",
    "leangate.policy_sha256": "policy_sha256",
    "leangate.decision_sha256": "decision_sha256",
    _BUNDLE_TAG: "bundle_sha256",
}


_SAID_OF_ONE = ("leangate.approved.", "leangate.revoked")
"""How tags begin by which the registry shows what was said of one version."""
_DECLARED = {
    *("leangate.git_commit", "leangate.git_dirty", "leangate.dvc_lock_sha256", "leangate.candidate"),
    *("leangate.decision", "leangate.waived", "leangate.waived_until"),
}
"""Tags beside those, in the words of whoever registers; what they say of waivers has to be so."""


def _expect_true(claimed: Mapping[str, str], proof: Proof, where: str) -> None:
    """Refuse tags that only the registry writes, and such as deny a waiver."""
    unknown = sorted(set(claimed) - set(_CLAIMS) - _DECLARED)
    if unknown:
        raise EvidenceError(
            f"expected no tag {unknown[0]!r}"[:200],
            where=where,
            hint=f"tags that begin with {PREFIX} belong to the registry",
        )
    until = min((one["until"] for one in proof.waivers), default=None)
    for tag, want, needed in (
        ("leangate.decision", "passed" if until is None else "waived", until is not None),
        ("leangate.waived_until", until, until is not None),
    ):
        came = claimed.get(tag)
        if came != want and (needed or came is not None):
            raise EvidenceError(f"expected tag {tag} {want}, got {came}"[:300], where=where)
    if (claimed.get("leangate.waived") is None) is not (until is None):
        raise EvidenceError(
            f"expected tag leangate.waived {'where' if until else 'only where'} something is waived",
            where=where,
        )


class RegisteringStore(LedgeredStore):
    """A store whose versions with a bundle are proven."""

    def create_model_version(
        self,
        name: str,
        source: str,
        run_id: str | None = None,
        tags: Sequence[Any] | None = None,
        run_link: str | None = None,
        description: str | None = None,
        local_model_path: str | None = None,
        model_id: str | None = None,
    ) -> ModelVersion:
        """Create a version; one that claims evidence only if all of it is derived anew and holds."""
        # A copy comes with the tags of what it was copied from: what was said of that was not said of this.
        tags = [tag for tag in tags or () if not folded(tag.key).startswith(_SAID_OF_ONE)]
        claimed = {tag.key: tag.value for tag in tags if folded(tag.key).startswith(PREFIX)}
        kept = [ModelVersionTag(tag.key, tag.value) for tag in tags]
        rest = {
            "run_id": run_id,
            "run_link": run_link,
            "description": description,
            "local_model_path": local_model_path,
            "model_id": model_id,
        }
        if not claimed:
            with self._act("create-version", name, source=shown(source)) as act:
                made = super().create_model_version(name, source, tags=kept, **rest)
                act.version = str(made.version)
            return made
        place: dict[str, str] = {}
        try:
            trust = load_trust()
            proof, place = self._prove(name, source, run_id, model_id, claimed, trust)
        except LeanGateError as error:
            self._refuse("register", name, "", error, source=shown(source))
            raise
        except MlflowException as error:
            self._refuse("register", name, "", EvidenceError(str(error)), source=shown(source))
            raise
        except Exception as error:
            broken = EvidenceError(f"expected evidence, got {type(error).__name__}: {error}"[:300])
            self._refuse("register", name, "", broken, source=shown(source))
            raise
        with self._act("register", name, proof=proof.to_json(), **place) as act:
            expect_counted_on(proof, self._registered())
            self._close(proof, trust, **place)
            made = super().create_model_version(name, source, tags=kept, **rest)
            act.version = str(made.version)
            if super().get_model_version_download_uri(name, made.version) != place["model_uri"]:
                raise EvidenceError("expected the model where its evidence was derived, got another place")
        return made

    def _prove(
        self,
        name: str,
        source: str,
        run_id: str | None,
        model_id: str | None,
        claimed: Mapping[str, str],
        trust: Trust,
    ) -> tuple[Proof, dict[str, str]]:
        """Derive the evidence of a version that is to be; and where its files lie."""
        where = f"model {name!r}"
        model_uri = self._storage(source)
        if not run_id and model_id:
            run_id = MlflowClient().get_logged_model(model_id).source_run_id
        if not run_id:
            raise EvidenceError("expected the run that logged the bundle, got none", where=where)
        bundle_uri = f"{MlflowClient().get_run(run_id).info.artifact_uri}/bundle"
        for uri in (bundle_uri, model_uri):
            expect_kept_here(uri)
        with files_of(bundle_uri) as bundle, files_of(model_uri) as model:
            proof = prove(bundle, model, trust.makers)
        for tag, attribute in _CLAIMS.items():
            if tag in claimed and claimed[tag] != getattr(proof, attribute):
                raise EvidenceError(
                    f"expected tag {tag} {getattr(proof, attribute)}, got {claimed[tag]}"[:300], where=where
                )
        _expect_true(claimed, proof, where)
        if claimed.get(_BUNDLE_TAG) is None:
            raise EvidenceError(
                f"expected the tag {_BUNDLE_TAG} beside others of {PREFIX}, got none",
                where=where,
                hint=f"tags that begin with {PREFIX} belong to the registry",
            )
        return proof, {"bundle_uri": bundle_uri, "model_uri": model_uri}

    @staticmethod
    def _close(proof: Proof, trust: Trust, bundle_uri: str, model_uri: str) -> None:
        """Let nobody add to files that were proven; what was added since they were hashed is found."""
        for uri in (bundle_uri, model_uri):
            seal(uri)
        with files_of(bundle_uri) as bundle, files_of(model_uri) as model:
            expect_signed(proof, bundle, trust.makers)
            expect_model_unchanged(proof, model)

    def _storage(self, source: str) -> str:
        """Return where MLflow will say that the files of a source lie."""
        from mlflow.store.artifact.utils.models import _parse_model_uri

        if not source.startswith("models:"):
            return source
        parsed = _parse_model_uri(source)
        if parsed.model_id is not None:
            return str(MlflowClient().get_logged_model(parsed.model_id).artifact_location)
        return str(super().get_model_version_download_uri(parsed.name, parsed.version))

    def _registered(self) -> list[Proof]:
        return [Proof.from_json(entry.detail["proof"]) for entry in self._entries("", (), ("register",))]
