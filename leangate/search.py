# SPDX-License-Identifier: Apache-2.0
"""`leangate search`: recipes that no other found recipe beats on everything at once."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.layout import Layout
    from pipeline.params import Params
    from pipeline.search.run import Task
    from pipeline.search.study import Study

__all__ = ["HELP", "Options", "search"]

HELP = """Draw recipes from the ranges in section `search` of params.yaml, build and measure each on the
validation split, drop the worse half while they train, and keep those that no other beats on every
objective at once. Needs prepared data and a baseline (`dvc repro train`), and the extra `search`
(`pip install 'leangate[search]'`). The test split is never read: what was found is judged by
`leangate run`, after --write.

writes artifacts/search/trials.json and front.svg

exit codes:
  0  done; what was found is printed
  1  --write, and nothing found is good enough to be written
  2  params.yaml, options or storage are wrong, or data or baseline are missing
  4  no trial finished, or a file could not be written
"""

_OUT_OF_TIME = 75
_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Options:
    """What was asked for.

    Attributes:
        trials: In place of search.trials.
        resume: Go on with the search that lies there.
        write: Write the winners into params.yaml; alone, without searching.
        storage: Address of a database that several machines share.
        jobs: Processes.
        as_json: Print trials.json.
    """

    trials: int | None = None
    resume: bool = False
    write: bool = False
    storage: str | None = None
    jobs: int = 1
    as_json: bool = False


def _expect_optuna() -> None:
    from checks.errors import InputError

    if importlib.util.find_spec("optuna") is None:
        raise InputError(
            "expected Optuna, got no such package",
            where="leangate search",
            hint="pip install 'leangate[search]'",
        )


def _load(layout: Layout, options: Options) -> Params:
    from checks.errors import ParamsError
    from pipeline.params import load_params

    for name, value in (("--trials", options.trials), ("--jobs", options.jobs)):
        if value is not None and not 1 <= value <= 100_000:
            raise ParamsError(f"expected at least 1 and at most 100000, got {value}", where=name)
    params = load_params(layout.params)
    if options.trials is None:
        return params
    changed = params.search.model_copy(update={"trials": options.trials})
    return params.model_copy(update={"search": changed})


class _Progress:
    """One line on a terminal after every step; nothing elsewhere."""

    def __init__(self, study: Study, trials: int) -> None:
        self._study, self._trials = study, trials
        self._start, self._before = time.monotonic(), self._ended()
        self._shown = sys.stderr.isatty()

    def _ended(self) -> int:
        return sum(entry.state != "running" for entry in self._study.entries())

    def __call__(self) -> None:
        if not self._shown:
            return
        ended = self._ended()
        new = ended - self._before
        spent = time.monotonic() - self._start
        left = f", about {_minutes(spent / new * (self._trials - ended))} left" if new else ""
        print(f"\r\x1b[Ksearch: {ended} of {self._trials} trials{left}", end="", file=sys.stderr, flush=True)

    def close(self) -> None:
        """End the line."""
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def _start_worker(
    layout: Layout, params: Params, options: Options, task: Task, errors: IO[str]
) -> subprocess.Popen[str]:
    seconds = None if task.deadline == inf else max(0.0, task.deadline - time.monotonic())
    worker = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "pipeline.search.worker"],
        stdin=subprocess.PIPE,
        stderr=errors,
        text=True,
    )
    told = {
        "root": str(layout.root.resolve()),
        "storage": options.storage,  # on a pipe: it may hold a password, and arguments are for all to see
        "owner": task.owner,
        "adopt": [list(entry) for entry in task.adopt],
        "trials": params.search.trials,
        "seconds": seconds,
    }
    if worker.stdin is not None:
        with contextlib.suppress(BrokenPipeError):
            worker.stdin.write(json.dumps(told))
            worker.stdin.close()
            worker.stdin = None
    return worker


def _end(worker: subprocess.Popen[str]) -> None:
    worker.kill()
    worker.wait()


def _in_processes(
    layout: Layout, params: Params, options: Options, tasks: list[Task], done: Callable[[], None]
) -> bool:
    from checks.errors import LeanGateError

    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(tempfile.TemporaryFile("w+")) for _ in tasks]
        workers = []
        for task, file in zip(tasks, files, strict=True):
            workers.append(_start_worker(layout, params, options, task, file))
            stack.callback(_end, workers[-1])
        while any(worker.poll() is None for worker in workers):
            time.sleep(_POLL_SECONDS)
            done()
        for file in files:
            file.seek(0)
        texts = [file.read() for file in files]
    for worker, text in zip(workers, texts, strict=True):
        if worker.returncode not in (0, _OUT_OF_TIME):
            said = text.strip().splitlines()
            raise LeanGateError(
                f"expected every process to end well, got exit code {worker.returncode}"
                + (f": {said[0].removeprefix('error: ')}" if said else ""),
                where="leangate search",
                hint="--resume goes on with what was left",
            )
    return all(worker.returncode == 0 for worker in workers)


def _run(layout: Layout, params: Params, options: Options) -> tuple[Study, bool]:
    """Search; return the trials, and whether all of them are done."""
    from pipeline.search.run import Task, expect_results, folder_of, open_here, owner_token, work

    folder = folder_of(layout)
    minutes = params.search.budget.minutes
    deadline = inf if minutes is None else time.monotonic() + 60 * minutes
    study = open_here(layout, params, options.storage, resume=options.resume)
    token = owner_token(folder)
    left = study.interrupted(token)
    tasks = [Task(f"{token}-{index}", left[index :: options.jobs], deadline) for index in range(options.jobs)]
    progress = _Progress(study, params.search.trials)
    try:
        if options.jobs > 1:
            complete = _in_processes(layout, params, options, tasks, progress)
        else:
            from pipeline.search.bench import FileBench

            complete = work(study, FileBench(layout, params, folder), params, folder, tasks[0], progress)
    finally:
        progress.close()
    expect_results(study)
    return study, complete


def _figure(name: str, value: float | None) -> str:
    from pipeline.report.wording import describe_bytes

    if value is None:
        return "-"
    if name == "bytes":
        return describe_bytes(int(value))
    return f"{value:,.0f}" if name == "macs" else f"{value:.3f}"


def _describe(results: Mapping[str, Any], *, complete: bool) -> str:
    from leangate.terminal import Line, Table, render
    from pipeline.search.results import describe_passes

    names = [entry["name"] for entry in results["objectives"]]
    front = [row for row in results["trials"] if row["on_front"]]
    front.sort(key=lambda row: (row["objectives"]["bytes"], row["trial"]))
    rows = [
        [
            str(row["trial"]),
            describe_passes(row["recipe"]),
            row["recipe"]["precision"],
            *(_figure(name, row["objectives"][name]) for name in names),
            row["winner"] or "",
        ]
        for row in front
    ]
    base = results["baseline"]
    rows.append(["", "baseline", "", *(_figure(name, base.get(name)) for name in names), ""])
    states = ", ".join(f"{count} {state}" for state, count in sorted(results["states"].items()))
    head = f"{len(results['trials'])} trials ({states}), {results['epochs']:.1f} epochs of the baseline"
    parts: list[Line | Table] = [
        Line(head, "bold"),
        Line(""),
        Table(
            heads=("Trial", "Recipe", "Precision", *(name.replace("_", " ") for name in names), ""),
            rows=rows,
            styles=["bold" if row[-1] else "" for row in rows],
            right=frozenset({0, *range(3, 3 + len(names))}),
            widest={1: 48},
        ),
        Line(""),
    ]
    failed = [row for row in results["trials"] if row["state"] == "failed"]
    parts += [Line(f"trial {row['trial']} failed: {row['reason']}", "yellow") for row in failed[:5]]
    if len(failed) > 5:
        parts.append(Line(f"and {len(failed) - 5} more, see trials.json", "yellow"))
    if not any(row["winner"] for row in front):
        parts.append(
            Line(
                f"Nothing new on the front has an accuracy of {results['least_accuracy']:.3f} or more on "
                "validation (shortlist.max_accuracy_drop).",
                "yellow",
            )
        )
    if not complete:
        parts.append(Line("The minutes are over and trials are left: --resume goes on.", "yellow"))
    parts.append(Line("All figures are of the validation split, which chose; the test split judges.", "dim"))
    return render(parts)


def _save(layout: Layout, results: Mapping[str, Any]) -> None:
    from pipeline.files import write_json, write_text
    from pipeline.search.picture import render_search
    from pipeline.search.run import folder_of

    folder = folder_of(layout)
    write_json(folder / "trials.json", results)
    write_text(folder / "front.svg", render_search(results))


def _write(layout: Layout, results: Mapping[str, Any]) -> str:
    from checks.errors import BlockedError
    from pipeline.search.adopt import write_winners

    winners = {row["winner"]: row["recipe"] for row in results["trials"] if row["winner"]}
    if not winners:
        raise BlockedError(
            f"expected something new with an accuracy of {results['least_accuracy']:.3f} or more on "
            "validation, got none",
            where="leangate search --write",
            hint="try more trials, more epochs or a gentler space; shortlist.max_accuracy_drop is the limit",
        )
    write_winners(layout.params, winners)
    return f"wrote {', '.join(winners)} into {layout.params}; `leangate run` makes and judges them\n"


def search(root: Path, options: Options) -> tuple[str, int]:
    """Search, or write what was found.

    Args:
        root: Folder of `params.yaml`.
        options: What was asked for.

    Returns:
        What to print, and the exit code 0.

    Raises:
        InputError: if anything the user wrote is wrong, or data or baseline are missing.
        BlockedError: if winners are to be written and there are none.
        StorageError: if a file cannot be written.
    """
    from checks.canonical import dumps
    from checks.errors import InputError
    from pipeline.layout import Layout
    from pipeline.stages import settle_environment

    settle_environment()
    _expect_optuna()
    layout = Layout(root)
    params = _load(layout, options)

    from pipeline.search.results import results_of
    from pipeline.search.run import folder_of, identity_of, only_one_search, open_here
    from pipeline.search.space import expect_space

    expect_space(params)
    identity_of(layout, params)
    with only_one_search(folder_of(layout)):
        complete = True
        if options.write and not options.resume and options.trials is None:
            study = open_here(layout, params, options.storage, resume=True)
            if not study.entries():
                raise InputError(
                    "expected a search to write the winners of, got none",
                    where="leangate search --write",
                    hint="run `leangate search` first",
                )
        else:
            study, complete = _run(layout, params, options)
        results = results_of(study, layout, params)
        _save(layout, results)
        told = _write(layout, results) if options.write else ""
    if options.as_json:
        return dumps(results), 0
    return _describe(results, complete=complete) + told, 0
