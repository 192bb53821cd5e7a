# SPDX-License-Identifier: Apache-2.0
"""A bundle becomes a version in the registry; repeating it registers nothing twice."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from checks.canonical import sha256_file
from checks.errors import RegistryError
from pipeline.registry_client import DATABASES, URI, connected, default_uri, redact

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from mlflow import MlflowClient
    from mlflow.data.pandas_dataset import PandasDataset
    from mlflow.entities.model_registry import ModelVersion
    from onnx import ModelProto

__all__ = ["BUNDLE_TAG", "Dataset", "Registered", "Submission", "register_bundle"]

BUNDLE_TAG = "leangate.bundle_sha256"
"""Tag of runs and versions by which a repeated registration finds what it already did."""

_MAX_DIGEST = 36


@dataclass(frozen=True)
class Dataset:
    """The examples the candidate was judged on, as a run's input; its rows are described, not stored.

    Attributes:
        name: For example `test`.
        sha256: Identifies the examples.
        origin: Facts about the source, such as its licence.
        columns: Column name to `(N,)` values.
    """

    name: str
    sha256: str
    origin: Mapping[str, str]
    columns: Mapping[str, npt.NDArray[np.str_]]


@dataclass(frozen=True)
class Submission:
    """Everything a registration consists of.

    Attributes:
        model: Name in the registry.
        alias: Given to the version last.
        experiment: Where the run is kept.
        bundle: Folder of the bundle.
        bundle_sha256: Of its manifest.
        onnx_sha256: Of its `model.onnx`.
        shape: `(C, H, W)` of one image.
        classes: Number of outputs.
        requirements: Pinned, for whoever loads the model.
        files: Files of the bundle that travel with the version.
        metadata: Kept in the model's own file.
        tags: Of run and version.
        metrics: Finite numbers.
        params: Of the run.
        dataset: Of the run.
        description: Of the version, Markdown, at most 5,000 characters.
    """

    model: str
    alias: str
    experiment: str
    bundle: Path
    bundle_sha256: str
    onnx_sha256: str
    shape: tuple[int, ...]
    classes: int
    requirements: tuple[str, ...]
    files: tuple[str, ...]
    metadata: Mapping[str, Any]
    tags: Mapping[str, str]
    metrics: Mapping[str, float]
    params: Mapping[str, str]
    dataset: Dataset
    description: str


@dataclass(frozen=True)
class Registered:
    """A version in the registry."""

    version: str
    run_id: str


def _experiment(client: MlflowClient, name: str, root: Path, uri: str) -> str:
    """Return the id of the experiment, made if there is none; a database of our own keeps files beside it."""
    experiment = client.get_experiment_by_name(name)
    home = (root / "mlruns").resolve()
    if experiment is None:
        database = urlsplit(uri).scheme.split("+")[0] in DATABASES
        folder = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-") or "experiment"
        return str(
            client.create_experiment(name, artifact_location=(home / folder).as_uri() if database else None)
        )
    if experiment.lifecycle_stage != "active":
        raise RegistryError(
            f"expected an active experiment, got {name!r}, which is {experiment.lifecycle_stage}",
            where=f"{URI} {redact(uri)}",
            hint="restore it, or name another one in params.yaml register.experiment",
        )
    place = urlsplit(str(experiment.artifact_location))
    elsewhere = place.scheme in ("", "file") and not Path(unquote(place.path)).is_relative_to(home)
    if uri == default_uri(root) and elsewhere:
        raise RegistryError(
            f"expected files below {home}, got an mlflow.db whose experiment {name!r} keeps them in "
            f"{experiment.artifact_location}",
            where=f"{URI} {redact(uri)}",
            hint="the folder was moved or copied after mlflow.db was made: move it back, point "
            f"{URI} at a server, or begin anew by removing mlflow.db and mlruns",
        )
    return str(experiment.experiment_id)


def _find_version(client: MlflowClient, submission: Submission) -> ModelVersion | None:
    """Return the first version of this bundle; the name is compared here, as it may hold any quote."""
    found: list[ModelVersion] = []
    token: str | None = None
    while token != "":
        page = client.search_model_versions(
            f"tags.`{BUNDLE_TAG}` = '{submission.bundle_sha256}'", max_results=1000, page_token=token
        )
        found += [version for version in page if version.name == submission.model]
        token = page.token or ""
    return min(found, key=lambda version: int(version.version), default=None)


def _end_orphans(client: MlflowClient, experiment: str, submission: Submission, keep: str | None) -> None:
    """Runs of this bundle that still say RUNNING belong to a process that is gone."""
    runs = client.search_runs(
        [experiment], f"tags.`{BUNDLE_TAG}` = '{submission.bundle_sha256}' and attributes.status = 'RUNNING'"
    )
    for run in runs:
        client.set_terminated(run.info.run_id, "FINISHED" if run.info.run_id == keep else "KILLED")


def _log_dataset(dataset: Dataset) -> PandasDataset:
    import mlflow
    import pandas as pd
    from mlflow.data.code_dataset_source import CodeDatasetSource
    from mlflow.data.pandas_dataset import from_pandas

    table = from_pandas(
        pd.DataFrame(dict(dataset.columns)),
        source=CodeDatasetSource(tags=dict(dataset.origin)),
        name=dataset.name,
        digest=dataset.sha256[:_MAX_DIGEST],
    )
    mlflow.log_input(table, context=dataset.name)
    return table


def _read_onnx(path: Path) -> ModelProto:
    """Parse the ONNX file; MLflow writes the parsed model, so that has to give the same bytes again."""
    import onnx

    proto = onnx.load(path, load_external_data=False)
    if proto.SerializeToString() != path.read_bytes():
        raise RegistryError(
            "expected an ONNX file that parsing and writing leaves as it is, got one that changes",
            where=str(path),
            hint="make the candidate again with `dvc repro`",
        )
    return proto


def _log_model(submission: Submission, proto: ModelProto) -> str:
    """Log the ONNX file and return the model's id."""
    import mlflow.onnx
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types.schema import Schema, TensorSpec

    signature = ModelSignature(
        inputs=Schema([TensorSpec(np.dtype(np.float32), (-1, *submission.shape))]),
        outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, submission.classes), name="scores")]),
    )
    logged = mlflow.onnx.log_model(
        proto,
        name="model",
        signature=signature,
        pip_requirements=list(submission.requirements),
        save_as_external_data=False,
        onnx_execution_providers=["CPUExecutionProvider"],
        extra_files=[str(submission.bundle / name) for name in submission.files],
        metadata=dict(submission.metadata),
        model_type="classifier",
        tags={BUNDLE_TAG: submission.bundle_sha256},
    )
    return str(logged.model_id)


