# SPDX-License-Identifier: Apache-2.0
"""One bracket: trials that train side by side, and after each rung but the last the better half goes on.

Everything is recorded before it counts. A bracket that was cut short is run again on the values that are
there, and trains again only what has to go on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from checks.errors import LeanGateError, ParamsError, StorageError
from pipeline.params import Params
from pipeline.search.bench import Attempt, Bench
from pipeline.search.halving import survivors
from pipeline.search.study import Handle, Study, losses_of

__all__ = ["OutOfTimeError", "run_bracket"]


class OutOfTimeError(Exception):
    """The minutes of `search.budget` are over; what was begun stays open, for `--resume`."""


def _as_reason(error: Exception) -> str:
    if isinstance(error, LeanGateError):
        return str(error)
    first = (str(error).splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}"


@dataclass
class _Bracket:
    study: Study
    bench: Bench
    params: Params
    handles: Sequence[Handle]
    deadline: float
    done: Callable[[], None]
    attempts: dict[int, Attempt] = field(default_factory=dict)

    def _attempt(self, handle: Handle) -> Attempt:
        if handle.slot not in self.attempts:
            self.attempts[handle.slot] = self.bench.begin(handle.drawn)
        return self.attempts[handle.slot]

    def _close(self, handle: Handle, state: str, reason: str = "") -> None:
        self.attempts.pop(handle.slot, None)
        handle.close(state, reason)

    def _guarded(self, handle: Handle, step: Callable[[Handle], None]) -> None:
        """Do a step on a trial; whatever breaks in it is recorded, and the search goes on."""
        if time.monotonic() > self.deadline:
            raise OutOfTimeError
        if handle.deadly:
            self._close(handle, "failed", "the process died in it again and again")
            return
        with handle.working():
            try:
                step(handle)
            except (StorageError, ParamsError):
                raise  # no fault of this recipe's: the next one would end alike
            except Exception as error:
                self._close(handle, "failed", _as_reason(error))
        self.done()

    def _too_dear(self, costs: Mapping[str, float]) -> str:
        limits = self.params.search.limits.model_dump(exclude_none=True)
        over = [
            f"{name} {costs[name]:g} above the limit {limit:g}"
            for name, limit in limits.items()
            if name in costs and costs[name] > limit
        ]
        return ", ".join(over)

    def _enter(self, handle: Handle) -> None:
        """Drop what is known to be of no use before any training; finish what needs none."""
        twin = next(
            (
                entry.slot
                for entry in self.study.entries()
                if entry.slot < handle.slot and entry.recipe == handle.drawn.to_json()
            ),
            None,
        )
        if twin is not None:
            self._close(handle, "dropped", f"the same recipe as trial {twin}")
            return
        limited = self.params.search.limits.model_dump(exclude_none=True)
        reason = self._too_dear(self._attempt(handle).costs()) if limited else ""
        if reason:
            self._close(handle, "dropped", reason)
        elif sum(handle.drawn.epochs) == 0:
            self._measure(handle, len(handle.drawn.epochs) - 1)
            self._close(handle, "finished")

    def _measure(self, handle: Handle, rung: int) -> None:
        handle.record(self._attempt(handle).measure(rung))

    def _climb(self, handle: Handle) -> None:
        """Train and measure one rung more."""
        self._measure(handle, len(handle.rungs))

    def _halve(self, rung: int) -> None:
        # Also those that were dropped here before the process died: the others were compared with them.
        compared = [
            handle for handle in self.handles if sum(handle.drawn.epochs) and len(handle.rungs) > rung
        ]
        if not compared:
            return
        objectives = self.params.search.objectives
        kept = survivors(np.array([losses_of(objectives, handle.rungs[rung]) for handle in compared]))
        for place, handle in enumerate(compared):
            if place not in kept and handle.open:
                total = len(handle.drawn.epochs)
                self._close(handle, "dropped", f"not in the better half after rung {rung + 1} of {total}")
                self.done()

    def run(self) -> None:
        """Run every rung."""
        for handle in self.handles:
            if handle.open and not handle.rungs:
                self._guarded(handle, self._enter)
            elif handle.open and sum(handle.drawn.epochs) == 0:
                self._close(handle, "finished")  # measured, and the process died before it was said
        rungs = len(self.params.search.rungs)
        for rung in range(rungs):
            for handle in self.handles:
                if handle.open and len(handle.rungs) == rung:
                    self._guarded(handle, self._climb)
            if rung < rungs - 1:
                self._halve(rung)
        for handle in self.handles:
            if handle.open:
                reason = self._too_dear(handle.rungs[-1])
                self._close(handle, "dropped" if reason else "finished", reason)
        self.done()


def run_bracket(
    study: Study,
    bench: Bench,
    params: Params,
    handles: Sequence[Handle],
    *,
    deadline: float,
    done: Callable[[], None],
) -> None:
    """Run a bracket to its end.

    Args:
        study: Holds the trials.
        bench: Where recipes are tried.
        params: Section `search`.
        handles: Trials of the bracket by slot, those already decided included.
        deadline: Of `time.monotonic()`, after which nothing more is begun.
        done: Called after every step.

    Raises:
        OutOfTimeError: if the deadline is over.
        StorageError: if nothing can be written.
    """
    _Bracket(study, bench, params, handles, deadline, done).run()
