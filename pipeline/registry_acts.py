# SPDX-License-Identifier: Apache-2.0
"""Acts on a gated registry, and its ledger, through MLflow's own client.

An approval, a revocation and a policy's approval are tags that the registry takes in and answers by itself:
whoever has MLflow's client, and not LeanGate, can send them too.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from checks.errors import InputError, RegistryError
from pipeline.registry_client import URI, connected, redact

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = ["Registry", "open_registry"]

_APPROVE = "leangate.approve"
_REVOKE = "leangate.revoke"
_POLICY = "leangate.policy"
_LEDGER = "leangate:ledger"


@dataclass(frozen=True)
class Registry:
    """A registry to act on.

    Attributes:
        client: MLflow's.
        uri: Where it is, without passwords.
    """

    client: MlflowClient
    uri: str

    def promote(self, model: str, version: str, alias: str) -> None:
        """Move an alias."""
        self.client.set_registered_model_alias(model, alias, version)

    def approve(self, model: str, version: str, envelope: str) -> None:
        """Send an approval."""
        self.client.set_model_version_tag(model, version, _APPROVE, envelope)

    def revoke(self, model: str, version: str, reason: str) -> None:
        """Revoke a version."""
        self.client.set_model_version_tag(model, version, _REVOKE, reason)

    def approve_policy(self, model: str, envelope: str) -> bool:
        """Send a policy's approval, about a model that need not exist yet; return whether it was made."""
        from mlflow.exceptions import MlflowException

        made = True
        try:
            self.client.create_registered_model(model)
        except MlflowException as error:
            if error.error_code not in ("RESOURCE_ALREADY_EXISTS", "ALREADY_EXISTS"):
                raise
            made = False
        self.client.set_registered_model_tag(model, _POLICY, envelope)
        return made

    def expect_protected(self, alias: str) -> None:
        """Refuse an alias that this registry moves for anybody: nothing would be checked.

        Raises:
            InputError: naming those that it protects.
            RegistryError: if the registry is not gated.
        """
        protected = (self._page(0).description or "").split()
        if alias.casefold() not in protected:
            known = ", ".join(protected) or "of which there is none"
            raise InputError(
                f"expected an alias that the registry protects, {known}, got {alias!r}"[:200],
                where=self.uri,
                hint="others move without any check: MLflow's own client moves them",
            )

    def holder(self, model: str, alias: str) -> str:
        """Return the version that an alias stands for; refused if it may no longer be used."""
        return str(self.client.get_model_version_by_alias(model, alias).version)

    @contextmanager
    def bundle(self, model: str, version: str) -> Iterator[Path]:
        """Yield the bundle of a version, fetched.

        Raises:
            InputError: if the version came without one.
        """
        import mlflow.artifacts

        run = self.client.get_model_version(model, version).run_id
        if not run or not any(entry.path == "bundle" for entry in self.client.list_artifacts(run)):
            raise InputError(
                "expected a version that was registered with its bundle, got one without",
                where=f"model {model!r}, version {version}",
            )
        with tempfile.TemporaryDirectory() as folder:
            fetched = mlflow.artifacts.download_artifacts(run_id=run, artifact_path="bundle", dst_path=folder)
            yield Path(fetched)

    def ledger(self) -> Iterator[str]:
        """Yield the lines of the ledger's export.

        Raises:
            RegistryError: if the registry keeps none.
        """
        after = 0
        while tags := self._page(after).tags:
            for number in sorted(tags):
                yield str(tags[number])
            after = int(max(tags))

    def _page(self, after: int) -> Any:
        from mlflow.exceptions import MlflowException

        try:
            return self.client.get_registered_model(f"{_LEDGER}/{after}")
        except MlflowException as error:
            if after or error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise
            raise RegistryError(
                "expected a registry that keeps a ledger, got one that does not",
                where=self.uri,
                hint="start it with --registry-store-uri gated+...; `leangate doctor` says more",
            ) from error


@contextmanager
def open_registry(root: Path) -> Iterator[Registry]:
    """Yield the registry that `MLFLOW_TRACKING_URI` names.

    Args:
        root: The folder of `dvc.yaml`, where the registry is without that variable.

    Raises:
        BlockedError: if the registry refuses, with its reason.
        InputError: if there is no such model, version or alias.
        RegistryError: if it cannot be reached.
    """
    chosen = os.environ.get(URI, "").strip()  # inside, it is set
    with connected(root) as (client, uri):
        from mlflow.exceptions import MlflowException

        try:
            yield Registry(client, redact(uri))
        except MlflowException as error:
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise
            words = " ".join(str(error.message).split())
            raise InputError(
                f"expected what the registry knows, got: {words}"[:400],
                where=redact(uri),
                hint="" if chosen else f"{URI} is not set: set it to the registry's address",
            ) from error
