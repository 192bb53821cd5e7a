# SPDX-License-Identifier: Apache-2.0
"""Latency: the candidate's time over the baseline's, the slowest calls of both, memory, processor time.

The unit of a ratio is a session pair: the median over its rounds of `log(candidate / baseline)`. The
estimate is Hodges and Lehmann's (1963, Annals of Mathematical Statistics 34:598). A second copy of the
baseline goes through the same rounds, so that a host too noisy to time anything shows itself.

The 99th percentile of single calls is measured session by session, since calls of one process resemble
each other, and the slowest session counts. Its bounds are order statistics, whatever the distribution
(David and Nagaraja 2003, Order Statistics, section 7.1).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from checks.errors import EvidenceError
from checks.evidence import Evidence, Timing
from checks.measurement import DISPLAY_ALPHA, OVERALL, Measurement, Method
from checks.protocol import Metric
from checks.statistics.order_statistics import quantile_upper
from checks.statistics.ranks import hodges_lehmann, hodges_lehmann_bounds

__all__ = ["FEWEST", "LONGEST_MS", "LatencyCheck", "expect_design", "log_totals", "measure_ratio"]

QUANTILE = 0.99

FEWEST = {"sessions": 8, "rounds": 10, "calls": 3}
"""Of each, what a claim on time needs: sessions to tell chance, rounds and calls to outlast a hiccup."""

LONGEST_MS = 1e9
"""Where too few calls leave a percentile without an upper bound, its interval ends here: twelve days."""

_WIDEST_LOG_RATIO = 20.0
"""With too few sessions a bound is infinite; a factor of e^20 says as much in a finite number."""

Doubles = npt.NDArray[np.float64]


def _log_medians(times: Doubles, reference: Doubles) -> list[float]:
    return [float(value) for value in np.median(np.log(times / reference), axis=1)]


def log_totals(spent: npt.NDArray[np.generic], reference: npt.NDArray[np.generic]) -> list[float] | None:
    """Return the logarithm of one session's total over the other's, session pair by session pair.

    Totals, and no medians of rounds: counters of energy and of processor time tick too coarsely for a
    short round, and then say nothing was spent in it.

    Args:
        spent: `(S, R)` of the candidate, >= 0.
        reference: `(S, R)` of the baseline, >= 0.

    Returns:
        `S` numbers, or None if a whole session spent nothing that the counter could see.
    """
    totals = [np.asarray(part, dtype=np.float64).sum(axis=1) for part in (spent, reference)]
    if not all((total > 0).all() for total in totals):
        return None
    return [float(value) for value in np.log(totals[0] / totals[1])]


def _finite(bound: float) -> float:
    return float(np.clip(bound, -_WIDEST_LOG_RATIO, _WIDEST_LOG_RATIO))


def measure_ratio(
    metric: str, log_ratios: list[float], *, control: list[float] | None = None, unit: str = "ratio"
) -> Measurement:
    """Measure a ratio of the candidate to the baseline over session pairs.

    Args:
        metric: Name of the metric.
        log_ratios: One a session pair, at least one, finite.
        control: The same of a second copy of the baseline, where there is one.
        unit: `ratio`, or `proxy` for what stands for something else and is not judged.
    """
    low, high = hodges_lehmann_bounds(log_ratios, DISPLAY_ALPHA)
    statistics = {"log_ratios": log_ratios}
    if control is not None:
        statistics["control_log_ratios"] = control
    return Measurement(
        metric=metric,
        slice=OVERALL,
        value=float(np.exp(hodges_lehmann(log_ratios))),
        interval=(float(np.exp(_finite(low))), float(np.exp(_finite(high)))),
        n=len(log_ratios),
        unit=unit,
        method=Method.HODGES_LEHMANN,
        statistics=statistics,
    )


def _measure_slowest(metric: str, calls: Doubles) -> Measurement:
    """Measure the 99th percentile of single calls in the slowest session.

    Args:
        metric: Name of the metric.
        calls: `(S, K)` milliseconds of K calls in each of S sessions.
    """
    seen = np.quantile(calls, QUANTILE, axis=1, method="inverted_cdf")
    slowest = int(seen.argmax())

    def bounds(alpha: float) -> tuple[float, float]:
        upper = 0.0
        for session in calls:
            bound = quantile_upper(session, QUANTILE, alpha)
            upper = max(upper, np.inf if bound is None else bound)
        # Mirrored, the upper bound of a low quantile. The slowest session was picked out of all, so its
        # error is shared by all: else the more sessions, the likelier a false proof that calls are slow.
        mirror = quantile_upper(-calls[slowest], 1 - QUANTILE, alpha / len(calls))
        return (-np.inf if mirror is None else -mirror), upper

    low, high = bounds(DISPLAY_ALPHA)
    return Measurement(
        metric=metric,
        slice=OVERALL,
        value=float(seen[slowest]),
        interval=(max(low, 0.0), min(high, LONGEST_MS)),
        n=calls.shape[1],
        unit="ms",
        method=Method.ORDER_STATISTIC,
        statistics={"quantile": QUANTILE, "session_values": [float(value) for value in seen]},
        bounds=bounds,
    )


def _measure_size(timing: Timing, position: int) -> Iterator[Measurement]:
    """Yield what was measured at one batch size."""
    size = timing.batch_sizes[position]
    reference = timing.baseline_ms[position]
    yield measure_ratio(
        f"latency_ratio_b{size}",
        _log_medians(timing.candidate_ms[position], reference),
        control=_log_medians(timing.control_ms[position], reference),
    )
    for model, calls in (("baseline", timing.baseline_calls_ms), ("candidate", timing.candidate_calls_ms)):
        each = calls[position]
        yield _measure_slowest(f"{model}_p99_ms_b{size}", each.reshape(len(each), -1))
    proxy = log_totals(timing.candidate_processor_s[position], timing.baseline_processor_s[position])
    if proxy is not None:
        yield measure_ratio(f"energy_proxy_ratio_b{size}", proxy, unit="proxy")


def expect_design(timing: Timing) -> None:
    """Refuse times of fewer sessions, rounds or calls than any claim on time rests on.

    Raises:
        EvidenceError: naming what is short.
    """
    _, sessions, rounds, calls = timing.baseline_calls_ms.shape
    came = {"sessions": sessions, "rounds": rounds, "calls": calls}
    short = [f"{name} {came[name]} of {least}" for name, least in FEWEST.items() if came[name] < least]
    if short:
        raise EvidenceError(
            f"expected at least {', '.join(f'{least} {name}' for name, least in FEWEST.items())}, "
            f"got {', '.join(short)}",
            where="timing.npz",
            hint="raise them in params.yaml time",
        )


@dataclass(frozen=True)
class LatencyCheck:
    """Measures latency ratios and the slowest calls, one a batch size, and the ratio of peak memory.

    `energy_proxy_ratio_b*` is the ratio of processor time, all threads: it stands for energy where no
    counter can be read, shown for information. It is left out where the processor's clock is too coarse to
    see a session.
    """

    name: str = "latency"

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """The metrics it measures."""
        return {
            "latency_ratio_b*": Metric(Method.HODGES_LEHMANN, control=True, places="overall"),
            "baseline_p99_ms_b*": Metric(Method.ORDER_STATISTIC, places="overall"),
            "candidate_p99_ms_b*": Metric(Method.ORDER_STATISTIC, places="overall"),
            "energy_proxy_ratio_b*": Metric(Method.HODGES_LEHMANN, gateable=False, places="overall"),
            "peak_memory_ratio": Metric(Method.HODGES_LEHMANN, places="overall"),
        }

    def measure(self, evidence: Evidence) -> Sequence[Measurement]:
        """Measure every batch size that was timed.

        Raises:
            EvidenceError: if there are fewer sessions, rounds or calls than any claim on time rests on.
        """
        timing = evidence.timing
        expect_design(timing)
        measurements = [
            entry for position in range(len(timing.batch_sizes)) for entry in _measure_size(timing, position)
        ]
        memory = np.log(timing.candidate_peak_bytes / timing.baseline_peak_bytes)
        return [*measurements, measure_ratio("peak_memory_ratio", [float(value) for value in memory])]
