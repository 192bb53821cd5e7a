# SPDX-License-Identifier: Apache-2.0
"""A gated registry with something in production, and the means to attack it."""

from __future__ import annotations

import importlib
import json
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest

from checks.canonical import read_json, sha256_bytes, sha256_file
from pipeline.attestation.envelopes import attest
from pipeline.attestation.keys import PRIVATE, PUBLIC, make_keys, read_signer, read_trusted
from pipeline.attestation.origin import read_origin
from pipeline.card.contents import ATTESTATIONS, MANIFEST, read_bundle
from pipeline.layout import Layout
from pipeline.promotion.config import CONFIG_VARIABLE
from pipeline.promotion.statements import Approval, PolicyApproval, sign_approval, sign_policy_approval
from tests.bundle_project import Names, build_project, judge_project, project_params
from tests.registry_server import Reply, Server, registry_server

__all__ = ["API", "MODEL", "World", "gated_world"]

API = "/api/2.0/mlflow"
MODEL = "digits"
"""Version 1 is in production, 2 is proven and not approved, 3 came without evidence."""

PEOPLE = ("owner", "maker", "withdrawn", "approver", "second", "stranger", "registry")
_APPROVERS = ("approver", "second", "maker")


def _tail(word: str) -> bytes:
    """Return a property of the model, as bytes that may follow an ONNX file of ours."""
    value = b"\x0a\x01k\x12" + bytes([len(word)]) + word.encode()
    return b"\x72" + bytes([len(value)]) + value


