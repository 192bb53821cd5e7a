# SPDX-License-Identifier: Apache-2.0
"""A model registry that calls a version production only when its evidence was derived, signed and agreed to.

`mlflow server --registry-store-uri gated+sqlite:///registry.db`. What is refused answers 403 at once:
MLflow's clients try again for minutes what answers 500 or 503. Everything, refusals too, is in the ledger.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from typing import Any

from mlflow.entities.model_registry import ModelVersion, ModelVersionTag, RegisteredModelTag
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS
from mlflow.store.model_registry.dbmodels.models import SqlRegisteredModel

from checks.errors import EvidenceError, InputError, LeanGateError
from leangate.plugins.artifacts import files_of
from leangate.plugins.ledgered_store import MAX_REASON, Act, expect_kept, folded, numbered, refused, shown
from leangate.plugins.principal import principal
from leangate.plugins.registering_store import PREFIX, RegisteringStore
from pipeline.ledger.entries import Entry
from pipeline.promotion.config import CONFIG_VARIABLE, load_trust
from pipeline.promotion.proof import expect_model_unchanged, expect_signed
from pipeline.promotion.remembered import remembered_sha256
from pipeline.promotion.standing import (
    Standing,
    expect_agreed,
    expect_approval_fits,
    expect_not_replaced,
    expect_policy,
    expect_standing,
    first_held,
    holder_of,
    standing_of,
)
from pipeline.promotion.statements import in_force, open_approval, open_policy_approval

__all__ = ["APPROVE", "POLICY", "REVOKE", "GatedStore"]

APPROVE = "leangate.approve"
"""Set on a version, with an envelope: an approval."""
REVOKE = "leangate.revoke"
"""Set on a version, with a reason: it never counts again."""
POLICY = "leangate.policy"
"""Set on a registered model, with an envelope: a policy's approval."""

_STANDING_ACTS = ("register", "create-version", "approve", "revoke")
_MOST_BEHIND = 2.0
_READS = 3


