# SPDX-License-Identifier: Apache-2.0
"""A model registry that calls a version production only when its evidence was derived, signed and agreed to.

`mlflow server --registry-store-uri gated+sqlite:///registry.db`. What is refused answers 403 at once:
MLflow's clients try again for minutes what answers 500 or 503. Everything, refusals too, is in the ledger.
"""

from __future__ import annotations

import inspect
import os
import threading
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion, ModelVersionTag, RegisteredModel, RegisteredModelTag
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED, RESOURCE_ALREADY_EXISTS
from mlflow.store.model_registry.dbmodels.models import SqlRegisteredModel
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore

from checks.errors import EvidenceError, InputError, LeanGateError
from leangate.plugins.artifacts import expect_kept_here, files_of, seal
from leangate.plugins.ledger_table import LedgerTable
from leangate.plugins.principal import principal
from pipeline.ledger.entries import Entry, Head, append
from pipeline.ledger.verification import export_lines, read_checkpoint
from pipeline.promotion.config import CONFIG_VARIABLE, Trust, load_trust
from pipeline.promotion.proof import (
    Proof,
    expect_counted_on,
    expect_model_unchanged,
    expect_signed,
    prove,
)
from pipeline.promotion.standing import (
    Standing,
    expect_agreed,
    expect_approval_fits,
    expect_policy,
    expect_standing,
    first_held,
    holder_of,
    standing_of,
)
from pipeline.promotion.statements import in_force, open_approval, open_policy_approval

__all__ = ["APPROVE", "LEDGER", "POLICY", "PREFIX", "REVOKE", "GatedStore"]

PREFIX = "leangate."
"""Of tags that this store alone writes."""
APPROVE = "leangate.approve"
"""Set on a version, with an envelope: an approval."""
REVOKE = "leangate.revoke"
"""Set on a version, with a reason: it never counts again."""
POLICY = "leangate.policy"
"""Set on a registered model, with an envelope: a policy's approval."""
LEDGER = "leangate:ledger"
"""`get_registered_model` of this name, or of `leangate:ledger/N`, answers entries after the N-th, as tags."""

_BUNDLE_TAG = "leangate.bundle_sha256"
_CLAIMS = {
    "leangate.onnx_sha256": "onnx_sha256",
    "leangate.policy_sha256": "policy_sha256",
    "leangate.decision_sha256": "decision_sha256",
    _BUNDLE_TAG: "bundle_sha256",
}
_SCHEME = "gated+"
_REPLICA = "_MLFLOW_SERVER_READ_REPLICA_BACKEND_STORE"
_STANDING_ACTS = ("register", "create-version", "approve", "revoke")
_GOVERNED_ACTS = ("policy", "register", "approve", "promote", "revoke")
_PAGE = 200
_MAX_REASON = 1_000
_MOST_BEHIND = 2.0


@dataclass
class _Act:
    """What an entry will say; filled in while it happens."""

    act: str
    model: str
    version: str = ""
    detail: dict[str, Any] = field(default_factory=dict)
    since: datetime = datetime(1970, 1, 1, tzinfo=UTC)


def _folded(name: object) -> str:
    return unicodedata.normalize("NFKC", str(name)).casefold().strip()


def _database(uri: str) -> str:
    """Return the database behind a URI; of PostgreSQL's drivers pg8000, unless another is named."""
    plain = uri.removeprefix(_SCHEME)
    if plain.startswith("postgresql:"):
        return "postgresql+pg8000" + plain.removeprefix("postgresql")
    return plain


def _refused(error: LeanGateError) -> MlflowException:
    hint = f" ({error.hint})" if error.hint else ""
    return MlflowException(f"LeanGate refuses: {error}{hint}", error_code=PERMISSION_DENIED)


def _value(text: object) -> str:
    return str(text)[:200]