@dataclass
class World:
    """Everything an attempt may use.

    Attributes:
        server: The registry.
        folder: For files of attempts.
        expected: What protected aliases stand for, by model and alias; promotions that are allowed enter it.
    """

    server: Server
    folder: Path
    database: str
    expected: dict[tuple[str, str], str] = field(default_factory=dict)
    _count: int = 0

    # Keys and what they sign

    def key(self, person: str) -> Path:
        """Folder of somebody's keys."""
        return self.folder / "keys" / person

    def signer(self, person: str) -> Any:
        """Somebody's private key."""
        return read_signer(str(self.key(person) / PRIVATE))

    def policy(
        self,
        bundle: Path,
        *models: str,
        by: str = "owner",
        until: str = "",
        approvals: int = 1,
    ) -> str:
        """Sign the approval of a bundle's policy."""
        keys = {}
        for person in _APPROVERS:
            keys |= read_trusted(self.key(person) / PUBLIC)
        statement = PolicyApproval(
            models=models,
            approvals=approvals,
            approvers={key_id: key.to_dict() for key_id, key in keys.items()},
            until=until or day(30),
        )
        return sign_policy_approval(sha256_file(bundle / "policy.yaml"), statement, self.signer(by))

    def approval(
        self,
        bundle: Path,
        model: str,
        version: str,
        /,
        *,
        by: str = "approver",
        until: str = "",
        **changes: str,
    ) -> str:
        """Sign the approval of a version; `changes` are what it says otherwise than it should."""
        says = {
            "model": model,
            "version": version,
            "alias": "production",
            "bundle_sha256": sha256_file(bundle / MANIFEST),
            "policy_sha256": sha256_file(bundle / "policy.yaml"),
            "until": until or day(30),
        } | {name: value for name, value in changes.items() if name != "onnx"}
        onnx = changes.get("onnx") or sha256_file(bundle / "model.onnx")
        return sign_approval(onnx, Approval(**says), self.signer(by))

    # Requests

    def fresh(self, stem: str) -> str:
        """Return a name nobody has used."""
        self._count += 1
        return f"{stem}-{self._count}"

    def post(self, path: str, body: Any, *, user: str = "author", root: str = API) -> Reply:
        """POST."""
        return self.server.call("POST", f"{root}/{path}", body, user=user)

    def alias(
        self, model: str, version: str, alias: str = "production", *, user: str = "author", root: str = API
    ) -> Reply:
        """Try to move an alias."""
        body = {"name": model, "alias": alias, "version": version}
        return self.post("registered-models/alias", body, user=user, root=root)

    def resolve(self, model: str = MODEL, alias: str = "production") -> Reply:
        """Ask for an alias, as a server of the model does."""
        return self.server.call(
            "GET", f"{API}/registered-models/alias?name={model}&alias={alias}", user="author"
        )

    def approve_policy(self, model: str, envelope: str) -> Reply:
        """Send a policy's approval about a model, which is made if it is not there."""
        self.post("registered-models/create", {"name": model})
        body = {"name": model, "key": "leangate.policy", "value": envelope}
        return self.post("registered-models/set-tag", body)

    def approve(self, model: str, version: str, envelope: str, *, user: str = "approver") -> Reply:
        """Send an approval."""
        body = {"name": model, "version": version, "key": "leangate.approve", "value": envelope}
        return self.post("model-versions/set-tag", body, user=user)

    def promote(self, model: str, version: str) -> None:
        """Promote what may be promoted."""
        reply = self.alias(model, version)
        assert reply.status == 200, reply.reason
        self.expected[model, "production"] = version

    # Models

    @cached_property
    def project(self) -> Layout:
        """A project whose bundle proves its model; the one in production."""
        return self._build("first", "")

    @cached_property
    def other(self) -> Layout:
        """Another one, of other bytes."""
        return self._build("second", "other")

    @cached_property
    def unapproved(self) -> Layout:
        """One that was judged under a policy that nobody approved."""
        return self._build("third", "third", policy_line="# another policy\n")

    def _build(self, name: str, word: str, policy_line: str = "") -> Layout:
        stage = importlib.import_module("pipeline.bundle")
        # Each has test examples of its own, so that none is a further attempt on those of another.
        names = Names(onnx_tail=_tail(word) if word else b"", pixels=crc32(name.encode()))
        layout = build_project(self.folder / name, names)
        judge_project(layout, policy=policy_line)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("LEANGATE_SIGNING_KEY", str(self.key("maker") / PRIVATE))
            stage.run(layout, project_params())
        return layout

    def copy(self, bundle: Path) -> Path:
        """Copy a bundle, to be changed."""
        return Path(shutil.copytree(bundle, self.folder / self.fresh("copy")))

    def sign(self, bundle: Path, person: str) -> None:
        """Sign a bundle anew, as somebody."""
        (bundle / ATTESTATIONS).unlink(missing_ok=True)
        manifest, contents = read_bundle(bundle)
        attest(bundle, manifest, contents, read_origin(self.project.root), self.signer(person))

    def register(self, layout: Layout, model: str, *, user: str = "author") -> str:
        """Register a project's bundle as `leangate run` does; return the version."""
        stage = importlib.import_module("pipeline.register")
        params = project_params()
        params = project_params(register_=params.register_.model_copy(update={"model": model}))
        layout.registration.unlink(missing_ok=True)
        with self.server.client(user):
            stage.run(layout, params)
        return str(read_json(layout.registration)["version"])

    def governed(self, model: str, layout: Layout, **policy: Any) -> str:
        """Approve a policy for a model, and register a bundle under it."""
        reply = self.approve_policy(model, self.policy(layout.bundle, model, **policy))
        assert reply.status == 200, reply.reason
        return self.register(layout, model)

    def log(self, bundle: Path | None, onnx: Path, *, user: str = "author") -> tuple[str, str]:
        """Log a bundle and a model by MLflow's own client, as anybody may; return the run and the model."""
        with warnings.catch_warnings(), self.server.client(user) as client:
            warnings.simplefilter("ignore")
            import mlflow.onnx
            import onnx as onnx_format

            run_id = client.create_run("0").info.run_id
            if bundle is not None:
                client.log_artifacts(run_id, str(bundle), "bundle")
            with mlflow.start_run(run_id=run_id):
                logged = mlflow.onnx.log_model(
                    onnx_format.load(onnx),
                    name="model",
                    pip_requirements=["onnxruntime"],
                    save_as_external_data=False,
                    onnx_execution_providers=["CPUExecutionProvider"],
                )
        return run_id, str(logged.model_id)

    def claim(self, model: str, bundle: Path, run_id: str, source: str, **more: Any) -> Reply:
        """Create a version that claims a bundle as its evidence."""
        manifest = read_json(bundle / MANIFEST)
        tags = {
            "leangate.bundle_sha256": sha256_file(bundle / MANIFEST),
            "leangate.onnx_sha256": str(manifest["onnx_sha256"]),
        }
        body = {
            "name": model,
            "source": source,
            "run_id": run_id,
            "tags": [{"key": key, "value": value} for key, value in tags.items()],
        }
        return self.post("model-versions/create", body | more)

    def unproven(self, model: str) -> str:
        """Register a model without evidence; return the version."""
        self.post("registered-models/create", {"name": model})
        run_id, model_id = self.plain
        body = {"name": model, "source": f"models:/{model_id}", "run_id": run_id, "model_id": model_id}
        reply = self.post("model-versions/create", body)
        assert reply.status == 200, reply.reason
        return str(reply.json["model_version"]["version"])

    @cached_property
    def plain(self) -> tuple[str, str]:
        """Run and model that were logged without evidence."""
        return self.log(None, self.other.bundle / "model.onnx")

    # What is true

    def query(self, words: str, **values: Any) -> list[Any]:
        """Ask the database itself."""
        import sqlalchemy

        engine = sqlalchemy.create_engine(self.database)
        try:
            with engine.begin() as connection:
                done = connection.execute(sqlalchemy.text(words), values)
                return list(done.all()) if done.returns_rows else []
        finally:
            engine.dispose()

    def protected(self) -> dict[tuple[str, str], str]:
        """What the database says of aliases that anybody could take for protected ones."""
        rows = self.query("SELECT name, alias, version FROM registered_model_aliases")
        return {
            (name, alias): str(version)
            for name, alias, version in rows
            if alias.strip().casefold() in ("production", "champion") or not alias.isascii()
        }

    def stages(self) -> list[Any]:
        """Versions in the stage Production."""
        rows = self.query("SELECT name, version, current_stage FROM model_versions")
        return [row for row in rows if str(row[2]).casefold().strip() == "production"]

    def refusals(self, after: int) -> list[tuple[int, Mapping[str, Any]]]:
        """Entries of the ledger that say no, by number."""
        rows = self.query(
            "SELECT number, entry FROM leangate_ledger WHERE number > :n ORDER BY number", n=after
        )
        return [(int(n), entry) for n, line in rows if (entry := json.loads(line))["act"] == "refuse"]

    def entries(self) -> int:
        """Number of entries of the ledger."""
        return int(self.query("SELECT max(number) FROM leangate_ledger")[0][0])

    @cached_property
    def home(self) -> Path:
        """Folder of the model in production, on the server's disk."""
        uri = self.query(
            "SELECT storage_location FROM model_versions WHERE name = :m AND version = 1", m=MODEL
        )[0][0]
        return self.server.artifacts / str(uri).removeprefix("mlflow-artifacts:/")

    @cached_property
    def proof_home(self) -> Path:
        """Folder of its bundle, on the server's disk."""
        run = self.query("SELECT run_id FROM model_versions WHERE name = :m AND version = 1", m=MODEL)[0][0]
        found = [path for path in self.server.artifacts.glob(f"*/{run}/artifacts/bundle") if path.is_dir()]
        return found[0]

    @cached_property
    def model_files(self) -> list[Path]:
        """Files of the model in production, as it was registered."""
        return [path.relative_to(self.home) for path in sorted(self.home.rglob("*")) if path.is_file()]

    @cached_property
    def bundle_files(self) -> list[Path]:
        """Files of its bundle, as it was registered."""
        return [
            path.relative_to(self.proof_home) for path in sorted(self.proof_home.rglob("*")) if path.is_file()
        ]

    def artifact(self, file: Path) -> str:
        """Return the path of a file as the server's routes have it."""
        return file.relative_to(self.server.artifacts).as_posix()

    def state(self) -> dict[str, Any]:
        """Return everything that no attempt may change."""
        resolved = self.resolve()
        return {
            "aliases": self.protected(),
            "stages": self.stages(),
            "resolved": (
                resolved.status,
                resolved.json.get("model_version", {}).get("version"),
                resolved.reason,
            ),
            "bytes": {
                str(path.relative_to(home)): sha256_bytes(path.read_bytes())
                for home, names in ((self.home, self.model_files), (self.proof_home, self.bundle_files))
                for path in (home / name for name in names)
            },
        }


