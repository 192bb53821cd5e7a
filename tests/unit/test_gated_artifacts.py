# SPDX-License-Identifier: Apache-2.0
"""A version's files lie where the server keeps them, and nowhere a client may choose."""

from __future__ import annotations

from pathlib import Path

import pytest

from checks.errors import EvidenceError
from leangate.plugins.artifacts import expect_kept_here, files_of

DESTINATION = "_MLFLOW_SERVER_ARTIFACT_DESTINATION"


@pytest.mark.parametrize(
    "uri",
    [
        "file:///srv/model",
        "/srv/model",
        "s3://bucket/model",
        "worm+file:///srv/model",
        "mlflow-artifacts://another.example/1/model",
        "mlflow-artifacts:/1/model?version=2",
        "mlflow-artifacts:/1/model#2",
    ],
)
def test_a_place_a_client_may_choose_is_refused(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DESTINATION, "worm+file:///srv/artifacts")
    with pytest.raises(EvidenceError, match="own artifact store"):
        expect_kept_here(uri)


def test_the_servers_own_store_is_taken_and_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "1/model").mkdir(parents=True)
    monkeypatch.setenv(DESTINATION, f"worm+file://{tmp_path}")

    expect_kept_here("mlflow-artifacts:/1/model")

    with files_of("mlflow-artifacts:/1/model") as folder:
        assert folder == tmp_path / "1/model"
    for path in ("1/../1/model", "1/%2e%2e/1/model", "1//model"):
        with pytest.raises(EvidenceError, match="leads elsewhere"), files_of(f"mlflow-artifacts:/{path}"):
            pass


def test_an_error_names_files_as_clients_know_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "1/model").mkdir(parents=True)
    monkeypatch.setenv(DESTINATION, f"worm+file://{tmp_path}")

    with pytest.raises(EvidenceError) as caught, files_of("mlflow-artifacts:/1/model") as folder:
        raise EvidenceError(f"expected {folder}/a", where=f"{folder}/MLmodel", hint=f"look into {folder}")

    assert str(caught.value) == "mlflow-artifacts:/1/model/MLmodel: expected mlflow-artifacts:/1/model/a"
    assert caught.value.hint == "look into mlflow-artifacts:/1/model"