class GatedStore(SqlAlchemyStore):
    """MLflow's store of registered models, with a gate before every way to write.

    Args:
        store_uri: `gated+sqlite:///...`, `gated+postgresql://...` or `gated+postgresql+DRIVER://...`.
        tracking_uri: Unused; MLflow passes it.
    """

    def __init__(self, store_uri: str | None = None, tracking_uri: str | None = None) -> None:
        del tracking_uri
        super().__init__(_database(store_uri or ""), read_db_uri=os.environ.get(_REPLICA))
        self._ledger = LedgerTable(self.engine)
        self._local = threading.local()
        self._sessions: Any = self.ManagedSessionMaker  # type: ignore[has-type]
        self._read_only_known = "read_only" in inspect.signature(self._sessions).parameters
        # What the store does inside an act joins the act's transaction, so that entry and change are one.
        self.ManagedSessionMaker = self._joined

    def __getstate__(self) -> dict[str, Any]:
        raise TypeError("a gated store holds locks and is not pickled")

    @contextmanager
    def _joined(self, **options: Any) -> Iterator[Any]:
        session = getattr(self._local, "session", None)
        if session is None:
            with self._sessions(**options) as session:
                yield session
        else:
            yield session
            session.flush()

    def _writing(self) -> Any:
        return self._sessions(**({"read_only": False} if self._read_only_known else {}))

    # What is written down

    def _record(self, session: Any, head: Head, act: _Act) -> None:
        try:
            signer = load_trust().signer
        except InputError:
            signer = None  # nothing is promoted then; what was tried is written down all the same
        entry = append(head, act.act, act.model, act.version, act.detail, principal())
        self._ledger.add(session, head, entry, signer)

    @contextmanager
    def _act(self, act: str, model: object = "", version: object = "", **detail: Any) -> Iterator[_Act]:
        """Do something and write it down in one transaction; a refusal is written down in one of its own."""
        doing = _Act(act, str(model), str(version), detail)
        try:
            with self._writing() as session:
                head = self._ledger.lock(session)
                doing.since = head.at
                self._local.session = session
                try:
                    yield doing
                finally:
                    self._local.session = None
                self._record(session, head, doing)
        except MlflowException as error:
            if isinstance(
                cause := error.__cause__, LeanGateError
            ):  # MLflow's session wraps what it rolls back
                self._record_refusal(doing, str(cause))
                raise _refused(cause) from cause
            if act not in _GOVERNED_ACTS:
                raise
            self._record_refusal(doing, str(error))
            if error.get_http_status_code() >= 500:  # it would be tried again, for minutes
                raise MlflowException(
                    f"LeanGate refuses: the registry could not {act}: {error}", error_code=PERMISSION_DENIED
                ) from error
            raise
        except Exception as error:
            if act not in _GOVERNED_ACTS:
                raise
            self._record_refusal(doing, type(error).__name__)
            raise MlflowException(
                f"LeanGate refuses: the registry could not {act}: {type(error).__name__}",
                error_code=PERMISSION_DENIED,
            ) from error

    def _record_refusal(self, act: _Act, reason: str, *, once: bool = False) -> None:
        """Write a refusal down; where even that fails, the gate is closed all the same."""
        detail = {"attempted": act.act, "reason": reason[:_MAX_REASON]}
        detail |= {key: _value(value) for key, value in act.detail.items() if key != "proof"}
        try:
            with self._writing() as session:
                head = self._ledger.lock(session)
                last = self._ledger.last(session, act.model) if once else None
                if last is None or dict(last.detail) != detail or last.version != act.version:
                    self._record(session, head, _Act("refuse", act.model, act.version, detail))
        except Exception:
            return

    def _refuse(self, act: str, model: object, version: object, why: LeanGateError, **detail: Any) -> None:
        self._record_refusal(_Act(act, str(model), str(version), detail), str(why))
        raise _refused(why)

    # What has to hold

    def _entries(self, name: str, acts: Sequence[str], everywhere: Sequence[str] = ()) -> list[Entry]:
        with self.ManagedSessionMaker() as session:
            rows = self._ledger.select(session, name, acts, everywhere)
        # Outside: MLflow's session would turn what is wrong with an entry into an error of its own.
        return self._ledger.read(rows, load_trust().registry)

    def _standing(self, name: str, version: str) -> Standing:
        return standing_of(self._entries(name, _STANDING_ACTS, ("policy",)), name, version)

    def _promoted(self, name: str) -> list[Entry]:
        return self._entries(name, ("promote",))

    def _governed(self, name: str) -> list[Entry]:
        return self._entries(name, ("register", "promote"))

    def _registered(self) -> list[Proof]:
        return [Proof.from_json(entry.detail["proof"]) for entry in self._entries("", (), ("register",))]

    @contextmanager
    def _files(self, name: str, version: str, bundle_uri: str) -> Iterator[tuple[Any, Any]]:
        with ExitStack() as stack:
            bundle = stack.enter_context(files_of(bundle_uri))
            model = stack.enter_context(files_of(super().get_model_version_download_uri(name, version)))
            yield bundle, model

    def _protects(self, alias: object) -> bool:
        try:
            protected = load_trust().protected
        except InputError:
            if os.environ.get(CONFIG_VARIABLE, "").strip():
                return True  # nobody can say which are: none moves until the file can be read again
            protected = frozenset({"production", "champion"})
        return _folded(alias) in protected or not str(alias).isascii()

    def _expect_spelled(self, alias: str, model: str) -> None:
        if not alias.isascii() or alias != _folded(alias):
            raise EvidenceError(
                f"expected a protected alias as it is spelled, got {alias!r}, which looks like one",
                where=f"model {model!r}",
                hint="use ASCII, lower case",
            )

    @staticmethod
    def _expect_clock(since: datetime, now: datetime) -> None:
        behind = (since - now).total_seconds()
        if behind > _MOST_BEHIND:
            raise EvidenceError(
                f"expected a clock not behind the ledger's last entry, got one {behind:.0f} s behind",
                where="the registry's clock",
                hint="set the clock; until it has passed that entry nothing is promoted",
            )

    # Registering

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
        claimed = {tag.key: tag.value for tag in tags or () if _folded(tag.key).startswith(PREFIX)}
        kept = [ModelVersionTag(tag.key, tag.value) for tag in tags or ()]
        rest = {
            "run_id": run_id,
            "run_link": run_link,
            "description": description,
            "local_model_path": local_model_path,
            "model_id": model_id,
        }
        if not claimed:
            with self._act("create-version", name, source=_value(source)) as act:
                made = super().create_model_version(name, source, tags=kept, **rest)
                act.version = str(made.version)
            return made
        place: dict[str, str] = {}
        try:
            trust = load_trust()
            proof, place = self._prove(name, source, run_id, model_id, claimed, trust)
        except LeanGateError as error:
            self._refuse("register", name, "", error, source=_value(source))
            raise
        except MlflowException as error:
            self._refuse("register", name, "", EvidenceError(str(error)), source=_value(source))
            raise
        except Exception as error:
            broken = EvidenceError(f"expected evidence, got {type(error).__name__}: {error}"[:300])
            self._refuse("register", name, "", broken, source=_value(source))
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

    # Aliases and stages

    def set_registered_model_alias(self, name: str, alias: str, version: str) -> None:
        """Move an alias; a protected one only to a version that may hold it."""
        if not self._protects(alias):
            with self._act("alias", name, version, alias=alias):
                super().set_registered_model_alias(name, alias, version)
            return
        number = str(version)
        with self._act("promote", name, number, alias=_value(alias)) as act:
            self._expect_spelled(str(alias), name)
            trust, now = load_trust(), datetime.now(UTC)
            standing = self._standing(name, number)
            with self._files(name, number, str(standing.registered.detail["bundle_uri"])) as (bundle, model):
                expect_signed(standing.proof, bundle, trust.makers)
                expect_model_unchanged(standing.proof, model)
            self._expect_clock(act.since, now)
            expect_standing(standing, trust.makers, now)
            policy = expect_policy(standing, trust.owners, now)
            promoted = self._promoted(name)
            # What held the alias before comes back on the approvals it had then.
            agreed = expect_agreed(standing, policy, str(alias), first_held(promoted, standing, alias) or now)
            before = holder_of(promoted, name, str(alias))
            super().set_registered_model_alias(name, alias, version)
            proof = standing.proof
            act.detail |= {
                "from": "" if before is None else before.version,
                "registered": standing.registered.number,
                "approvals": [entry.number for entry in agreed],
                "onnx_sha256": proof.onnx_sha256,
                "bundle_sha256": proof.bundle_sha256,
                "policy_sha256": proof.policy_sha256,
                "decision_sha256": proof.decision_sha256,
            }

    def delete_registered_model_alias(self, name: str, alias: str) -> None:
        """Remove an alias, unless it is a protected one."""
        if self._protects(alias) and str(alias) == _folded(alias):
            why = InputError(
                f"expected to keep the alias {alias!r}, which is protected",
                where=f"model {name!r}",
                hint="promote another version, or revoke this one: readers are refused from then on",
            )
            self._refuse("delete-alias", name, "", why, alias=alias)
        with self._act("delete-alias", name, alias=_value(alias)):
            super().delete_registered_model_alias(name, alias)

    def get_model_version_by_alias(self, name: str, alias: str) -> ModelVersion:
        """Resolve an alias; a protected one only while everything about its version still holds."""
        found = super().get_model_version_by_alias(name, alias)
        if not self._protects(alias):
            return found
        number = str(found.version)
        try:
            self._expect_spelled(str(alias), name)
            trust, now = load_trust(), datetime.now(UTC)
            held = holder_of(self._promoted(name), name, str(alias))
            if held is None or held.version != number:
                raise EvidenceError(
                    f"expected version {'none' if held is None else held.version}, which the ledger says "
                    f"holds {alias!r}, got {number}",
                    where=f"model {name!r}",
                    hint="the database was changed past the registry, or the alias is older than the gate",
                )
            standing = self._standing(name, number)
            expect_standing(standing, trust.makers, now)
            expect_policy(standing, trust.owners, now)
            with files_of(super().get_model_version_download_uri(name, number)) as model:
                expect_model_unchanged(standing.proof, model)
        except LeanGateError as error:
            self._record_refusal(_Act("alias", name, number, {"alias": alias}), str(error), once=True)
            raise _refused(error) from error
        return found

    def transition_model_version_stage(
        self, name: str, version: str, stage: str, archive_existing_versions: bool
    ) -> ModelVersion:
        """Move a version to a stage other than Production, which is an alias here."""
        if _folded(stage) == "production":
            why = InputError(
                "expected another stage than Production, which nothing proves",
                where=f"model {name!r}, version {version}",
                hint="set the alias `production`",
            )
            self._refuse("stage", name, version, why, stage=stage)
        with self._act("stage", name, version, stage=_value(stage)):
            return super().transition_model_version_stage(name, version, stage, archive_existing_versions)

    def get_latest_versions(self, name: str, stages: Sequence[str] | None = None) -> list[ModelVersion]:
        """Return the latest versions by stage; the stage Production is answered to nobody who asks for it."""
        found: list[ModelVersion] = super().get_latest_versions(name, stages)
        if stages and any(_folded(stage) == "production" for stage in stages):
            for version in found:
                if _folded(version.current_stage) == "production":
                    why = EvidenceError(
                        "expected no version in the stage Production, got one from before the gate",
                        where=f"model {name!r}, version {version.version}",
                        hint="promote it to the alias `production`",
                    )
                    raise _refused(why)
        return found

    # Tags

    def set_model_version_tag(self, name: str, version: str, tag: Any) -> None:
        """Set a tag; two of our own are how approvals and revocations come in."""
        if tag.key == APPROVE:
            self._approve(name, str(version), str(tag.value))
        elif tag.key == REVOKE:
            self._revoke(name, str(version), str(tag.value))
        else:
            self._expect_free("version-tag", name, version, tag.key)
            with self._act("version-tag", name, version, key=_value(tag.key), value=_value(tag.value)):
                super().set_model_version_tag(name, version, tag)

    def delete_model_version_tag(self, name: str, version: str, key: str) -> None:
        """Remove a tag that is not ours."""
        self._expect_free("delete-version-tag", name, version, key)
        with self._act("delete-version-tag", name, version, key=_value(key)):
            super().delete_model_version_tag(name, version, key)

    def set_registered_model_tag(self, name: str, tag: Any) -> None:
        """Set a tag; one of our own is how approvals of policies come in."""
        if tag.key == POLICY:
            self._approve_policy(name, str(tag.value))
            return
        self._expect_free("model-tag", name, "", tag.key)
        with self._act("model-tag", name, key=_value(tag.key), value=_value(tag.value)):
            super().set_registered_model_tag(name, tag)

    def delete_registered_model_tag(self, name: str, key: str) -> None:
        """Remove a tag that is not ours."""
        self._expect_free("delete-model-tag", name, "", key)
        with self._act("delete-model-tag", name, key=_value(key)):
            super().delete_registered_model_tag(name, key)

    def _expect_free(self, act: str, name: object, version: object, key: object) -> None:
        if _folded(key).startswith(PREFIX):
            why = InputError(
                f"expected a tag outside {PREFIX}, got {_value(key)!r}",
                where=f"model {name!r}" + (f", version {version}" if version else ""),
                hint="what it would say is written by the registry alone",
            )
            self._refuse(act, name, version, why, key=key)

    def _approve(self, name: str, version: str, envelope: str) -> None:
        with self._act("approve", name, version) as act:
            super().get_model_version(name, version)
            trust, now = load_trust(), datetime.now(UTC)
            standing = self._standing(name, version)
            where = f"approval of model {name!r}, version {version}"
            expect_standing(standing, trust.makers, now)
            signed = open_approval(envelope, expect_policy(standing, trust.owners, now).approvers, where)
            expect_approval_fits(standing, signed)
            if not in_force(signed.predicate.until, now):
                raise EvidenceError(
                    f"expected an approval in force, got one until {signed.predicate.until}", where=where
                )
            by = principal()
            if by is not None and by == standing.registered.by:
                raise EvidenceError(
                    f"expected an approver who did not register the version, got {by!r} for both",
                    where=where,
                    hint="somebody else approves",
                )
            act.detail |= {"envelope": envelope, "key": signed.key, "until": signed.predicate.until}
            tag = ModelVersionTag(f"leangate.approved.{signed.key[:16]}", f"until {signed.predicate.until}")
            super().set_model_version_tag(name, version, tag)

    def _revoke(self, name: str, version: str, reason: str) -> None:
        with self._act("revoke", name, version) as act:
            super().get_model_version(name, version)
            words = " ".join(reason.split())
            if not words or len(words) > _MAX_REASON or not words.isprintable():
                raise InputError(
                    f"expected a reason of 1 to {_MAX_REASON} printable characters, got {len(words)}",
                    where=f"revocation of model {name!r}, version {version}",
                )
            self._standing(name, version)
            act.detail["reason"] = words
            super().set_model_version_tag(name, version, ModelVersionTag("leangate.revoked", words))

    def _approve_policy(self, name: str, envelope: str) -> None:
        with self._act("policy", name) as act:
            super().get_registered_model(name)
            signed = open_policy_approval(envelope, load_trust().owners, f"policy for model {name!r}")
            act.detail |= {
                "envelope": envelope,
                "key": signed.key,
                "policy_sha256": signed.subject,
                "until": signed.predicate.until,
            }
            tag = RegisteredModelTag(
                f"leangate.policy.{signed.subject[:16]}", f"approved until {signed.predicate.until}"
            )
            super().set_registered_model_tag(name, tag)

    # The rest of what can be written

    def create_registered_model(
        self, name: str, tags: Any = None, description: Any = None, **rest: Any
    ) -> Any:
        """Create a registered model without tags of ours."""
        for tag in tags or ():
            self._expect_free("create-model", name, "", tag.key)
        if self._exists(name):  # MLflow says so, and tells models from prompts
            return super().create_registered_model(name, tags, description, **rest)
        with self._act("create-model", name):
            if self._exists(name):  # made since, by another worker
                raise MlflowException(f"{name} already exists", error_code=RESOURCE_ALREADY_EXISTS)
            return super().create_registered_model(name, tags, description, **rest)

    def _exists(self, name: str) -> bool:
        with self.ManagedSessionMaker() as session:
            return self._get_query(session, SqlRegisteredModel).filter_by(name=name).first() is not None

    def update_registered_model(self, name: str, description: Any, **rest: Any) -> Any:
        """Change a description."""
        with self._act("update-model", name, description=_value(description)):
            return super().update_registered_model(name, description, **rest)

    def rename_registered_model(self, name: str, new_name: str) -> Any:
        """Rename a model about which the ledger says nothing that would then be said of another."""
        with self._act("rename-model", name, to=_value(new_name)):
            if self._governed(name) or self._governed(new_name):
                raise InputError(
                    "expected a model without evidence, got one whose evidence names it",
                    where=f"model {name!r}",
                    hint="register under the new name",
                )
            return super().rename_registered_model(name, new_name)

    def delete_registered_model(self, name: str) -> None:
        """Delete a model of which no version ever held a protected alias."""
        with self._act("delete-model", name):
            if self._promoted(name):
                raise InputError(
                    "expected a model that never was in production, got one whose record is kept",
                    where=f"model {name!r}",
                )
            super().delete_registered_model(name)

    def update_model_version(self, name: str, version: str, description: Any = None) -> Any:
        """Change a description."""
        with self._act("update-version", name, version, description=_value(description)):
            return super().update_model_version(name, version, description)

    def delete_model_version(self, name: str, version: str) -> None:
        """Delete a version that never held a protected alias."""
        with self._act("delete-version", name, version):
            if any(entry.version == str(version) for entry in self._promoted(name)):
                raise InputError(
                    "expected a version that never was in production, got one whose record is kept",
                    where=f"model {name!r}, version {version}",
                    hint="revoke it",
                )
            super().delete_model_version(name, version)

    # Reading the ledger

    def get_registered_model(self, name: str) -> RegisteredModel:
        """Return a registered model; under the reserved name a page of the ledger."""
        if name != LEDGER and not str(name).startswith(f"{LEDGER}/"):
            return super().get_registered_model(name)
        start = str(name).removeprefix(LEDGER).removeprefix("/") or "0"
        if not (start.isascii() and start.isdecimal() and len(start) < 16):
            raise _refused(InputError(f"expected the number of an entry, got {start!r}"[:100], where=LEDGER))
        with self.ManagedSessionMaker() as session:
            page = self._ledger.page(session, int(start), _PAGE)
        lines = export_lines((line, read_checkpoint(mark, f"entry {number}")) for number, line, mark in page)
        tags = [
            RegisteredModelTag(f"{number:016d}", line)
            for (number, _, _), line in zip(page, lines, strict=True)
        ]
        return RegisteredModel(LEDGER, 0, 0, "The ledger of this registry", [], tags)
