# SPDX-License-Identifier: Apache-2.0
"""Write-once storage: what was published keeps its bytes, by whatever spelling one comes to it."""

from __future__ import annotations

import os
import stat
import threading
import warnings
from pathlib import Path
from typing import Any

import pytest

with warnings.catch_warnings():
    # MLflow and the libraries below it warn when they are imported.
    warnings.simplefilter("ignore")
    from mlflow.exceptions import MlflowException
    from mlflow.store.artifact import artifact_repo
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    from leangate.plugins.write_once import WriteOnceArtifactRepository, seal

REFUSED = (400, 403)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "a store"


@pytest.fixture
def repository(store: Path) -> Any:
    # Through MLflow's registry of schemes: the entry point is part of what is tested.
    return get_artifact_repository(f"worm+file://{store}".replace(" ", "%20"))


@pytest.fixture
def upload(repository: Any, tmp_path: Path) -> Any:
    def put(path: str, data: bytes) -> None:
        folder, _, name = path.rpartition("/")
        (tmp_path / "outbox").mkdir(exist_ok=True)
        file = tmp_path / "outbox" / name
        file.write_bytes(data)
        repository.log_artifact(str(file), folder or None)

    return put


def refusal(call: Any, *arguments: Any) -> str:
    with pytest.raises(MlflowException) as caught:
        call(*arguments)
    assert caught.value.get_http_status_code() in REFUSED
    return str(caught.value)


def contents(store: Path) -> dict[str, bytes]:
    return {str(file.relative_to(store)): file.read_bytes() for file in store.rglob("*") if file.is_file()}


def test_the_scheme_leads_to_this_class(repository: Any) -> None:
    assert type(repository) is WriteOnceArtifactRepository


def test_what_is_published_comes_back_and_is_read_only(
    repository: Any, upload: Any, store: Path, tmp_path: Path
) -> None:
    upload("1/run/artifacts/model.onnx", b"judged")

    assert contents(store) == {"1/run/artifacts/model.onnx": b"judged"}
    file = store / "1/run/artifacts/model.onnx"
    assert stat.S_IMODE(file.stat().st_mode) == 0o444
    assert [(info.path, info.is_dir, info.file_size) for info in repository.list_artifacts("1/run")] == [
        ("1/run/artifacts", True, None)
    ]
    assert [
        (info.path, info.is_dir, info.file_size) for info in repository.list_artifacts("1/run/artifacts")
    ] == [("1/run/artifacts/model.onnx", False, 6)]
    assert repository.list_artifacts("1/run/artifacts/model.onnx") == []
    assert repository.list_artifacts("nothing") == []
    fetched = Path(repository.download_artifacts("1/run", str(tmp_path)))
    assert (fetched / "artifacts/model.onnx").read_bytes() == b"judged"


def test_a_download_without_a_target_is_a_copy(repository: Any, upload: Any, store: Path) -> None:
    upload("model/MLmodel", b"flavors")

    folder = Path(repository.download_artifacts("model"))
    (folder / "registered_model_meta").write_bytes(b"written by MLflow where it reads a model")

    assert contents(store) == {"model/MLmodel": b"flavors"}


def test_other_bytes_are_refused(upload: Any, store: Path) -> None:
    upload("model/model.onnx", b"judged")

    words = refusal(upload, "model/model.onnx", b"another")

    assert "model/model.onnx" in words
    assert "published before" in words
    assert contents(store) == {"model/model.onnx": b"judged"}


def test_the_same_bytes_again_succeed_and_change_nothing(upload: Any, store: Path) -> None:
    upload("model/model.onnx", b"judged")
    before = (store / "model/model.onnx").stat()

    upload("model/model.onnx", b"judged")

    after = (store / "model/model.onnx").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert contents(store) == {"model/model.onnx": b"judged"}


@pytest.mark.parametrize(
    "path",
    [
        "../store/model/model.onnx",
        "model/../model/model.onnx",
        "model/./model.onnx",
        "model//model.onnx",
        "/model/model.onnx",
        "model/model.onnx/",
        "model\\model.onnx",
        "model/model.onnx\x00",
        "model/model.onnx\n",
        ".leangate-staging-x",
        "Model/model.onnx",
        "model/MODEL.onnx",
        "model/model.onnx.",
        "model/model.onnx ",
        "model/model%2Eonnx",
        "model/model.onnx%00",
        "model/model.onnx\u200b",
        "model/\uff4dodel.onnx",
        "model/model.onnx/inside",
        "model",
    ],
)
def test_no_spelling_of_a_path_gets_around(
    repository: Any, upload: Any, store: Path, path: str, tmp_path: Path
) -> None:
    upload("model/model.onnx", b"judged")
    file = tmp_path / "another"
    file.write_bytes(b"another")

    # Below `log_artifact`, since a local file could not even have most of these names.
    refusal(repository._publish, file, path)

    assert contents(store) == {"model/model.onnx": b"judged"}


def test_accents_written_in_two_ways_are_one_name(upload: Any, store: Path) -> None:
    upload("caf\u00e9", b"judged")

    refusal(upload, "cafe\u0301", b"another")

    assert len(contents(store)) == 1


def test_a_folder_is_published_as_a_whole_and_stops_at_the_first_taken_path(
    repository: Any, upload: Any, store: Path, tmp_path: Path
) -> None:
    source = tmp_path / "bundle"
    (source / "evidence").mkdir(parents=True)
    (source / "card.md").write_bytes(b"card")
    (source / "evidence/cost.json").write_bytes(b"{}")
    repository.log_artifacts(str(source), "run/bundle")
    assert contents(store) == {"run/bundle/card.md": b"card", "run/bundle/evidence/cost.json": b"{}"}

    repository.log_artifacts(str(source), "run/bundle")
    (source / "card.md").write_bytes(b"another")
    refusal(repository.log_artifacts, str(source), "run/bundle")

    assert contents(store) == {"run/bundle/card.md": b"card", "run/bundle/evidence/cost.json": b"{}"}


