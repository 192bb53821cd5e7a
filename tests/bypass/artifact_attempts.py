# SPDX-License-Identifier: Apache-2.0
"""Attempts on the files of what is in production."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from tests.bypass.attempts import Attempt, as_reply
from tests.bypass.world import World
from tests.registry_server import Reply

__all__ = ["ARTIFACTS"]

REST, UI, CLIENT, DISK = "REST", "REST, as the user interface", "Python client", "server's disk"
ROUTES = "/api/2.0/mlflow-artifacts"
AJAX = "/ajax-api/2.0/mlflow-artifacts"


def _model(world: World) -> str:
    return world.artifact(world.home)


def _put(path: str, data: bytes = b"another", root: str = ROUTES) -> Callable[[World], Reply]:
    def act(world: World) -> Reply:
        place = path.format(model=_model(world), bundle=world.artifact(world.proof_home))
        return world.server.call("PUT", f"{root}/artifacts/{place}", data, user="author")

    return act


def _delete(path: str, user: str = "author") -> Callable[[World], Reply]:
    def act(world: World) -> Reply:
        place = path.format(model=_model(world), bundle=world.artifact(world.proof_home))
        return world.server.call("DELETE", f"{ROUTES}/artifacts/{place}", user=user)

    return act


def _multipart(step: str, root: str = ROUTES) -> Callable[[World], Reply]:
    def act(world: World) -> Reply:
        parts = [{"part_number": 1, "etag": "x", "url": "http://127.0.0.1/"}]
        body = {"path": "model.onnx", "num_parts": 1, "upload_id": "1", "parts": parts}
        return world.server.call("POST", f"{root}/mpu/{step}/{_model(world)}", body, user="author")

    return act


def _presigned(world: World) -> Reply:
    run = world.proof_home.parts[-3]
    return world.post("artifacts/presigned-upload-url", {"run_id": run, "path": "bundle/model.onnx"})


def _upload_handler(world: World) -> Reply:
    run = world.proof_home.parts[-3]
    path = f"/ajax-api/2.0/mlflow/upload-artifact?run_uuid={run}&path=bundle/decision.json"
    return world.server.call("POST", path, b"{}", user="author")


def _client(world: World) -> Reply:
    run = world.proof_home.parts[-3]
    file = world.folder / world.fresh("upload") / "model.onnx"
    file.parent.mkdir()
    file.write_bytes(b"another")
    with world.server.client("author") as client:
        return as_reply(lambda: client.log_artifact(run, str(file), "bundle"))


def _client_of_models(world: World) -> Reply:
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    file = world.folder / world.fresh("upload") / "model.onnx"
    file.parent.mkdir()
    file.write_bytes(b"another")
    with world.server.client("author"):
        repository = get_artifact_repository(f"mlflow-artifacts:/{_model(world)}")
        return as_reply(lambda: repository.log_artifact(str(file)))


def _changed_on_disk(choose: Callable[[World], Path]) -> Callable[[World], Reply]:
    """Whoever owns the disk has the bytes; whoever asks for production is told."""

    def act(world: World) -> Reply:
        path = choose(world)
        data, mode = path.read_bytes(), path.stat().st_mode
        path.chmod(0o644)
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        try:
            return world.resolve()
        finally:
            path.write_bytes(data)
            path.chmod(mode)

    return act


def _linked_on_disk(world: World) -> Reply:
    path = world.home / "model.onnx"
    kept = path.with_name(".kept")
    (world.folder / "planted.onnx").write_bytes(b"another")
    os.rename(path, kept)
    path.symlink_to(world.folder / "planted.onnx")
    try:
        return world.resolve()
    finally:
        os.replace(kept, path)


def _inside(place: Callable[[World], str]) -> Callable[[World], Reply]:
    """An experiment whose artifacts lie among those of production."""

    def act(world: World) -> Reply:
        body = {"name": world.fresh("inside"), "artifact_location": place(world)}
        made = world.post("experiments/create", body)
        if made.status != 200:
            return made
        run = world.post("runs/create", {"experiment_id": made.json["experiment_id"]}).json["run"]["info"][
            "run_id"
        ]
        path = f"/ajax-api/2.0/mlflow/upload-artifact?run_uuid={run}&path=x.onnx"
        return world.server.call("POST", path, b"another", user="author")

    return act


ARTIFACTS: tuple[Attempt, ...] = (
    Attempt("overwrite model.onnx", REST, _put("{model}/model.onnx"), entry=False, quick=True),
    Attempt("overwrite model.onnx", UI, _put("{model}/model.onnx", root=AJAX), entry=False),
    Attempt("overwrite MLmodel, which says what is loaded", REST, _put("{model}/MLmodel"), entry=False),
    Attempt("overwrite the decision in the bundle", REST, _put("{bundle}/decision.json"), entry=False),
    Attempt("overwrite it as an encoded path", REST, _put("{model}/model%252Eonnx"), entry=False),
    Attempt("overwrite it in capitals", REST, _put("{model}/MODEL.ONNX"), entry=False),
    Attempt("overwrite it through ..", REST, _put("{model}/x/%2e%2e/model.onnx"), entry=False),
    Attempt("overwrite it with a slash at the end", REST, _put("{model}/model.onnx/"), entry=False),
    Attempt("add weights beside model.onnx", REST, _put("{model}/model.onnx.data"), entry=False),
    Attempt("add code beside model.onnx", REST, _put("{model}/code/sitecustomize.py"), entry=False),
    Attempt("add a file to the bundle", REST, _put("{bundle}/evidence/more.npz"), entry=False),
    Attempt("delete model.onnx", REST, _delete("{model}/model.onnx", "admin"), entry=False, quick=True),
    Attempt("delete the bundle", REST, _delete("{bundle}", "admin"), entry=False),
    *(
        Attempt(f"multipart upload: {step}", REST, _multipart(step), entry=False)
        for step in ("create", "complete", "abort")
    ),
    Attempt("an upload address signed for a bucket", REST, _presigned, entry=False),
    Attempt("upload as the user interface does", UI, _upload_handler, entry=False),
    Attempt("log_artifact over the bundle", CLIENT, _client, entry=False),
    Attempt("log_artifact over the model", CLIENT, _client_of_models, entry=False),
    Attempt(
        "an experiment inside the model's folder",
        REST,
        _inside(lambda w: f"file://{w.home}"),
        entry=False,
        unprivileged=True,
    ),
    Attempt(
        "the same by the artifact's address",
        REST,
        _inside(lambda w: f"mlflow-artifacts:/{_model(w)}"),
        entry=False,
        harmless="its files lie in a folder of their own below",
    ),
    Attempt(
        "change model.onnx, ask for production",
        DISK,
        _changed_on_disk(lambda w: w.home / "model.onnx"),
        quick=True,
    ),
    Attempt("change MLmodel, ask for production", DISK, _changed_on_disk(lambda w: w.home / "MLmodel")),
    Attempt("put a link in place of model.onnx, ask for production", DISK, _linked_on_disk),
)