def _create_version(client: MlflowClient, experiment: str, submission: Submission) -> ModelVersion:
    """Log one run and make a version of its model; the run ends when the version exists."""
    import mlflow
    from mlflow.exceptions import MlflowException

    proto = _read_onnx(submission.bundle / "model.onnx")
    name = str(submission.tags.get("leangate.candidate", submission.model))
    created = client.create_run(experiment, tags=dict(submission.tags), run_name=name)
    run_id = created.info.run_id
    with mlflow.start_run(run_id=run_id):
        mlflow.log_params(dict(submission.params))
        dataset = _log_dataset(submission.dataset)
        client.log_artifacts(run_id, str(submission.bundle), "bundle")
        model_id = _log_model(submission, proto)
        mlflow.log_metrics(dict(submission.metrics), model_id=model_id, dataset=dataset)
        try:
            client.create_registered_model(submission.model)
        except MlflowException as error:
            if error.error_code not in ("RESOURCE_ALREADY_EXISTS", "ALREADY_EXISTS"):
                raise
        # Tags come with the version, so that a process that dies here leaves no version it cannot find again.
        return client.create_model_version(
            submission.model,
            source=f"models:/{model_id}",
            run_id=run_id,
            tags=dict(submission.tags),
            description=submission.description,
            await_creation_for=60,
            model_id=model_id,
        )


def _check_bytes(client: MlflowClient, version: ModelVersion, submission: Submission) -> None:
    """Download what was registered and hash it."""
    import mlflow.artifacts

    uri = client.get_model_version_download_uri(version.name, version.version)
    with tempfile.TemporaryDirectory() as folder:
        path = mlflow.artifacts.download_artifacts(artifact_uri=f"{uri}/model.onnx", dst_path=folder)
        came = sha256_file(Path(path))
    if came != submission.onnx_sha256:
        raise RegistryError(
            f"expected the registered model.onnx to have SHA-256 {submission.onnx_sha256}, got {came}; "
            f"the alias {submission.alias!r} was not set",
            where=f"model {version.name!r}, version {version.version}",
            hint="find out who changed the file; delete this version before registering again",
        )


def register_bundle(submission: Submission, root: Path) -> Registered:
    """Register a bundle, or find it registered; the alias moves last, after the bytes were hashed again.

    Args:
        submission: What to register.
        root: The folder of `dvc.yaml`.

    Raises:
        RegistryError: if the registry cannot be reached, refuses, or gives other bytes back.
    """
    with connected(root) as (client, uri):
        experiment = _experiment(client, submission.experiment, root, uri)
        version = _find_version(client, submission)
        _end_orphans(client, experiment, submission, keep=version.run_id if version else None)
        if version is None:
            version = _create_version(client, experiment, submission)
        _check_bytes(client, version, submission)
        aliases = client.get_registered_model(submission.model).aliases
        if str(aliases.get(submission.alias)) != str(version.version):
            client.set_registered_model_alias(submission.model, submission.alias, version.version)
        return Registered(str(version.version), str(version.run_id))
