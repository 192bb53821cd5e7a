# SPDX-License-Identifier: Apache-2.0
"""Simulated sessions on a shared host, with the true ratio or the true percentile known.

Noise as measured on shared hosts: drift over a session, autocorrelated load (AR(1)), single slow calls, and
an effect of each process that lasts for its whole session.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from gates_pool import default_timing

from checks.evidence import Timing

__all__ = ["SESSIONS", "memory_sessions", "noisy_sessions", "slow_sessions", "slowest_percent"]

SESSIONS = 8
ROUNDS = 10
CALLS = 3

_DRIFT = 0.06
_LOAD, _PERSISTENCE = 0.02, 0.9
_CALL = 0.03
_SPIKES, _SPIKE = 0.03, 3.0
_PROCESS = 0.015 / np.sqrt(2)
_MEMORY = 0.01
_TAIL = 0.1
_BLOCK = 100

Doubles = npt.NDArray[np.float64]


def _load(generator: np.random.Generator, draws: int, slots: int) -> Doubles:
    """Return `(draws, SESSIONS, slots)` logarithms of how slow the host is."""
    steps = generator.normal(0, _LOAD, (draws, SESSIONS, slots))
    for slot in range(1, slots):
        steps[..., slot] += _PERSISTENCE * steps[..., slot - 1]
    drift = generator.uniform(-_DRIFT, _DRIFT, (draws, SESSIONS, 1))
    return steps + drift * np.linspace(0, 1, slots)


def _block(generator: np.random.Generator, draws: int, log_ratio: float) -> Iterator[Timing]:
    # Slot by slot: in each round baseline, candidate and second copy of the baseline in random order.
    load = _load(generator, draws, 3 * ROUNDS).reshape(draws, SESSIONS, ROUNDS, 3)
    order = generator.random(load.shape).argsort(axis=-1)
    load = np.take_along_axis(load, order, axis=-1)
    process = generator.normal(0, _PROCESS, (draws, SESSIONS, 1, 3))
    process[..., 1] += log_ratio
    calls = (load + process)[..., np.newaxis] + generator.normal(0, _CALL, (*load.shape, CALLS))
    calls += np.where(generator.random(calls.shape) < _SPIKES, np.log(_SPIKE), 0.0)
    times = np.exp(calls)
    medians = np.median(times, axis=-1)
    plain = default_timing(SESSIONS, ROUNDS)
    for position in range(draws):
        ms, each = medians[position], times[position]
        yield replace(
            plain,
            baseline_ms=ms[np.newaxis, ..., 0],
            candidate_ms=ms[np.newaxis, ..., 1],
            control_ms=ms[np.newaxis, ..., 2],
            baseline_calls_ms=each[np.newaxis, :, :, 0],
            candidate_calls_ms=each[np.newaxis, :, :, 1],
        )


def noisy_sessions(generator: np.random.Generator, draws: int, ratio: float) -> Iterator[Timing]:
    """Yield times of a candidate that takes `ratio` times as long as its baseline."""
    for start in range(0, draws, _BLOCK):
        yield from _block(generator, min(_BLOCK, draws - start), float(np.log(ratio)))


def memory_sessions(generator: np.random.Generator, draws: int, ratio: float) -> Iterator[Timing]:
    """Yield peaks of memory of a candidate that needs `ratio` times as much."""
    plain = default_timing(SESSIONS, ROUNDS)
    for _ in range(draws):
        noise = generator.normal(0, _MEMORY, (2, SESSIONS))
        peaks = np.rint(1e9 * np.exp(noise) * np.array([[1.0], [ratio]])).astype(np.int64)
        yield replace(plain, baseline_peak_bytes=peaks[0], candidate_peak_bytes=peaks[1])


def slowest_percent(median_ms: float) -> float:
    """Return the 99th percentile of the calls of the slow session."""
    return float(median_ms * np.exp(_TAIL * 2.3263478740408408))


def slow_sessions(generator: np.random.Generator, draws: int, median_ms: float) -> Iterator[Timing]:
    """Yield sessions of 1,010 calls each; one of them is a fifth slower than the others."""
    plain = default_timing(SESSIONS, ROUNDS)
    middle = np.full((SESSIONS, 1, 1), 0.8 * median_ms)
    middle[0] = median_ms
    for _ in range(draws):
        calls = middle * np.exp(generator.normal(0, _TAIL, (SESSIONS, ROUNDS, 101)))
        medians = np.median(calls, axis=-1)[np.newaxis]
        yield replace(plain, candidate_ms=medians, candidate_calls_ms=calls[np.newaxis])
