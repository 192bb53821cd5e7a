# SPDX-License-Identifier: Apache-2.0
"""time: paired latency and memory of baseline and one finalist, into evidence.

The one stage whose output cannot be repeated byte for byte.
"""

from __future__ import annotations

import os

from pipeline.files import output_dir
from pipeline.layout import Layout
from pipeline.params import Params

__all__ = ["run"]


def run(layout: Layout, params: Params, *, slot: str) -> None:
    """Write `timing.npz` of the finalist in `slot`, or `absent.json` if there is none.

    Raises:
        ModelError: if an ONNX file is unusable or not the one on record.
        ProbeError: if a model cannot be timed.
    """
    from importlib.metadata import version

    from pipeline.probes.code_digest import code_sha256
    from pipeline.probes.finalist import read_finalist, write_absent
    from pipeline.probes.latency import measure_latency
    from pipeline.probes.session import open_session
    from pipeline.probes.tables import write_table

    finalist = read_finalist(layout, slot)
    if finalist is None:
        write_absent(layout.timing(slot), slot)
        return
    # The children skip these checks: what checking takes in memory is not the models' to answer for.
    open_session(finalist.baseline)
    open_session(finalist.candidate)
    options = params.time
    load_before = os.getloadavg()[0]
    timing = measure_latency(
        finalist.baseline,
        finalist.candidate,
        shape=finalist.shape,
        pixel_max=finalist.pixel_max,
        options=options,
        seed=params.seed,
    )
    header = {
        "schema": "leangate/timing/1",
        "baseline_sha256": finalist.baseline_sha256,
        "candidate_sha256": finalist.candidate_sha256,
        "code_sha256": code_sha256(),
        "batch_sizes": list(timing.batch_sizes),
        "effort": options.model_dump(mode="json"),
        "load_average": {"before": load_before, "after": os.getloadavg()[0]},
        "onnxruntime": version("onnxruntime"),
        "energy_counters": list(timing.energy_counters),
        "providers": {
            "declared": list(timing.baseline_providers.declared),
            "baseline": list(timing.baseline_providers.used),
            "candidate": list(timing.candidate_providers.used),
            "control": list(timing.baseline_providers.used),
        },
        "seed": params.seed,
        "threads": options.threads,
    }
    arrays = {
        "baseline_ms": timing.baseline_ms,
        "candidate_ms": timing.candidate_ms,
        "control_ms": timing.control_ms,
        "baseline_calls_ms": timing.baseline_calls_ms,
        "candidate_calls_ms": timing.candidate_calls_ms,
        "baseline_processor_s": timing.baseline_processor_s,
        "candidate_processor_s": timing.candidate_processor_s,
        "baseline_peak_bytes": timing.baseline_peak_bytes,
        "candidate_peak_bytes": timing.candidate_peak_bytes,
    }
    if timing.baseline_energy_uj is not None and timing.candidate_energy_uj is not None:
        arrays["baseline_energy_uj"] = timing.baseline_energy_uj
        arrays["candidate_energy_uj"] = timing.candidate_energy_uj
    with output_dir(layout.timing(slot)) as folder:
        write_table(folder / "timing.npz", header, arrays)
