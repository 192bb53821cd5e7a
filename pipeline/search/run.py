# SPDX-License-Identifier: Apache-2.0
"""Brackets, one after the other, until trials or budget are used up."""

from __future__ import annotations

import contextlib
import fcntl
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil, inf
from pathlib import Path
from typing import Any

from checks.canonical import sha256_file, sha256_value
from checks.errors import InputError, LeanGateError, StorageError
from pipeline.data.dataset import data_digest
from pipeline.files import write_text
from pipeline.layout import Layout
from pipeline.params import Params
from pipeline.search.bench import Bench, epochs_inside
from pipeline.search.bracket import OutOfTimeError, run_bracket
from pipeline.search.space import baseline_precisions_of, expect_space, precisions_of
from pipeline.search.study import Entry, Handle, Study, named_errors, open_study

__all__ = [
    "Task",
    "database_url",
    "expect_results",
    "folder_of",
    "identity_of",
    "only_one_search",
    "open_here",
    "owner_token",
    "settings_of",
    "work",
]

_TOKEN = "owner.txt"  # noqa: S105 - a name of a folder's own processes, no secret


@dataclass(frozen=True)
class Task:
    """What one process does.

    Attributes:
        owner: Its name in the storage.
        adopt: Owner and number of brackets that were cut short.
        deadline: Of `time.monotonic()`.
    """

    owner: str
    adopt: Sequence[tuple[str, int]] = ()
    deadline: float = inf


def folder_of(layout: Layout) -> Path:
    """Return the folder of the search, made if need be.

    Raises:
        StorageError: if it cannot be made.
    """
    folder = layout.artifacts / "search"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"expected to make this folder, got {error.strerror or error}",
            where=str(folder),
            hint="fix the permissions, or move away what has its name",
        ) from error
    return folder


def database_url(folder: Path, url: str | None) -> str:
    """Return the address of the storage: the one named, or a SQLite file in the folder of the search."""
    return url or f"sqlite:///{folder / 'search.db'}"


def identity_of(layout: Layout, params: Params) -> dict[str, str]:
    """Return digests of all that trials of one search have in common.

    Raises:
        InputError: if there are no prepared data or no baseline yet.
    """
    for path, stage in ((layout.data / "data.json", "prepare"), (layout.baseline / "model.onnx", "train")):
        if not path.exists():
            raise InputError(
                f"expected what the stage {stage} makes, got none",
                where=str(path.parent),
                hint="run `dvc repro train` first",
            )
    return {
        "data": data_digest(layout.data),
        "baseline": sha256_file(layout.baseline / "model.onnx"),
        "settings": sha256_value(settings_of(params)),
    }


def settings_of(params: Params) -> dict[str, Any]:
    """Return what of `params.yaml` all trials of one search have in common, by its keys there."""
    recipes = params.quantize.recipes
    return {
        "search": params.search.model_dump(mode="json", exclude={"trials", "budget", "winners"}),
        "seed": params.seed,
        "train": params.train.model_dump(mode="json"),
        "model": params.model.model_dump(mode="json"),
        "quantize.recipes": {
            name: recipes[name].model_dump(mode="json")
            for name in sorted({*precisions_of(params), *baseline_precisions_of(params)})
        },
    }


def open_here(layout: Layout, params: Params, url: str | None, *, resume: bool) -> Study:
    """Check what is to be searched, and open its storage; see `open_study`."""
    expect_space(params)
    identity = identity_of(layout, params)
    settings = settings_of(params)
    return open_study(database_url(folder_of(layout), url), params, identity, settings, resume=resume)


def owner_token(folder: Path) -> str:
    """Return the name that processes of this folder go by, the same from call to call."""
    path = folder / _TOKEN
    if not path.exists():
        write_text(path, secrets.token_hex(8))
    return path.read_text(encoding="utf-8").strip()


