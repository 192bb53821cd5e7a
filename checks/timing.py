# SPDX-License-Identifier: Apache-2.0
"""`timing.npz`: what calls of both models took, in time, memory, processor time and energy.

Its arrays, of B batch sizes, S fresh session pairs, R rounds and m calls:

    {baseline,candidate,control}_ms       (B, S, R)     median of the calls of a round
    {baseline,candidate}_calls_ms         (B, S, R, m)  each call
    {baseline,candidate}_processor_s      (B, S, R)     processor time of a round, all threads
    {baseline,candidate}_energy_uj        (B, S, R)     energy of a round, where counters could be read
    {baseline,candidate}_peak_bytes       (S,)          peak resident memory of a process
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from checks.errors import EvidenceError
from checks.tables import CPU, Providers, Subject, Table

__all__ = ["Timing", "read_timing"]

Doubles = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

_TIMED = ("baseline", "candidate", "control")


@dataclass(frozen=True, eq=False)
class Timing:
    """Times of calls, in milliseconds, and what else they took.

    Attributes:
        batch_sizes: `(B,)`.
        baseline_ms: `(B, S, R)` S fresh session pairs of R rounds; each entry the median of the calls of
            a round.
        candidate_ms: `(B, S, R)`.
        control_ms: `(B, S, R)` a second copy of the baseline, for the A/A control.
        baseline_peak_bytes: `(S,)` peak resident memory of a process that ran the baseline.
        candidate_peak_bytes: `(S,)`.
        baseline_calls_ms: `(B, S, R, m)` every call behind `baseline_ms`.
        candidate_calls_ms: `(B, S, R, m)`.
        baseline_processor_s: `(B, S, R)` seconds of processor time, >= 0; 0 where the clock is too coarse.
        candidate_processor_s: `(B, S, R)`.
        baseline_energy_uj: `(B, S, R)` microjoules, >= 0; None where no counter could be read.
        candidate_energy_uj: `(B, S, R)`.
        energy_counters: What was counted, `package-0` for example; empty where nothing was.
        baseline_providers: What the baseline's sessions ran on.
        candidate_providers: What the candidate's sessions ran on.
    """

    batch_sizes: tuple[int, ...]
    baseline_ms: Doubles
    candidate_ms: Doubles
    control_ms: Doubles
    baseline_peak_bytes: Integers
    candidate_peak_bytes: Integers
    baseline_calls_ms: Doubles
    candidate_calls_ms: Doubles
    baseline_processor_s: Doubles
    candidate_processor_s: Doubles
    baseline_energy_uj: Integers | None = None
    candidate_energy_uj: Integers | None = None
    energy_counters: tuple[str, ...] = ()
    baseline_providers: Providers = CPU
    candidate_providers: Providers = CPU


def _batch_sizes(table: Table) -> tuple[int, ...]:
    sizes = table.field("batch_sizes")
    fits = isinstance(sizes, list) and sizes and all(type(size) is int and size >= 1 for size in sizes)
    if not fits or len(set(sizes)) != len(sizes):
        raise table.refuse(f"expected batch sizes, each once, got {sizes!r}")
    return tuple(sizes)


def _times(table: Table, name: str, shape: tuple[int | None, ...]) -> Doubles:
    times = table.array(name, "f", shape).astype(np.float64)
    if not (times.size and np.isfinite(times).all() and (times > 0).all()):
        raise table.refuse(f"expected finite times above 0 in {name!r}")
    return times


def _calls(table: Table, model: str, medians: Doubles) -> Doubles:
    """Read the calls behind `medians`, and recompute these: two records of one thing must agree."""
    name = f"{model}_calls_ms"
    calls = _times(table, name, (*medians.shape, None))
    if not np.allclose(np.median(calls, axis=-1), medians, rtol=1e-9, atol=0):
        raise table.refuse(f"expected the medians of {name!r} in '{model}_ms', got others")
    return calls


def _processor(table: Table, model: str, shape: tuple[int, ...]) -> Doubles:
    name = f"{model}_processor_s"
    seconds = table.array(name, "f", shape).astype(np.float64)
    if not (np.isfinite(seconds).all() and (seconds >= 0).all()):
        raise table.refuse(f"expected finite seconds of at least 0 in {name!r}")
    return seconds


def _energy(table: Table, model: str, shape: tuple[int, ...], counters: tuple[str, ...]) -> Integers | None:
    name = f"{model}_energy_uj"
    if not counters:
        if name in table.arrays:
            raise table.refuse(f"expected no {name!r} without energy counters, got one")
        return None
    energy = table.array(name, "i", shape).astype(np.int64)
    if (energy < 0).any():
        raise table.refuse(f"expected microjoules of at least 0 in {name!r}")
    return energy


def _peaks(table: Table, model: str, sessions: int) -> Integers:
    name = f"{model}_peak_bytes"
    peaks = table.array(name, "i", (sessions,)).astype(np.int64)
    if (peaks <= 0).any():
        raise table.refuse(f"expected bytes above 0 in {name!r}")
    return peaks


def read_timing(path: Path, subject: Subject) -> Timing:
    """Read `timing.npz` and refuse what is not about `subject`.

    Raises:
        EvidenceError: if the file is missing, malformed, about something else, or contradicts itself.
    """
    table = Table(path, "leangate/timing/1")
    table.expect_subject(subject, "baseline_sha256", "candidate_sha256", "code_sha256")
    sizes = _batch_sizes(table)
    baseline = _times(table, "baseline_ms", (len(sizes), None, None))
    shape = baseline.shape
    candidate, control = (_times(table, f"{model}_ms", shape) for model in ("candidate", "control"))
    counters = table.names("energy_counters")
    providers = dict(zip(_TIMED, table.providers(*_TIMED), strict=True))
    calls = _calls(table, "baseline", baseline)
    other = _calls(table, "candidate", candidate)
    if calls.shape != other.shape:
        raise EvidenceError(
            f"expected as many calls of both models, got {calls.shape} and {other.shape}", where=str(path)
        )
    if providers["control"] != providers["baseline"]:
        raise table.refuse("expected the control to run on what the baseline runs on")
    return Timing(
        batch_sizes=sizes,
        baseline_ms=baseline,
        candidate_ms=candidate,
        control_ms=control,
        baseline_peak_bytes=_peaks(table, "baseline", shape[1]),
        candidate_peak_bytes=_peaks(table, "candidate", shape[1]),
        baseline_calls_ms=calls,
        candidate_calls_ms=other,
        baseline_processor_s=_processor(table, "baseline", shape),
        candidate_processor_s=_processor(table, "candidate", shape),
        baseline_energy_uj=_energy(table, "baseline", shape, counters),
        candidate_energy_uj=_energy(table, "candidate", shape, counters),
        energy_counters=counters,
        baseline_providers=providers["baseline"],
        candidate_providers=providers["candidate"],
    )
