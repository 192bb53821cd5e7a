# SPDX-License-Identifier: Apache-2.0
"""Cost: bytes, multiply-accumulates and parameters of both files, and their ratios."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from checks.errors import EvidenceError
from checks.evidence import Evidence
from checks.measurement import OVERALL, Measurement, Method
from checks.protocol import Metric

__all__ = ["CostCheck"]

_FIGURES = {"bytes": "bytes", "macs": "count", "parameters": "count"}


def _figure(evidence: Evidence, model: str, name: str) -> int:
    value = evidence.cost.get(model, {}).get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise EvidenceError(f"expected {name} of the {model} above 0, got {value!r}", where="cost.json")
    return value


@dataclass(frozen=True)
class CostCheck:
    """Measures what both files cost; ratios are candidate over baseline."""

    name: str = "cost"

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """The metrics it measures."""
        names = [f"{prefix}_{figure}" for figure in _FIGURES for prefix in ("baseline", "candidate")]
        names += [f"{figure}_ratio" for figure in _FIGURES]
        return dict.fromkeys(names, Metric(Method.EXACT_VALUE, places="overall"))

    def measure(self, evidence: Evidence) -> Sequence[Measurement]:
        """Measure every figure; there is no sampling error."""
        measurements = []
        for name, unit in _FIGURES.items():
            baseline, candidate = _figure(evidence, "baseline", name), _figure(evidence, "candidate", name)
            for metric, value, of in (
                (f"baseline_{name}", baseline, unit),
                (f"candidate_{name}", candidate, unit),
                (f"{name}_ratio", candidate / baseline, "ratio"),
            ):
                measurements.append(Measurement(metric, OVERALL, value, None, 1, of, Method.EXACT_VALUE))
        return measurements
