# SPDX-License-Identifier: Apache-2.0
"""Latency of the candidate as a ratio to the baseline, over fresh session pairs.

The unit is a session pair: the median over its rounds of `log(candidate / baseline)`. The estimate is
Hodges and Lehmann's (1963, Annals of Mathematical Statistics 34:598). A second copy of the baseline goes
through the same rounds, so that a host too noisy to time anything shows itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from checks.evidence import Evidence
from checks.measurement import DISPLAY_ALPHA, OVERALL, Measurement, Method
from checks.statistics.ranks import hodges_lehmann, hodges_lehmann_bounds

__all__ = ["LatencyCheck"]

_WIDEST_LOG_RATIO = 20.0
"""With too few sessions a bound is infinite; a factor of e^20 says as much in a finite number."""


def _log_ratios(times: npt.NDArray[np.float64], reference: npt.NDArray[np.float64]) -> list[float]:
    return [float(value) for value in np.median(np.log(times / reference), axis=1)]


def _finite(bound: float) -> float:
    return float(np.clip(bound, -_WIDEST_LOG_RATIO, _WIDEST_LOG_RATIO))


@dataclass(frozen=True)
class LatencyCheck:
    """Measures latency ratios, one a batch size, and the ratio of peak memory."""

    name: str = "latency"

    @property
    def metrics(self) -> Mapping[str, Method]:
        """The metrics it measures."""
        return {"latency_ratio_b*": Method.HODGES_LEHMANN, "peak_memory_ratio": Method.EXACT_VALUE}

    def measure(self, evidence: Evidence) -> Sequence[Measurement]:
        """Measure every batch size that was timed."""
        timing = evidence.timing
        measurements = []
        for position, size in enumerate(timing.batch_sizes):
            ratios = _log_ratios(timing.candidate_ms[position], timing.baseline_ms[position])
            control = _log_ratios(timing.control_ms[position], timing.baseline_ms[position])
            low, high = hodges_lehmann_bounds(ratios, DISPLAY_ALPHA)
            measurements.append(
                Measurement(
                    metric=f"latency_ratio_b{size}",
                    slice=OVERALL,
                    value=float(np.exp(hodges_lehmann(ratios))),
                    interval=(float(np.exp(_finite(low))), float(np.exp(_finite(high)))),
                    n=len(ratios),
                    unit="ratio",
                    method=Method.HODGES_LEHMANN,
                    statistics={"log_ratios": ratios, "control_log_ratios": control},
                )
            )
        memory = float(np.median(timing.candidate_peak_bytes) / np.median(timing.baseline_peak_bytes))
        sessions = len(timing.candidate_peak_bytes)
        return [
            *measurements,
            Measurement("peak_memory_ratio", OVERALL, memory, None, sessions, "ratio", Method.EXACT_VALUE),
        ]
