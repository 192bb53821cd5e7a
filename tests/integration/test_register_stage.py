# SPDX-License-Identifier: Apache-2.0
"""register: one version a bundle, its alias last, and a clear error for everything else."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from checks.canonical import dumps, read_json, sha256_file, sha256_value
from checks.errors import EvidenceError, ParamsError, RegistryError
from pipeline.layout import Layout
from pipeline.params import Params
from tests.bundle_project import ROOT, SHAPE, Names, build_project, project_params

bundle = importlib.import_module("pipeline.bundle")
register = importlib.import_module("pipeline.register")

pytestmark = [
    pytest.mark.integration,
    pytest.mark.xdist_group("mlflow"),
]

URI = "MLFLOW_TRACKING_URI"


def named(model: str, **changes: Any) -> Params:
    params = project_params()
    return project_params(register_=params.register_.model_copy(update={"model": model, **changes}))


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """A project with a bundle, registered once into a new database; tests differ by registry name."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        # MLflow and SQLAlchemy warn when they are imported; here, once, nobody has to listen.
        warnings.simplefilter("ignore")
        import mlflow.onnx
        import mlflow.pyfunc  # noqa: F401

        layout = build_project(tmp_path_factory.mktemp("my project"))
        patch.chdir(layout.root)
        patch.delenv(URI, raising=False)
        bundle.run(layout, project_params())
        register.run(layout, named("first"))
    return layout


