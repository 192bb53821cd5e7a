# SPDX-License-Identifier: Apache-2.0
"""A search without networks: what a recipe gives is a formula, so that only the search itself is at work."""

from __future__ import annotations

import atexit
import hashlib
import shutil
import tempfile
from functools import cache
from math import inf
from pathlib import Path

from checks.errors import CompressionError
from pipeline.compress.configs import Recover
from pipeline.compress.precision_configs import TrainedInt8
from pipeline.params import load_params
from pipeline.search.bench import Measured
from pipeline.search.run import Task, settings_of, work
from pipeline.search.study import open_study

ROOT = Path(__file__).resolve().parents[1]
IDENTITY = {"data": "a" * 64, "baseline": "b" * 64, "settings": "c" * 64}


def params_of(**changes):
    """The repository's parameters with another section `search`; no objective needs a file.

    A further precision, `taught`, trains two epochs of its own.
    """
    params = load_params(ROOT / "params.yaml")
    learning = Recover.model_validate(params.train.model_dump() | {"epochs": 2, "precision": "float32"})
    recipes = {**params.quantize.recipes, "taught": TrainedInt8(recover=learning)}
    params = params.model_copy(update={"quantize": params.quantize.model_copy(update={"recipes": recipes})})
    search = params.search.model_validate(
        {"trials": 10, "bracket": 4, "rungs": (0.25, 0.5, 1.0), "objectives": ("accuracy", "bytes")} | changes
    )
    return params.model_copy(update={"search": search})


class Formula:
    """Fewer multiply-accumulates and bytes cost accuracy, epochs give some of it back."""

    def __init__(self, hook=lambda drawn, what: None):
        self.hook, self.trained = hook, 0

    def begin(self, drawn):
        self.hook(drawn, "begin")
        return _Attempt(self, drawn)


class _Attempt:
    def __init__(self, bench, drawn):
        self.bench, self.drawn = bench, drawn
        channels = next((entry.channels for entry in drawn.shrink if entry.channels), None)
        self.reduction = channels.macs_reduction if channels else 1.0

    def costs(self):
        return {"bytes": 4000 / self.reduction * (1 if self.drawn.precision == "fp32" else 0.25)}

    def measure(self, rung):
        self.bench.hook(self.drawn, "measure")
        self.bench.trained += self.drawn.epochs[rung]
        done = sum(self.drawn.epochs[: rung + 1])
        rate = next((entry.learning_rate for entry in self.drawn.recover if entry), 0.0)
        accuracy = 0.99 - 0.02 * (self.reduction - 1) / (1 + done) - rate
        text = f"{self.drawn} {rung}"
        digest = hashlib.sha256(text.encode()).hexdigest()
        values = {"accuracy": accuracy, **self.costs()}
        epochs = self.drawn.epochs[rung] + (2 if self.drawn.precision == "taught" else 0)
        return Measured(values, digest, epochs / self.reduction)


def refuse(drawn, what):
    """A hook for `Formula`: strong pruning cannot be done."""
    if what == "begin" and drawn.shrink and drawn.shrink[0].channels.macs_reduction > 2:
        raise CompressionError("expected a gentler target", where="channels")


@cache
def _empty_database():
    """Tables take a while to make, and are the same for every search."""
    import optuna

    path = Path(tempfile.mkdtemp()) / "search.db"
    atexit.register(shutil.rmtree, path.parent)
    storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
    storage.engine.dispose()
    return path.read_bytes()


def run_search(folder, params, bench, *, resume=False, deadline=inf, owner="me"):
    """Run a search in `folder` as one process does; return its trials, and whether all are done."""
    if not (folder / "search.db").exists():
        (folder / "search.db").write_bytes(_empty_database())
    study = open_study(
        f"sqlite:///{folder / 'search.db'}", params, IDENTITY, settings_of(params), resume=resume
    )
    task = Task(f"{owner}-0", study.interrupted(owner), deadline)
    complete = work(study, bench, params, folder, task, lambda: None)
    return study.entries(), complete
