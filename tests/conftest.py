# SPDX-License-Identifier: Apache-2.0
"""Fixtures for all tests: no network but loopback, and builders of evidence and project folders."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

# Libraries read these when they are first imported, numpy on the next lines.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.update(MLFLOW_DISABLE_TELEMETRY="true", DO_NOT_TRACK="true", DVC_NO_ANALYTICS="1")

import numpy as np  # noqa: E402

from checks.contract_runs import RUNS  # noqa: E402
from checks.evidence import (  # noqa: E402
    Attacks,
    Contract,
    Evidence,
    Examples,
    Scores,
    Subject,
    Timing,
)

ROOT = Path(__file__).resolve().parents[1]
"""The repository."""


@pytest.fixture(autouse=True)
def _loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in (
            "127.0.0.1",
            "::1",
            "localhost",
        ):
            raise AssertionError(f"a test tried to reach {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture
def repository() -> Path:
    """The repository's root."""
    return ROOT


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with the repository's params, policy and examples, as a user's project has them."""
    for name in ("params.yaml", "policy.yaml", "governance.yaml", "dvc.yaml", "attempts.jsonl"):
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "examples", tmp_path / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def _scores(labels: np.ndarray, correct: np.ndarray, classes: int) -> np.ndarray:
    chosen = np.where(correct, labels, (labels + 1) % classes)
    return np.eye(classes, dtype=np.float32)[chosen] * 4


def _timing(ratio: float, control: float, sessions: int, calls: int, energy: float | None) -> Timing:
    base = 1 + 0.01 * np.random.default_rng(0).random((1, sessions, 10))
    spread = np.linspace(0.98, 1.02, calls)
    spread[calls // 2] = 1.0
    joules = np.rint(base * 1e6).astype(np.int64)
    return Timing(
        batch_sizes=(64,),
        baseline_ms=base,
        candidate_ms=base * ratio,
        control_ms=base * control,
        baseline_peak_bytes=np.full(sessions, 1000),
        candidate_peak_bytes=np.full(sessions, 900),
        baseline_calls_ms=base[..., None] * spread,
        candidate_calls_ms=(base * ratio)[..., None] * spread,
        baseline_processor_s=base / 1000,
        candidate_processor_s=base * ratio / 1000,
        baseline_energy_uj=None if energy is None else joules,
        candidate_energy_uj=None if energy is None else np.rint(joules * energy).astype(np.int64),
        energy_counters=() if energy is None else ("package-0",),
    )


def build_evidence(
    n: int = 900,
    *,
    losses: int = 0,
    gains: int = 0,
    baseline_wrong: int = 0,
    level_losses: dict[str, int] | None = None,
    robust_losses: int = 0,
    ratio: float = 0.5,
    control: float = 1.0,
    sessions: int = 8,
    units: np.ndarray | None = None,
    calls: int = 5,
    energy: float | None = None,
) -> Evidence:
    """Evidence on 4 classes and one attribute `light` with levels dim, even, bright, a third each.

    `losses` are spread over all examples, `level_losses` fall into the named levels. An odd number of
    `calls` makes a round; `energy` is the candidate's over the baseline's, where counters were read.
    """
    classes = ("a", "b", "c", "d")
    ids = np.array([f"x{i:05d}" for i in range(n)])
    labels = np.arange(n, dtype=np.int64) % 4
    light = np.array(["dim", "even", "bright"])[(np.arange(n) // 4) % 3]
    baseline = np.ones(n, dtype=bool)
    baseline[n - baseline_wrong - gains :] = baseline_wrong + gains == 0
    candidate = baseline.copy()
    candidate[n - gains :] = True
    candidate[np.linspace(0, n // 2, losses, endpoint=False).astype(int)] = False
    for level, count in (level_losses or {}).items():
        candidate[np.flatnonzero(light == level)[:count]] = False
    robust = np.stack([baseline, np.arange(n) >= n // 5])
    candidate_robust = np.stack([candidate, np.arange(n) >= n // 5])
    candidate_robust[1, n // 5 : n // 5 + robust_losses] = False
    perturbation = np.zeros((2, n))
    perturbation[1] = 0.05
    scores = {"baseline": _scores(labels, baseline, 4), "candidate": _scores(labels, candidate, 4)}
    groups = {}
    for attribute, column in {"light": light, "label": np.array(classes)[labels]}.items():
        groups[attribute] = {
            str(level): {
                "n": int((column == level).sum()),
                "baseline_accuracy": float(baseline[column == level].mean()),
                "candidate_accuracy": float(candidate[column == level].mean()),
            }
            for level in np.unique(column)
        }
    return Evidence(
        subject=Subject("a" * 64, "b" * 64, "c" * 64, "d" * 64),
        examples=Examples(
            ids,
            ids if units is None else units,
            labels,
            classes,
            {"light": light},
            {"light": ("bright", "dim", "even")},
        ),
        baseline=Scores(ids, scores["baseline"]),
        candidate=Scores(ids, scores["candidate"]),
        contract=Contract(ids[:64], *(dict.fromkeys(RUNS, scores[model][:64]) for model in scores)),
        attacks=Attacks(
            ids,
            ("clean", "pgd"),
            robust,
            candidate_robust,
            perturbation,
            np.ones((2, n), bool),
            0.05,
            (1.0, 1.0),
        ),
        timing=_timing(ratio, control, sessions, calls, energy),
        cost={
            "baseline": {"bytes": 1000, "macs": 1000, "parameters": 100},
            "candidate": {"bytes": 200, "macs": 400, "parameters": 40},
        },
        groups={"attributes": groups},
        files={},
    )


@pytest.fixture
def evidence() -> Callable[..., Evidence]:
    """Build evidence; see `build_evidence`."""
    return build_evidence


@pytest.fixture
def vary() -> Callable[..., Any]:
    """`dataclasses.replace`, for one changed field."""
    return replace


def _decide(
    labels: Any,
    baseline: Any,
    candidate: Any,
    *,
    columns: dict[str, Any] | None = None,
    levels: dict[str, tuple[str, ...]] | None = None,
    units: Any = None,
    classes: tuple[str, ...] = ("a", "b", "c", "d"),
) -> Evidence:
    """Evidence on which both models decide for these classes, by position; -1 is scores that are NaN."""
    labels = np.asarray(labels, dtype=np.int64)
    good = build_evidence(len(labels))
    ids = good.examples.ids
    columns = {name: np.asarray(column, dtype=np.str_) for name, column in (columns or {}).items()}
    found = {name: tuple(sorted(set(column.tolist()))) for name, column in columns.items()}

    def scores(chosen: Any) -> Scores:
        chosen = np.asarray(chosen)
        answers = np.eye(len(classes), dtype=np.float32)[chosen] * 4
        answers[chosen < 0] = np.nan
        return replace(good.baseline, ids=ids, scores=answers)

    examples = Examples(
        ids,
        ids if units is None else np.asarray(units, dtype=np.str_),
        labels,
        classes,
        columns,
        found | (levels or {}),
    )
    return replace(good, examples=examples, baseline=scores(baseline), candidate=scores(candidate))


@pytest.fixture
def decided() -> Callable[..., Evidence]:
    """Build evidence from decisions; see `_decide`."""
    return _decide