class GatedStore(RegisteringStore):
    """A store whose protected aliases stand for what was proven and agreed to."""

    # What has to hold

    def _standing(self, name: str, version: str) -> Standing:
        return standing_of(self._entries(name, _STANDING_ACTS, ("policy",)), name, version)

    def _promoted(self, name: str) -> list[Entry]:
        return self._entries(name, ("promote",))

    def _governed(self, name: str) -> list[Entry]:
        return self._entries(name, ("register", "promote"))

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
        return folded(alias) in protected or not str(alias).isascii()

    def _expect_version(self, name: str, version: str) -> None:
        try:
            super().get_model_version(name, version)
        except MlflowException as error:
            raise EvidenceError(
                "expected a version whose evidence was derived when it was registered, got none",
                where=f"model {name!r}, version {version}",
                hint="`leangate run` registers one, and says its number",
            ) from error

    def _expect_spelled(self, alias: str, model: str) -> None:
        if not alias.isascii() or alias != folded(alias):
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

    # Aliases and stages

    def set_registered_model_alias(self, name: str, alias: str, version: str) -> None:
        """Move an alias; a protected one only to a version that may hold it."""
        if not self._protects(alias):
            with self._act("alias", name, version, alias=alias):
                super().set_registered_model_alias(name, alias, version)
            return
        number = numbered(version)
        with self._act("promote", name, number, alias=shown(alias)) as act:
            self._expect_spelled(str(alias), name)
            trust, now = load_trust(), datetime.now(UTC)
            self._expect_version(name, number)
            standing = self._standing(name, number)
            with self._files(name, number, str(standing.registered.detail["bundle_uri"])) as (bundle, model):
                expect_signed(standing.proof, bundle, trust.makers)
                expect_model_unchanged(standing.proof, model)
            self._expect_clock(act.since, now)
            expect_standing(standing, trust.makers, now)
            policy = expect_policy(standing, trust.owners, now)
            promoted = self._promoted(name)
            # What held the alias before comes back on the approvals it had then.
            agreed = expect_agreed(standing, policy, str(alias), now, first_held(promoted, standing, alias))
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
        if self._protects(alias) and str(alias) == folded(alias):
            why = InputError(
                f"expected to keep the alias {alias!r}, which is protected",
                where=f"model {name!r}",
                hint="promote another version, or revoke this one: readers are refused from then on",
            )
            self._refuse("delete-alias", name, "", why, alias=alias)
        with self._act("delete-alias", name, alias=shown(alias)):
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
            for _ in range(_READS):
                if held is None or held.version == number:
                    break
                # Perhaps it was moved between the two reads; only then do they agree the next time.
                found = super().get_model_version_by_alias(name, alias)
                number = str(found.version)
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
                expect_model_unchanged(standing.proof, model, remembered_sha256)
        except LeanGateError as error:
            self._record_refusal(Act("alias", name, number, {"alias": alias}), str(error), once=True)
            raise refused(error) from error
        except MlflowException:
            raise
        except Exception as error:  # it would be answered 500, and tried again for minutes
            broken = EvidenceError(f"expected a version that can be checked, got {type(error).__name__}")
            self._record_refusal(Act("alias", name, number, {"alias": alias}), str(broken), once=True)
            raise refused(broken) from error
        return found

    def transition_model_version_stage(
        self, name: str, version: str, stage: str, archive_existing_versions: bool
    ) -> ModelVersion:
        """Move a version to a stage other than Production, which is an alias here."""
        if folded(stage) == "production":
            why = InputError(
                "expected another stage than Production, which nothing proves",
                where=f"model {name!r}, version {version}",
                hint="set the alias `production`",
            )
            self._refuse("stage", name, version, why, stage=stage)
        with self._act("stage", name, version, stage=shown(stage)):
            return super().transition_model_version_stage(name, version, stage, archive_existing_versions)

    def get_latest_versions(self, name: str, stages: Sequence[str] | None = None) -> list[ModelVersion]:
        """Return the latest versions by stage; the stage Production is answered to nobody who asks for it."""
        found: list[ModelVersion] = super().get_latest_versions(name, stages)
        if stages and any(folded(stage) == "production" for stage in stages):
            for version in found:
                if folded(version.current_stage) == "production":
                    why = EvidenceError(
                        "expected no version in the stage Production, got one from before the gate",
                        where=f"model {name!r}, version {version.version}",
                        hint="promote it to the alias `production`",
                    )
                    raise refused(why)
        return found

    # Tags

    def set_model_version_tag(self, name: str, version: str, tag: Any) -> None:
        """Set a tag; two of our own are how approvals and revocations come in."""
        if tag.key == APPROVE:
            self._approve(name, numbered(version), str(tag.value))
        elif tag.key == REVOKE:
            self._revoke(name, numbered(version), str(tag.value))
        else:
            self._expect_free("version-tag", name, version, tag.key)
            with self._act("version-tag", name, version, key=shown(tag.key), value=shown(tag.value)):
                super().set_model_version_tag(name, version, tag)

    def delete_model_version_tag(self, name: str, version: str, key: str) -> None:
        """Remove a tag that is not ours."""
        self._expect_free("delete-version-tag", name, version, key)
        with self._act("delete-version-tag", name, version, key=shown(key)):
            super().delete_model_version_tag(name, version, key)

    def set_registered_model_tag(self, name: str, tag: Any) -> None:
        """Set a tag; one of our own is how approvals of policies come in."""
        if tag.key == POLICY:
            self._approve_policy(name, str(tag.value))
            return
        self._expect_free("model-tag", name, "", tag.key)
        with self._act("model-tag", name, key=shown(tag.key), value=shown(tag.value)):
            super().set_registered_model_tag(name, tag)

    def delete_registered_model_tag(self, name: str, key: str) -> None:
        """Remove a tag that is not ours."""
        self._expect_free("delete-model-tag", name, "", key)
        with self._act("delete-model-tag", name, key=shown(key)):
            super().delete_registered_model_tag(name, key)

    def _expect_free(self, act: str, name: object, version: object, key: object) -> None:
        if folded(key).startswith(PREFIX):
            why = InputError(
                f"expected a tag outside {PREFIX}, got {shown(key)!r}",
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
            if not words or len(words) > MAX_REASON or not words.isprintable():
                raise InputError(
                    f"expected a reason of 1 to {MAX_REASON} printable characters, got {len(words)}",
                    where=f"revocation of model {name!r}, version {version}",
                )
            self._standing(name, version)
            act.detail["reason"] = words
            super().set_model_version_tag(name, version, ModelVersionTag("leangate.revoked", words))

    def _approve_policy(self, name: str, envelope: str) -> None:
        with self._act("policy", name) as act:
            super().get_registered_model(name)
            owners, where = load_trust().owners, f"policy for model {name!r}"
            signed = open_policy_approval(envelope, owners, where)
            expect_not_replaced(self._entries("", (), ("policy",)), signed, owners, where)
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
            return session.query(SqlRegisteredModel).filter_by(name=name).first() is not None

    def update_registered_model(self, name: str, description: Any, **rest: Any) -> Any:
        """Change a description."""
        with self._act("update-model", name, description=shown(description)):
            return super().update_registered_model(name, description, **rest)

    def rename_registered_model(self, name: str, new_name: str) -> Any:
        """Rename a model about which the ledger says nothing that would then be said of another."""
        with self._act("rename-model", name, to=shown(new_name)):
            expect_kept(Act("rename-model", str(new_name)))
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
        with self._act("update-version", name, version, description=shown(description)):
            return super().update_model_version(name, version, description)

    def delete_model_version(self, name: str, version: str) -> None:
        """Delete a version that never held a protected alias."""
        with self._act("delete-version", name, version) as act:
            if any(entry.version == act.version for entry in self._promoted(name)):
                raise InputError(
                    "expected a version that never was in production, got one whose record is kept",
                    where=f"model {name!r}, version {version}",
                    hint="revoke it",
                )
            super().delete_model_version(name, version)