@contextlib.contextmanager
def _locked(path: Path, *, wait: bool) -> Iterator[None]:
    try:
        file = path.open("w")
    except OSError as error:
        raise StorageError(
            f"expected to write this file, got {error.strerror or error}",
            where=str(path),
            hint="fix the folder's permissions",
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            raise InputError(
                "expected to be the only search in this folder, got another one in progress",
                where=str(path.parent),
                hint="wait until it ends; `--jobs` makes one search use several processes",
            ) from error
        yield


def only_one_search(folder: Path) -> contextlib.AbstractContextManager[None]:
    """Hold the folder's lock: while it is held, a trial of this folder that stands as running is dead."""
    return _locked(folder / "search.lock", wait=False)


def _epochs_of(params: Params) -> int:
    return max(params.search.space.recover.epochs or (max(1, params.train.epochs // 2),))


def _rung_costs(params: Params) -> list[int]:
    """Most epochs that one trial trains at each rung, those of its precision included."""
    drawn = [params.quantize.recipes[name] for name in precisions_of(params)]
    epochs, done, costs = _epochs_of(params), 0, []
    for share in params.search.rungs:
        end = ceil(share * epochs - 1e-9)
        costs.append(end - done + max(epochs_inside(precision, share) for precision in drawn))
        done = end
    return costs


def _most_epochs(params: Params, undecided: Sequence[tuple[int, int]], size: int) -> float:
    """Most epochs that a bracket still takes: what is shrunk costs less.

    Args:
        params: Section `search`.
        undecided: Slot, and rungs done, of each trial that may train on.
        size: With how many trials its first rung began, those that are the baseline itself left out.
    """
    first = baseline_precisions_of(params)
    inside = [
        epochs_inside(params.quantize.recipes[first[slot]]) for slot, _ in undecided if slot < len(first)
    ]
    total = float(sum(inside))
    for rung, cost in enumerate(_rung_costs(params)):
        climbing = sum(slot >= len(first) and done <= rung for slot, done in undecided)
        total += min(size, climbing) * cost
        size = max(1, size // 2)
    return total


def _promised(entries: Sequence[Entry], params: Params) -> float:
    """Most epochs that brackets still take which other processes are at."""
    first, total = len(baseline_precisions_of(params)), 0.0
    for number in {entry.bracket for entry in entries if entry.state == "running"}:
        own = [entry for entry in entries if entry.bracket == number]
        undecided = [(entry.slot, len(entry.rungs)) for entry in own if entry.state == "running"]
        total += _most_epochs(params, undecided, sum(entry.slot >= first for entry in own))
    return total


def _size_of_next(study: Study, params: Params) -> int:
    """How many trials the next bracket has: as many as are left, and as the budget of epochs surely holds."""
    entries = study.entries()
    begun = max((entry.slot for entry in entries), default=-1) + 1
    size = min(params.search.bracket, params.search.trials - begun)
    budget = params.search.budget.epochs
    if budget is None or size <= 0:
        return max(0, size)
    first = len(baseline_precisions_of(params))
    rest = budget - sum(entry.epochs for entry in entries) - _promised(entries, params)
    for count in range(size, 0, -1):
        slots = [(slot, 0) for slot in range(begun, begun + count)]
        if _most_epochs(params, slots, sum(slot >= first for slot, _ in slots)) <= rest:
            return count
    return 0


def work(
    study: Study, bench: Bench, params: Params, folder: Path, task: Task, done: Callable[[], None]
) -> bool:
    """Do what is left of a search.

    Args:
        study: The trials.
        bench: Where recipes are tried.
        params: Section `search`.
        folder: Of the search.
        task: Who this is, and what was left behind.
        done: Called after every step.

    Returns:
        Whether nothing is left; False if the minutes were over first.

    Raises:
        StorageError: if the database can no longer be read or written.
        LeanGateError: if the search as a whole cannot go on.
    """
    with named_errors(study.shown):
        try:
            return _work(study, bench, params, folder, task, done)
        except OutOfTimeError:
            return False


def _work(
    study: Study, bench: Bench, params: Params, folder: Path, task: Task, done: Callable[[], None]
) -> bool:
    waiting = list(task.adopt)
    while True:
        with _locked(folder / "draw.lock", wait=True):
            owner = task.owner
            handles: list[Handle] = []
            if waiting:
                owner, number = waiting.pop(0)
                handles, size = study.resume(owner, number)
            else:
                if time.monotonic() > task.deadline:
                    return False
                number = max((entry.bracket for entry in study.entries()), default=-1) + 1
                size = _size_of_next(study, params)
            handles += [study.ask(owner, number, size) for _ in range(size - len(handles))]
        if not handles:
            return True
        ordered = sorted(handles, key=lambda handle: handle.slot)
        run_bracket(study, bench, params, ordered, deadline=task.deadline, done=done)


def expect_results(study: Study) -> None:
    """Refuse a search of which nothing came.

    Raises:
        LeanGateError: if trials ended, and none with a candidate.
    """
    entries = study.entries()
    failed = [entry for entry in entries if entry.state == "failed"]
    if failed and not any(entry.state in ("finished", "running") for entry in entries):
        raise LeanGateError(
            f"expected a trial that finishes, got {len(failed)} that failed; the first: {failed[0].reason}",
            where="search",
        )
