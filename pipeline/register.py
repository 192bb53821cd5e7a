# SPDX-License-Identifier: Apache-2.0
"""register: the bundle becomes a version in the model registry."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from checks.canonical import dumps, sha256_file, sha256_value
from checks.errors import BlockedError, EvidenceError, InputError, ParamsError
from pipeline.card.contents import BOM, CARD, MANIFEST, Contents, read_bundle
from pipeline.card.figures import read_judged
from pipeline.card.model_card import summary
from pipeline.fields import Fields
from pipeline.files import write_json
from pipeline.layout import Layout
from pipeline.params import Params, load_yaml
from pipeline.plain import shorten
from pipeline.registry import BUNDLE_TAG, Dataset, Submission, register_bundle
from pipeline.waiver import today
from pipeline.waiver_file import WAIVERS

__all__ = ["run"]

_UNKNOWN = "unknown"
_RESERVED_ALIAS = re.compile(r"latest|v\d+", re.IGNORECASE)
_REQUIRED = ("numpy", "onnx", "onnxruntime")
_MAX_PARAM = 500
_MOST_PARAMS = 20
_MAX_TAG = 2_000


def _git(root: Path, *arguments: str) -> str | None:
    """Return what git prints, or None where there is no git or no repository."""
    git = shutil.which("git")
    if git is None:
        return None
    try:
        done = subprocess.run(  # noqa: S603 - the arguments are this module's
            [git, "-C", str(root), *arguments], capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _lock_digest(root: Path) -> str:
    """SHA-256 of the locked stages before this one; its own entry is written after it ran."""
    path = root / "dvc.lock"
    if not path.is_file():
        return _UNKNOWN
    try:
        lock = load_yaml(path, InputError)
        stages = {name: entry for name, entry in lock["stages"].items() if name != "register"}
        return sha256_value(stages)
    except (InputError, TypeError, ValueError, KeyError, AttributeError) as error:
        raise EvidenceError(
            f"expected the locked stages of DVC, got {error}", where=str(path), hint="run `dvc repro`"
        ) from error


def _lineage(root: Path) -> dict[str, str]:
    commit = _git(root, "rev-parse", "HEAD")
    # dvc.lock changes with every run of the pipeline and has a tag of its own.
    changes = _git(root, "status", "--porcelain", "--", ".", ":(exclude)dvc.lock") if commit else None
    return {
        "leangate.git_commit": commit.strip() if commit else _UNKNOWN,
        "leangate.git_dirty": _UNKNOWN if changes is None else "true" if changes.strip() else "false",
        "leangate.dvc_lock_sha256": _lock_digest(root),
    }


def _metrics(contents: Contents) -> dict[str, float]:
    """Measurements on all examples by name, and the worst slices'."""
    judged = read_judged(contents.decision, contents.waivers)
    metrics = {
        reading.metric: float(reading.value)
        for reading in judged.readings.values()
        if reading.slice == "overall" and reading.versus is None and not reading.target
    }
    for metric in ("candidate_accuracy", "accuracy_change"):
        values = [reading.value for reading in judged.decision.slices_of(metric)]
        if values:
            metrics[f"worst_slice_{metric}"] = float(min(values))
    cost = Fields(contents.evidence.cost, "evidence/cost.json")
    for side in ("baseline", "candidate"):
        for name in ("bytes", "macs", "parameters"):
            metrics[f"{side}_{name}"] = float(cost.inner(side).count(name))
    return {re.sub(r"[^A-Za-z0-9_\-./ ]", "_", name): value for name, value in sorted(metrics.items())}


def _flatten(value: Any, key: str) -> dict[str, str]:
    """Nested JSON as dotted keys and short texts; a long list is left out, it would be cut in the middle."""
    if isinstance(value, Mapping):
        return {k: v for name in sorted(value) for k, v in _flatten(value[name], f"{key}.{name}").items()}
    if isinstance(value, list) and any(isinstance(entry, dict | list) for entry in value):
        return {
            k: v for index, entry in enumerate(value) for k, v in _flatten(entry, f"{key}.{index}").items()
        }
    words = value if isinstance(value, str) else " ".join(dumps(value).split())
    if isinstance(value, list) and len(words) > _MAX_PARAM:
        return {}
    return {re.sub(r"[^A-Za-z0-9_\-./ ]", "_", key): words[:_MAX_PARAM]}


