# SPDX-License-Identifier: Apache-2.0
"""Keys, a registry's configuration, and projects whose signed bundles can be registered, made in a second."""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest

from checks.attempts import read_attempt
from checks.canonical import read_json, sha256_file
from pipeline.attestation.keys import make_keys, read_signer, read_trusted
from pipeline.files import write_text
from pipeline.layout import Layout
from pipeline.promotion.statements import Approval, PolicyApproval, sign_approval, sign_policy_approval
from tests.bundle_project import Names, build_project, judge_project, project_params

__all__ = ["FOREVER", "Keys", "Made", "governed_keys", "make_bundle"]

FOREVER = "2999-12-31"
PEOPLE = ("maker", "owner", "approver", "second", "stranger", "ledger")


@dataclass
class Keys:
    """Key pairs of everybody, and the folder of the registry's configuration."""

    folder: Path
    ids: dict[str, str] = field(default_factory=dict)

    def private(self, name: str) -> Path:
        return self.folder / name / "leangate.key"

    def public(self, name: str) -> Path:
        return self.folder / name / "leangate.pub"

    def signer(self, name: str) -> Any:
        return read_signer(str(self.private(name)))

    @property
    def config(self) -> Path:
        return self.folder / "registry" / "registry.yaml"

    def policy_approval(self, policy_sha256: str, by: str = "owner", **changes: Any) -> str:
        """The envelope by which a policy is approved, one of two approvers agreeing."""
        keys = {
            key_id: key.to_dict()
            for name in changes.pop("approvers", ("approver", "second"))
            for key_id, key in read_trusted(self.public(name)).items()
        }
        values = {"models": ("*",), "approvals": 1, "approvers": keys, "until": FOREVER} | changes
        return sign_policy_approval(policy_sha256, PolicyApproval(**values), self.signer(by))

    def approval(self, made: Made, version: str, by: str = "approver", **changes: Any) -> str:
        """The envelope by which an approver agrees to a version of a bundle."""
        onnx = changes.pop("onnx_sha256", made.onnx_sha256)
        values = {
            "model": made.model,
            "version": version,
            "alias": "production",
            "bundle_sha256": made.bundle_sha256,
            "policy_sha256": made.policy_sha256,
            "until": FOREVER,
        }
        return sign_approval(onnx, Approval(**(values | changes)), self.signer(by))


@dataclass(frozen=True)
class Made:
    """A project with a bundle.

    Attributes:
        layout: Of the project.
        model: Name under which it is registered.
    """

    layout: Layout
    model: str

    @property
    def onnx_sha256(self) -> str:
        return sha256_file(self.layout.bundle / "model.onnx")

    @property
    def bundle_sha256(self) -> str:
        return sha256_file(self.layout.bundle / "bundle.json")

    @property
    def policy_sha256(self) -> str:
        return sha256_file(self.layout.bundle / "policy.yaml")

    def register(self, uri: str, user: str = "", password: str = "") -> str:
        """Register it as the stage does; return the version."""
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.layout.root)
            patch.setenv("MLFLOW_TRACKING_URI", uri)
            for name, value in (("USERNAME", user), ("PASSWORD", password)):
                if value:
                    patch.setenv(f"MLFLOW_TRACKING_{name}", value)
                else:
                    patch.delenv(f"MLFLOW_TRACKING_{name}", raising=False)
            self.layout.registration.unlink(missing_ok=True)
            params = project_params()
            section = params.register_.model_copy(update={"model": self.model})
            importlib.import_module("pipeline.register").run(self.layout, project_params(register_=section))
        return str(read_json(self.layout.registration)["version"])


def governed_keys(folder: Path, **config: Any) -> Keys:
    """Make everybody's keys and a `registry.yaml` that trusts the maker and the owner."""
    keys = Keys(folder)
    for name in PEOPLE:
        keys.ids[name] = make_keys(folder / name)
    home = folder / "registry"
    for role, name in (("makers", "maker"), ("owners", "owner")):
        (home / role).mkdir(parents=True)
        (home / role / f"{name}.pub").write_bytes(keys.public(name).read_bytes())
    values = {
        "schema": "leangate/registry/1",
        "policy_owners": "owners",
        "makers": "makers",
        "ledger_key": str(keys.private("ledger")),
    } | config
    write_text(keys.config, "".join(f"{key}: {value}\n" for key, value in values.items()))
    return keys


@contextmanager
def _signing(key: Path | None) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("LEANGATE_SIGNING_KEY", raising=False)
        if key is not None:
            patch.setenv("LEANGATE_SIGNING_KEY", str(key))
        yield


def make_bundle(
    root: Path,
    key: Path | None,
    model: str = "digits",
    *,
    policy: str = "",
    tail: bytes = b"",
    after: Made | None = None,
    title: str = "",
    sensitive: tuple[str, ...] = (),
) -> Made:
    """Make a project whose candidate passes, judged for real, with its bundle.

    Args:
        root: Where.
        key: Who signs; nobody if None.
        model: Name under which it is to be registered; each name has test examples of its own.
        policy: More text at the end of `policy.yaml`, a comment say: another policy.
        tail: More bytes at the end of the ONNX file: another candidate.
        after: What was judged before it on the same test split.
        title: Of the model on its card, in place of the project's: another bundle.
        sensitive: Slice columns that lie apart, in the restricted table.
    """
    root.mkdir(parents=True, exist_ok=True)
    layout = build_project(root, Names(onnx_tail=tail, pixels=crc32(model.encode()), sensitive=sensitive))
    before = None if after is None else read_attempt(after.layout.attempt("first"))
    judge_project(layout, policy=policy, after=() if before is None else before.rounds)
    with _signing(key):
        home = Path.cwd()
        os.chdir(root)
        try:
            if title:
                declared = layout.governance.read_text(encoding="utf-8")
                write_text(layout.governance, re.sub("(?m)^title: .*", f"title: {title}", declared))
            importlib.import_module("pipeline.bundle").run(layout, project_params())
        finally:
            os.chdir(home)
    return Made(layout, model)
