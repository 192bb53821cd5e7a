# SPDX-License-Identifier: Apache-2.0
"""Write-once storage behind a real MLflow server: honest use works, and no route changes a byte."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.registry_server import Server, registry_server

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("mlflow")]

ROUTES = ("/api/2.0", "/ajax-api/2.0")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("write-once")
    with registry_server(folder, registry=f"sqlite:///{folder / 'mlflow.db'}") as server:
        yield server


def model(slope: float) -> Any:
    import onnx

    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Mul", ["x", "slope"], ["y"])],
        "graph",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [None])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [None])],
        [onnx.numpy_helper.from_array(np.array(slope, np.float32), "slope")],
    )
    made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)])
    made.ir_version = 10
    return made


class Logged:
    """A model that was logged and registered by MLflow's own client."""

    def __init__(self, server: Server, name: str) -> None:
        with warnings.catch_warnings(), server.client() as client:
            warnings.simplefilter("ignore")
            import mlflow
            import mlflow.onnx

            with mlflow.start_run() as run:
                info = mlflow.onnx.log_model(
                    model(2.0),
                    name="model",
                    save_as_external_data=False,
                    pip_requirements=["onnxruntime"],
                    onnx_execution_providers=["CPUExecutionProvider"],
                )
                mlflow.log_text("judged", "notes/a.txt")
            version = mlflow.register_model(f"models:/{info.model_id}", name, await_registration_for=0)
            client.set_registered_model_alias(name, "production", version.version)
        self.server = server
        self.name = name
        self.run_id = run.info.run_id
        self.model_id = info.model_id
        self.folder = server.artifacts / "0/models" / info.model_id / "artifacts"
        self.path = f"0/models/{info.model_id}/artifacts"
        self.bytes = (self.folder / "model.onnx").read_bytes()

    def predict(self) -> list[float]:
        with warnings.catch_warnings(), self.server.client():
            warnings.simplefilter("ignore")
            import mlflow
            import mlflow.onnx

            loaded = mlflow.pyfunc.load_model(f"models:/{self.name}@production")
        return [float(y) for y in loaded.predict({"x": np.array([3.0], np.float32)})["y"]]


@pytest.fixture(scope="module")
def logged(server: Server) -> Logged:
    return Logged(server, "digits")


@pytest.fixture
def unchanged(logged: Logged) -> Iterator[None]:
    before = {file: file.read_bytes() for file in logged.server.artifacts.rglob("*") if file.is_file()}
    yield
    assert {file: file.read_bytes() for file in before if file.is_file()} == before


def test_logging_registering_and_loading_work_as_ever(logged: Logged) -> None:
    assert logged.predict() == [6.0]
    assert logged.predict() == [6.0]
    assert (logged.folder / "MLmodel").is_file()
    # Reading a model writes a file into the folder it is read from; here that is a client's copy.
    assert not list(logged.server.artifacts.rglob("registered_model_meta"))
    files = [file for file in logged.folder.iterdir() if file.is_file()]
    assert {file.stat().st_mode & 0o777 for file in files} == {0o444}


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("root", ROUTES)
@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("{}/model.onnx", 400),
        ("{}/model%2Eonnx", 400),
        ("{}/model%252Eonnx", 400),
        ("{}//model.onnx", 400),
        ("{}/./model.onnx", 400),
        ("{}/../artifacts/model.onnx", 400),
        ("{}/%2e%2e/artifacts/model.onnx", 400),
        ("{}/MODEL.onnx", 400),
        ("{}/model.onnx%20", 400),
        ("{}/model.onnx%00", 400),
        ("{}/model.onnx/", 400),
        ("{}/model.onnx/inside", 400),
        ("/{}/model.onnx", 400),
        ("{}/model%5Connx", 400),
    ],
)
def test_no_upload_replaces_a_file(logged: Logged, root: str, path: str, status: int) -> None:
    reply = logged.server.call(
        "PUT", f"{root}/mlflow-artifacts/artifacts/{path.format(logged.path)}", b"another"
    )

    assert reply.status == status, (reply.body, logged.server.tail(5))
    assert (logged.folder / "model.onnx").read_bytes() == logged.bytes


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("root", ROUTES)
def test_the_same_bytes_may_be_sent_again(logged: Logged, root: str) -> None:
    place = f"{root}/mlflow-artifacts/artifacts/{logged.path}/model.onnx"

    assert logged.server.call("PUT", place, logged.bytes).status == 200
    assert logged.server.call("GET", place).body == logged.bytes


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("root", ROUTES)
@pytest.mark.parametrize("path", ["{}/model.onnx", "{}", "0", ""])
def test_nothing_is_deleted(logged: Logged, root: str, path: str) -> None:
    reply = logged.server.call("DELETE", f"{root}/mlflow-artifacts/artifacts/{path.format(logged.path)}")

    assert reply.status in (403, 404, 405)


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("root", ROUTES)
@pytest.mark.parametrize("step", ["create", "complete", "abort"])
def test_multipart_uploads_are_not_offered(logged: Logged, root: str, step: str) -> None:
    place = f"{root}/mlflow-artifacts/mpu/{step}/{logged.path}"
    body = {
        "path": "model.onnx",
        "num_parts": 1,
        "upload_id": "1",
        "parts": [{"part_number": 1, "etag": "a", "url": "http://127.0.0.1/"}],
    }

    # 501 is MLflow's own way to say that a store has none of them; its client then uploads in one piece.
    assert logged.server.call("POST", place, body).status == 501