def _recipe(compression: Fields) -> dict[str, str]:
    """Passes with their options and figures; what has an entry a layer is in the bundle, not here."""
    flat: dict[str, str] = {}
    for index, entry in enumerate(compression.entries("passes"), start=1):
        flat[f"pass.{index}"] = entry.text("pass")
        for name in sorted(entry.value.keys() - {"pass"}):
            part = _flatten(entry.value[name], f"pass.{index}.{name}")
            if len(part) <= _MOST_PARAMS or name in ("options", "left"):
                flat |= part
    return flat


def _dataset(contents: Contents) -> Dataset:
    examples = contents.evidence.examples
    sources = list(contents.data.entries("sources"))
    origin = {
        name: "; ".join(sorted({entry.text(name) for entry in sources}))
        for name in ("source", "license", "consent")
    }
    names = np.array(examples.classes, dtype=np.str_)
    columns = {
        "id": examples.ids,
        "unit": examples.units,
        "label": names[examples.labels],
        **examples.columns,
    }
    return Dataset("test", contents.evidence.subject.data_sha256, origin, columns)


def _waived(contents: Contents) -> dict[str, str]:
    """Tags that say what was waived, and the last day on which all of it is."""
    if not contents.waivers:
        return {}
    told = "; ".join(
        f"{waiver.verdict} of {waiver.rule} on {waiver.subject} until {waiver.until}"
        for waiver in contents.waivers
    )
    return {
        "leangate.waived": shorten(told, _MAX_TAG),
        "leangate.waived_until": min(waiver.until for waiver in contents.waivers).isoformat(),
    }


def _expect_waived(contents: Contents) -> None:
    """Refuse what was waived until a day that is over: the bundle is older than its right to ship."""
    on = today()
    ended = [waiver for waiver in contents.waivers if waiver.until < on]
    if ended:
        raise BlockedError(
            f"expected waivers that hold on {on}, got {len(ended)} that ended: the one of "
            f"{shorten(ended[0].rule, 60)} on {shorten(ended[0].subject, 120)} on {ended[0].until}",
            where=WAIVERS,
            hint="`leangate run` judges anew",
        )


def _submission(layout: Layout, params: Params, manifest: Fields, contents: Contents) -> Submission:
    bundle_sha256 = sha256_file(layout.bundle / MANIFEST)
    environment = manifest.inner("environment")
    digests = {
        "leangate.onnx_sha256": manifest.text("onnx_sha256"),
        "leangate.policy_sha256": manifest.text("policy_sha256"),
        "leangate.decision_sha256": manifest.text("decision_sha256"),
        BUNDLE_TAG: bundle_sha256,
    }
    tags = digests | {
        **_lineage(layout.root),
        "leangate.decision": contents.outcome,
        "leangate.candidate": manifest.text("candidate"),
        **_waived(contents),
    }
    model = contents.model
    return Submission(
        model=params.register_.model,
        alias=params.register_.alias,
        experiment=params.register_.experiment,
        bundle=layout.bundle,
        bundle_sha256=bundle_sha256,
        onnx_sha256=manifest.text("onnx_sha256"),
        shape=tuple(model.value["shape"]),
        classes=len(model.texts("classes")),
        requirements=tuple(f"{name}=={environment.text(name)}" for name in _REQUIRED),
        files=(CARD, BOM, "decision.json", MANIFEST),
        metadata=digests | {"classes": list(model.texts("classes")), "pixel_max": model.count("pixel_max")},
        tags=tags,
        metrics=_metrics(contents),
        params=_recipe(contents.compression),
        dataset=_dataset(contents),
        description=summary(contents),
    )


def run(layout: Layout, params: Params) -> None:
    """Register the bundle and write `registration.json`; repeating it registers nothing twice.

    Raises:
        EvidenceError: if a file of the bundle is not the one its manifest names.
        ParamsError: if MLflow reserves the alias.
        BlockedError: if a waiver that it rests on has ended.
        RegistryError: if the registry cannot be reached, refuses, or gives other bytes back.
    """
    if _RESERVED_ALIAS.fullmatch(params.register_.alias):
        raise ParamsError(
            f"expected an alias other than `latest` and `v1`, `v2`, ..., got {params.register_.alias!r}",
            where="params.yaml register.alias",
        )
    manifest, contents = read_bundle(layout.bundle)
    _expect_waived(contents)
    submission = _submission(layout, params, manifest, contents)
    registered = register_bundle(submission, layout.root)
    registration = {
        "schema": "leangate/registration/1",
        "model": submission.model,
        "version": registered.version,
        "alias": submission.alias,
        "run_id": registered.run_id,
        "onnx_sha256": submission.onnx_sha256,
        "bundle_sha256": submission.bundle_sha256,
    }
    write_json(layout.registration, registration)
