# SPDX-License-Identifier: Apache-2.0
"""Energy: what the candidate takes over what the baseline takes, by the processor's own counters.

The unit is a session pair, as in `checks.latency`: the logarithm of the ratio of all energy counted in its
rounds; the estimate is Hodges and Lehmann's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from checks.errors import EvidenceError
from checks.evidence import Evidence
from checks.latency import expect_design, log_totals, measure_ratio
from checks.measurement import Measurement, Method
from checks.protocol import Metric

__all__ = ["EnergyCheck"]


@dataclass(frozen=True)
class EnergyCheck:
    """Measures the ratio of energy, one a batch size.

    A check of its own, so that without counters it breaks alone: a rule on energy then ends as ERROR and
    says why, and latency is judged all the same.
    """

    name: str = "energy"

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """The metrics it measures."""
        return {"energy_ratio_b*": Metric(Method.HODGES_LEHMANN, places="overall")}

    def measure(self, evidence: Evidence) -> Sequence[Measurement]:
        """Measure every batch size that was timed.

        Raises:
            EvidenceError: if no energy counter was read, or it saw nothing of a whole session.
        """
        timing = evidence.timing
        expect_design(timing)
        spent, reference = timing.candidate_energy_uj, timing.baseline_energy_uj
        if spent is None or reference is None:
            raise EvidenceError(
                "expected energy counters (RAPL) that the timed processes may read, got none",
                where="timing.npz",
                hint="time on a host whose /sys/class/powercap/intel-rapl:*/energy_uj this user may read",
            )
        measurements = []
        for position, size in enumerate(timing.batch_sizes):
            ratios = log_totals(spent[position], reference[position])
            if ratios is None:
                raise EvidenceError(
                    f"expected energy above 0 in every session at batch size {size}, got none in some",
                    where="timing.npz",
                    hint="raise time.rounds or time.calls in params.yaml: the counter ticks once a "
                    "millisecond",
                )
            measurements.append(measure_ratio(f"energy_ratio_b{size}", ratios))
        return measurements