@pytest.mark.parametrize("path", ["model/model.onnx", "model", "nothing", None])
def test_nothing_is_deleted(repository: Any, upload: Any, store: Path, path: str | None) -> None:
    upload("model/model.onnx", b"judged")

    refusal(repository.delete_artifacts, path)

    assert contents(store) == {"model/model.onnx": b"judged"}


def test_symbolic_links_are_followed_neither_for_writing_nor_for_reading(
    repository: Any, upload: Any, store: Path, tmp_path: Path
) -> None:
    upload("model/model.onnx", b"judged")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/model.onnx").write_bytes(b"another")
    (store / "link").symlink_to(tmp_path / "elsewhere")
    (store / "model/link.onnx").symlink_to(tmp_path / "elsewhere/model.onnx")

    refusal(upload, "link/new", b"another")
    refusal(upload, "model/link.onnx", b"another")
    refusal(repository.get_local_path, "link/model.onnx")
    refusal(repository.get_local_path, "model/link.onnx")
    refusal(repository.list_artifacts, "link")

    assert sorted(os.listdir(tmp_path / "elsewhere")) == ["model.onnx"]


def test_of_many_at_once_one_wins_and_the_others_are_told(
    repository: Any, store: Path, tmp_path: Path
) -> None:
    refused: list[tuple[int, int]] = []

    def put(number: int) -> None:
        file = tmp_path / str(number) / "model.onnx"
        file.parent.mkdir()
        file.write_bytes(f"{number}".encode() * 100_000)
        try:
            repository.log_artifact(str(file), "new/model")
        except MlflowException as error:
            refused.append((number, error.get_http_status_code()))

    threads = [threading.Thread(target=put, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    [winner] = set(range(8)) - {number for number, _ in refused}
    assert {status for _, status in refused} <= set(REFUSED)
    assert contents(store) == {"new/model/model.onnx": f"{winner}".encode() * 100_000}


def test_nothing_is_added_to_what_is_sealed(repository: Any, upload: Any, store: Path) -> None:
    upload("run/bundle/evidence/cost.json", b"{}")
    upload("run/model.onnx", b"judged")
    seal(store / "run/bundle")
    seal(store / "run/bundle")

    for path in ("run/bundle/new", "run/bundle/evidence/new", "run/bundle/new/new"):
        assert "'bundle'" in refusal(upload, path, b"more")
    inner = WriteOnceArtifactRepository(f"{repository.artifact_uri}/run/bundle/evidence")
    refusal(inner._publish, store / "run/model.onnx", "new")
    refusal(upload, "run/bundle/evidence/cost.json", b"[]")
    upload("run/bundle/evidence/cost.json", b"{}")
    upload("run/other/new", b"more")
    upload("run/bundled/new", b"more")

    assert [info.path for info in repository.list_artifacts("run")] == [
        "run/bundle",
        "run/bundled",
        "run/model.onnx",
        "run/other",
    ]
    assert {
        stat.S_IMODE(path.stat().st_mode) for path in (store / "run/bundle", store / "run/bundle/evidence")
    } == {0o555}
    refusal(upload, "run/.leangate-sealed-other", b"")


def test_a_failed_upload_leaves_nothing(repository: Any, store: Path, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="directory"):
        repository.log_artifact(str(tmp_path), "model")

    assert contents(store) == {}


def test_leftovers_of_a_killed_upload_go_and_those_of_a_running_one_stay(store: Path) -> None:
    import fcntl

    store.mkdir()
    (store / ".leangate-staging-dead").write_bytes(b"half")
    running = store / ".leangate-staging-running"
    running.write_bytes(b"half")
    with running.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        repository = WriteOnceArtifactRepository(f"worm+file://{store}".replace(" ", "%20"))

        assert contents(store) == {".leangate-staging-running": b"half"}
        assert repository.list_artifacts() == []
        refusal(repository.get_local_path, ".leangate-staging-running")


@pytest.mark.parametrize(
    "uri",
    [
        "worm+file:relative",
        "worm+file://host/path",
        "file:///path",
        "worm+file:///path?a=b",
        "worm+file:///path#a",
    ],
)
def test_any_other_uri_is_refused(uri: str) -> None:
    refusal(WriteOnceArtifactRepository, uri)


def test_every_way_to_write_that_mlflow_knows_is_closed_or_leads_through_publishing() -> None:
    """A writer that MLflow adds to its base class fails here before a release can go around the storage."""
    writers = {
        name
        for name in vars(artifact_repo.ArtifactRepository)
        if any(
            word in name for word in ("log", "upload", "delete", "write", "create", "save", "move", "copy")
        )
    }
    ours = {"log_artifact", "log_artifacts", "delete_artifacts"}
    through_ours = {
        "_log_artifact_async",
        "flush_async_logging",
        "upload_archived_trace_data",
        "upload_archived_trace_data_bytes",
        "upload_attachment",
        "upload_trace_data",
    }
    writes_elsewhere = {"_create_download_destination", "_create_thread_pool"}
    assert writers <= ours | through_ours | writes_elsewhere
    assert ours <= vars(WriteOnceArtifactRepository).keys()
    # Streaming, multipart and presigned uploads are mixins: without them a server falls back or refuses.
    assert WriteOnceArtifactRepository.__mro__[1:] == artifact_repo.ArtifactRepository.__mro__