@pytest.fixture(autouse=True)
def at_home(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(layout.root)
    monkeypatch.delenv(URI, raising=False)
    layout.registration.unlink(missing_ok=True)


class Registry:
    """What is in the registry of one tracking URI, read with MLflow's own client."""

    def __init__(self, uri: str = "sqlite:///mlflow.db") -> None:
        import mlflow

        self.client = mlflow.MlflowClient(tracking_uri=uri)

    def versions(self, model: str) -> list[Any]:
        return [version for version in self.client.search_model_versions() if version.name == model]

    def version(self, model: str) -> Any:
        [only] = self.versions(model)
        return self.client.get_model_version(model, only.version)

    def aliases(self, model: str) -> dict[str, str]:
        aliases = self.client.get_registered_model(model).aliases
        return {name: str(version) for name, version in aliases.items()}

    def runs(self, bundle_sha256: str) -> list[str]:
        experiment = self.client.get_experiment_by_name("leangate")
        runs = self.client.search_runs(
            [experiment.experiment_id], f"tags.`leangate.bundle_sha256` = '{bundle_sha256}'"
        )
        return sorted(run.info.status for run in runs)


def files_of(version: Any, layout: Layout, name: str) -> list[Path]:
    """Files of a version in a registry that keeps them below the project."""
    folder = version.source.removeprefix("models:/")
    return list((layout.root / "mlruns").glob(f"*/models/{folder}/artifacts/{name}"))


def test_a_bundle_becomes_a_version_with_everything_known_of_it(
    layout: Layout, capfd: pytest.CaptureFixture[str]
) -> None:
    register.run(layout, named("plain"))

    assert capfd.readouterr() == ("", "")
    registration = read_json(layout.registration)
    manifest_sha256 = sha256_file(layout.bundle / "bundle.json")
    verdict = read_json(layout.verdict)
    registry = Registry()
    version = registry.version("plain")
    assert registration == {
        "schema": "leangate/registration/1",
        "model": "plain",
        "version": "1",
        "alias": "challenger",
        "run_id": version.run_id,
        "onnx_sha256": verdict["onnx_sha256"],
        "bundle_sha256": manifest_sha256,
    }
    assert registry.aliases("plain") == {"challenger": "1"}
    assert version.tags == {
        "leangate.bundle_sha256": manifest_sha256,
        "leangate.candidate": "half-int8",
        "leangate.decision": "passed",
        "leangate.decision_sha256": verdict["decision_sha256"],
        "leangate.dvc_lock_sha256": "unknown",
        "leangate.git_commit": "unknown",
        "leangate.git_dirty": "unknown",
        "leangate.onnx_sha256": verdict["onnx_sha256"],
        "leangate.policy_sha256": verdict["policy_sha256"],
    }
    assert "Handwritten digit recognition" in version.description
    assert len(version.description) < 5000

    run = registry.client.get_run(version.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["candidate_accuracy"] == 0.9911
    assert run.data.metrics["worst_slice_accuracy_change"] == -0.003
    assert run.data.metrics["candidate_robust_accuracy"] == 0.842
    assert run.data.metrics["latency_ratio_b64"] == 0.31
    assert run.data.metrics["candidate_bytes"] == 22104
    assert run.data.params["pass.2"] == "channels"
    assert run.data.params["pass.2.options.criterion"] == "taylor"
    assert run.data.params["pass.2.channels.network.0"] == "[ 32, 27 ]"
    assert int(run.data.params["pass.3.left.bytes"]) > 0
    # An entry a layer is for the bundle.
    assert not [name for name in run.data.params if name.startswith("pass.2.zeros")]
    [dataset] = run.inputs.dataset_inputs
    assert dataset.dataset.digest == read_json(layout.decision("first"))["subject"]["data_sha256"][:36]
    assert "CC-BY-4.0" in dataset.dataset.source
    listed = {entry.path for entry in registry.client.list_artifacts(version.run_id, "bundle")}
    assert {"bundle/MODEL_CARD.md", "bundle/bundle.json", "bundle/evidence"} <= listed
    [path] = files_of(version, layout, "model.onnx")
    assert sha256_file(path) == verdict["onnx_sha256"]
    for name in ("MODEL_CARD.md", "decision.json", "bundle.json"):
        [path] = files_of(version, layout, f"extra_files/{name}")
        assert path.read_bytes() == (layout.bundle / name).read_bytes()


def test_repeating_makes_no_second_version_and_restores_the_alias(layout: Layout) -> None:
    register.run(layout, named("again"))
    first = layout.registration.read_bytes()
    registry = Registry()
    register.run(layout, named("again"))
    assert layout.registration.read_bytes() == first
    assert len(registry.versions("again")) == 1

    registry.client.delete_registered_model_alias("again", "challenger")
    register.run(layout, named("again"))
    assert len(registry.versions("again")) == 1
    assert registry.aliases("again") == {"challenger": "1"}

    register.run(layout, named("again", alias="candidate"))
    assert registry.aliases("again") == {"candidate": "1", "challenger": "1"}


@pytest.mark.parametrize("name", ["with some spaces", 'quote\'s "both"', "a@b#c%20d?e", "Ünïcode 数字"])
def test_a_registry_name_may_hold_spaces_quotes_and_signs(layout: Layout, name: str) -> None:
    register.run(layout, named(name))
    register.run(layout, named(name))
    assert Registry().aliases(name) == {"challenger": "1"}
    assert len(Registry().versions(name)) == 1


KILLER = """
import json, os, signal, sys
import mlflow.onnx, mlflow.pyfunc
import mlflow.store.tracking.sqlalchemy_store, mlflow.store.model_registry.sqlalchemy_store
import pipeline.register
from pipeline.layout import Layout
from tests.integration.test_register_stage import named
def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)
for root, step in json.loads(sys.argv[1]):
    child = os.fork()
    if child == 0:
        os.chdir(root)
        setattr(mlflow.MlflowClient, step, die)
        pipeline.register.run(Layout(), named("killed at " + step))
        os._exit(0)
    print(step, os.waitpid(child, 0)[1])
"""

KILLED = {
    # where it dies: versions it leaves, how its runs stand after the next registration
    "create_model_version": (0, ["FINISHED", "KILLED"]),
    "set_terminated": (1, ["FINISHED"]),
    "set_registered_model_alias": (1, ["FINISHED"]),
}


def test_a_registration_killed_anywhere_is_taken_up_again(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(URI, f"sqlite:///{os.path.relpath(layout.root / 'mlflow.db', tmp_path / 'x')}")
    roots = {}
    for step in KILLED:
        # A bundle of its own, so that its runs can be told from those of other tests.
        root = tmp_path / step
        for name in ("artifacts", "policy.yaml"):
            source = layout.root / name
            shutil.copytree(source, root / name) if source.is_dir() else shutil.copy(source, root / name)
        Layout(root).governance.write_text(f"title: killed at {step}\n")
        bundle.run(Layout(root), project_params())
        roots[step] = root
    done = subprocess.run(
        [sys.executable, "-c", KILLER, json.dumps([[str(root), step] for step, root in roots.items()])],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [word for step in KILLED for word in (step, str(int(signal.SIGKILL)))]

    for step, (left, ends) in KILLED.items():
        name, killed = f"killed at {step}", Layout(roots[step])
        monkeypatch.chdir(killed.root)
        assert not killed.registration.exists()
        registry = Registry(os.environ[URI])
        assert len(registry.versions(name)) == left
        if left:
            assert registry.aliases(name) == {}

        register.run(killed, named(name))
        assert len(registry.versions(name)) == 1
        assert registry.aliases(name) == {"challenger": "1"}
        assert registry.runs(sha256_file(killed.bundle / "bundle.json")) == ends


def test_other_bytes_in_the_registry_keep_the_alias_away(layout: Layout) -> None:
    register.run(layout, named("tampered"))
    registry = Registry()
    registry.client.delete_registered_model_alias("tampered", "challenger")
    layout.registration.unlink()
    [path] = files_of(registry.version("tampered"), layout, "model.onnx")
    path.write_bytes(path.read_bytes() + b"\x00")

    with pytest.raises(RegistryError, match="SHA-256") as caught:
        register.run(layout, named("tampered"))
    assert "version 1" in caught.value.where
    assert registry.aliases("tampered") == {}
    assert not layout.registration.exists()


def test_a_refusal_of_the_registry_is_passed_on_and_can_be_repeated(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import PERMISSION_DENIED

    def refuse(*_: object, **__: object) -> None:
        raise MlflowException("the policy of this registry forbids it", error_code=PERMISSION_DENIED)

    with monkeypatch.context() as patch:
        patch.setattr(mlflow.MlflowClient, "create_model_version", refuse)
        with pytest.raises(RegistryError, match="forbids it"):
            register.run(layout, named("refused"))
    assert Registry().versions("refused") == []
    assert "RUNNING" not in Registry().runs(sha256_file(layout.bundle / "bundle.json"))
    register.run(layout, named("refused"))
    assert Registry().aliases("refused") == {"challenger": "1"}


def test_a_file_that_mlflow_would_rewrite_is_refused_before_a_run_is_made(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A second copy of field 1, `ir_version`: readers take the last one, writers write one.
    unclean = build_project(tmp_path / "unclean", Names(onnx_tail=b"\x08\x0a"))
    bundle.run(unclean, project_params())
    monkeypatch.setenv(URI, "sqlite:///mlflow.db")
    with pytest.raises(RegistryError, match="parsing and writing"):
        register.run(unclean, named("unclean"))
    assert Registry().versions("unclean") == []
    assert Registry().runs(sha256_file(unclean.bundle / "bundle.json")) == []


def test_a_tampered_bundle_is_refused_before_anything_is_registered(layout: Layout) -> None:
    register.run(layout, named("before"))
    path = layout.bundle / "MODEL_CARD.md"
    card = path.read_bytes()
    try:
        path.write_bytes(card.replace(b"PASS", b"pass"))
        with pytest.raises(EvidenceError, match="SHA-256"):
            register.run(layout, named("never"))
    finally:
        path.write_bytes(card)
    assert Registry().versions("never") == []


@pytest.mark.parametrize("alias", ["latest", "Latest", "v1", "V20"])
def test_an_alias_that_mlflow_reserves_is_refused_at_once(layout: Layout, alias: str) -> None:
    with pytest.raises(ParamsError, match="alias"):
        register.run(layout, named("reserved", alias=alias))


def test_a_deleted_experiment_is_named(layout: Layout) -> None:
    register.run(layout, named("kept"))
    client = Registry().client
    client.delete_experiment(client.create_experiment("thrown away", artifact_location="mlruns/x"))
    with pytest.raises(RegistryError, match="active experiment"):
        register.run(layout, named("kept", experiment="thrown away"))


def git(root: Path, *arguments: str) -> str:
    names = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    done = subprocess.run(
        ["git", "-C", str(root), *names, *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_commit_and_lock_of_the_road_are_tags(layout: Layout) -> None:
    stages = {
        "bundle": {"cmd": "python -m pipeline bundle", "outs": [{"path": "artifacts/bundle", "size": 3}]}
    }
    lock = layout.root / "dvc.lock"
    try:
        git(layout.root, "init", "--quiet")
        (layout.root / ".gitignore").write_text("artifacts/\nmlruns/\nmlflow.db*\n", encoding="utf-8")
        lock.write_text("schema: '2.0'\nstages: {}\n", encoding="utf-8")
        git(layout.root, "add", ".")
        git(layout.root, "commit", "--quiet", "-m", "x")
        lock.write_text(
            dumps({"schema": "2.0", "stages": stages | {"register": {"cmd": "x"}}}), encoding="utf-8"
        )
        register.run(layout, named("clean"))
        (layout.root / "new.py").write_text("", encoding="utf-8")
        register.run(layout, named("dirty"))
        commit = git(layout.root, "rev-parse", "HEAD")
        lock.write_text("stages: [1, 2\n", encoding="utf-8")
        with pytest.raises(EvidenceError, match="DVC"):
            register.run(layout, named("broken lock"))
    finally:
        shutil.rmtree(layout.root / ".git", ignore_errors=True)
        for path in (lock, layout.root / "new.py", layout.root / ".gitignore"):
            path.unlink(missing_ok=True)
    clean, dirty = (Registry().version(name).tags for name in ("clean", "dirty"))
    assert clean["leangate.git_commit"] == dirty["leangate.git_commit"] == commit
    assert (clean["leangate.git_dirty"], dirty["leangate.git_dirty"]) == ("false", "true")
    assert clean["leangate.dvc_lock_sha256"] == sha256_value(stages)


def test_a_database_that_came_along_with_a_moved_folder_is_refused(layout: Layout, tmp_path: Path) -> None:
    register.run(layout, named("moved"))
    moved = Layout(tmp_path / "elsewhere")
    shutil.copytree(layout.root, moved.root)
    os.chdir(moved.root)
    before = set((layout.root / "mlruns").rglob("*"))
    with pytest.raises(RegistryError, match="moved or copied|keeps them") as caught:
        register.run(moved, named("moved"))
    assert "moved or copied" in caught.value.hint
    assert set((layout.root / "mlruns").rglob("*")) == before


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.mark.parametrize(
    "uri",
    [
        "http://someone:secret@127.0.0.1:{closed}",
        "http://[::1",
        "htp://example.invalid",
        "sqlite:///{tmp}",
        "sqlite:///{tmp}/not-a-database",
        "sqlite://",
        "postgresql://someone:secret@127.0.0.1:{closed}/db?password=secret",
        "file:./mlruns",
    ],
)
def test_a_registry_that_cannot_be_used_is_a_clear_error(
    layout: Layout,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    uri: str,
) -> None:
    (tmp_path / "not-a-database").write_text("hello\n" * 1000, encoding="utf-8")
    uri = uri.format(closed=closed_port(), tmp=tmp_path)
    monkeypatch.setenv(URI, uri)
    with pytest.raises(RegistryError) as caught:
        register.run(layout, named("unreachable"))
    assert caught.value.where.startswith(URI)
    assert caught.value.hint
    assert "secret" not in str(caught.value)
    assert not layout.registration.exists()
    assert os.environ[URI] == uri
    assert capfd.readouterr().out == ""


@pytest.fixture(scope="module")
def server(layout: Layout, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real tracking server that keeps its own artifacts."""
    home = tmp_path_factory.mktemp("server")
    shutil.copy(layout.root / "mlflow.db", home / "server.db")  # its tables are made already
    port = closed_port()
    command = [
        *(
            sys.executable,
            "-m",
            "mlflow",
            "server",
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            "--workers",
            "1",
        ),
        *(
            "--backend-store-uri",
            f"sqlite:///{home}/server.db",
            "--artifacts-destination",
            str(home / "artifacts"),
        ),
    ]
    environment = {name: value for name, value in os.environ.items() if name != URI} | {
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
    }
    uri = f"http://127.0.0.1:{port}"
    with (home / "log.txt").open("wb") as log:
        process = subprocess.Popen(command, cwd=home, env=environment, stdout=log, stderr=log)
        try:
            wait_for(uri, process, home / "log.txt")
            yield uri
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=60)


def wait_for(uri: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(600):
        assert process.poll() is None, log.read_text(encoding="utf-8", errors="replace")
        try:
            with urllib.request.urlopen(f"{uri}/health", timeout=5) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.1)
    pytest.fail(f"no answer from {uri}: {log.read_text(encoding='utf-8', errors='replace')}")


def test_a_server_takes_the_bundle_and_serves_the_judged_model(
    layout: Layout,
    server: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    import mlflow
    import onnxruntime as ort

    root = tmp_path / "clone"
    (root / "artifacts").mkdir(parents=True)
    shutil.copytree(layout.bundle, root / "artifacts" / "bundle")
    clone = Layout(root)
    monkeypatch.chdir(root)
    monkeypatch.setenv(URI, server)
    register.run(clone, named("leangate-digits", experiment="served"))
    register.run(clone, named("leangate-digits", experiment="served"))
    assert capfd.readouterr() == ("", "")
    assert not (root / "mlflow.db").exists()
    assert not (root / "mlruns").exists()
    registry = Registry(server)
    assert len(registry.versions("leangate-digits")) == 1
    assert registry.aliases("leangate-digits") == {"challenger": "1"}

    images = np.random.default_rng(0).uniform(0, 16, size=(5, *SHAPE)).astype(np.float32)
    try:
        model = mlflow.pyfunc.load_model("models:/leangate-digits@challenger")
    finally:
        mlflow.set_tracking_uri(None)
    session = ort.InferenceSession(clone.bundle / "model.onnx", providers=["CPUExecutionProvider"])
    [want] = session.run(None, {"image": images})
    np.testing.assert_array_equal(model.predict(images)["scores"], want)

    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "predict_registered.py")],
        env={**os.environ, URI: server},
        capture_output=True,
        text=True,
        check=True,
    )
    predicted, truth = done.stdout.splitlines()
    assert predicted.split()[0] == "predicted"
    assert len(predicted.split()) == 11
    assert truth.split()[1:] == [str(digit) for digit in range(10)]