def day(distance: int) -> str:
    """Return a day from today, UTC."""
    return (datetime.now(UTC).date() + timedelta(days=distance)).isoformat()


@contextmanager
def gated_world(folder: Path, database: str = "") -> Iterator[World]:
    """Start a gated server with users, and bring version 1 into production as it should be.

    Args:
        folder: Empty.
        database: URI of an empty one; by default SQLite in the folder.
    """
    for person in PEOPLE:
        make_keys(folder / "keys" / person)
    trusted = folder / "trusted"
    for role, people in (("owners", ("owner",)), ("makers", ("maker", "withdrawn"))):
        (trusted / role).mkdir(parents=True)
        for person in people:
            shutil.copy(folder / "keys" / person / PUBLIC, trusted / role / f"{person}.pub")
    shutil.copy(folder / "keys/registry" / PRIVATE, trusted / "ledger.key")
    (trusted / "registry.yaml").write_text(
        "schema: leangate/registry/1\npolicy_owners: owners\nmakers: makers\nledger_key: ledger.key\n"
    )
    with registry_server(
        folder / "server",
        backend=database,
        users=("author", "approver"),
        environment={CONFIG_VARIABLE: str(trusted / "registry.yaml")},
    ) as server:
        plain = database or f"sqlite:///{folder / 'server/mlflow.db'}"
        world = World(server, folder, plain)
        first = world.project.bundle
        assert world.governed(MODEL, world.project) == "1"
        reply = world.approve(MODEL, "1", world.approval(first, MODEL, "1"))
        assert reply.status == 200, reply.reason
        world.promote(MODEL, "1")
        assert world.governed(MODEL, world.other) == "2"
        assert world.unproven(MODEL) == "3"
        yield world