@pytest.mark.usefixtures("unchanged")
def test_other_routes_that_write_files_cannot_replace_one(logged: Logged) -> None:
    call = logged.server.call
    place = f"/ajax-api/2.0/mlflow/upload-artifact?run_uuid={logged.run_id}&path=notes/a.txt"
    reply = call("POST", place, b"another")
    assert (reply.status, "published before" in reply.reason) == (400, True), reply.reason
    for who in ({"run_id": logged.run_id}, {"model_id": logged.model_id}):
        for root in ROUTES:
            reply = call(
                "POST", f"{root}/mlflow/artifacts/presigned-upload-url", {**who, "path": "model.onnx"}
            )
            assert reply.status in (400, 404, 405), reply.body


@pytest.mark.usefixtures("unchanged")
def test_an_experiment_placed_inside_the_store_cannot_replace_or_delete_a_file(logged: Logged) -> None:
    """The server opens an experiment's location itself, so a client may point one at the server's folders."""
    call = logged.server.call
    for number, location in enumerate(
        (f"file://{logged.folder}", f"worm+file://{logged.folder}", f"mlflow-artifacts:/{logged.path}")
    ):
        made = call(
            "POST",
            "/api/2.0/mlflow/experiments/create",
            {"name": f"inside {number}", "artifact_location": location},
        )
        if made.status != 200:
            continue
        run = call("POST", "/api/2.0/mlflow/runs/create", {"experiment_id": made.json["experiment_id"]}).json
        run_id = run["run"]["info"]["run_id"]
        for path in ("../../model.onnx", "model.onnx", "%2e%2e/%2e%2e/model.onnx"):
            call("POST", f"/ajax-api/2.0/mlflow/upload-artifact?run_uuid={run_id}&path={path}", b"another")
        call("POST", "/api/2.0/mlflow/runs/delete", {"run_id": run_id})
        call("POST", "/api/2.0/mlflow/experiments/delete", {"experiment_id": made.json["experiment_id"]})
    assert logged.predict() == [6.0]


@pytest.mark.usefixtures("unchanged")
def test_a_link_below_the_store_is_not_followed(logged: Logged, tmp_path: Path) -> None:
    link = logged.server.artifacts / f"link-{tmp_path.name}"
    link.symlink_to(tmp_path)
    (tmp_path / "secret.txt").write_bytes(b"secret")
    place = f"/api/2.0/mlflow-artifacts/artifacts/{link.name}"

    assert logged.server.call("PUT", f"{place}/new.txt", b"another").status == 403
    assert logged.server.call("GET", f"{place}/secret.txt").status == 403
    link.unlink()
    assert [file.name for file in tmp_path.iterdir()] == ["secret.txt"]


def test_of_racing_uploads_one_is_kept(server: Server) -> None:
    place = "/api/2.0/mlflow-artifacts/artifacts/race/new/model.onnx"
    replies: dict[int, int] = {}

    def put(number: int) -> None:
        replies[number] = server.call("PUT", place, bytes([number]) * 200_000).status

    threads = [threading.Thread(target=put, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    [winner] = [number for number, status in replies.items() if status == 200]
    assert sorted(replies.values()) == [200, 400, 400, 400, 400, 400]
    assert server.call("GET", place).body == bytes([winner]) * 200_000


def test_a_killed_server_keeps_what_was_published_and_nothing_half(server: Server) -> None:
    place = "/api/2.0/mlflow-artifacts/artifacts/killed/model.onnx"
    assert server.call("PUT", place, b"whole").status == 200
    (server.artifacts / ".leangate-staging-of-the-killed").write_bytes(b"half")

    server.kill()
    server.start()

    assert server.call("GET", place).body == b"whole"
    assert server.call("PUT", place, b"another").status == 400
    assert not list(server.artifacts.glob(".leangate-staging-*"))
