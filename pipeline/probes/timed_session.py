# SPDX-License-Identifier: Apache-2.0
"""The child process that times one ONNX file: `python -m pipeline.probes.timed_session`.

It reads one line of JSON with its settings, answers `ready`, then answers each request on a line of its own:

    {"batch_size": 64}  ->  {"round": {...}}        what the calls of one round took
    {"end": true}       ->  {"peak_bytes": 1234}    and exits

A round has `calls_ms`, the time of each call; `processor_s`, processor time of all threads; `energy_uj`,
null where no energy counter can be read.

It imports as little as it can: what it holds in memory is part of what it measures.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.probes.energy import Counters, open_counters

__all__: list[str] = []


def _die_with_parent(parent: int) -> None:
    """Ask the kernel to kill this process with its parent, where it can (Linux)."""
    if sys.platform != "linux":
        return
    import ctypes
    import signal

    parent_death_signal = 1  # PR_SET_PDEATHSIG of <linux/prctl.h>
    ctypes.CDLL(None).prctl(parent_death_signal, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the parent is gone")


def _peak_bytes() -> int:
    """Peak resident memory of this process.

    The kernel's own high-water mark where there is one: `ru_maxrss` starts at the parent's size, because
    it survives exec.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _run_round(session: Any, feed: dict[str, Any], calls: int, counters: Counters) -> dict[str, Any]:
    session.run(None, feed)  # what ran in between has emptied the caches
    energy, processor = counters.read(), time.process_time()
    times = []
    for _ in range(calls):
        start = time.perf_counter_ns()
        session.run(None, feed)
        times.append(time.perf_counter_ns() - start)
    processor = time.process_time() - processor
    return {
        "calls_ms": [duration / 1e6 for duration in times],
        "processor_s": processor,
        "energy_uj": counters.spent(energy),
    }


def _answer(value: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def _serve() -> None:
    from pipeline.probes.session import create_session

    settings = json.loads(sys.stdin.readline())
    _die_with_parent(settings["parent"])
    session = create_session(Path(settings["model"]), threads=settings["threads"])
    name = session.get_inputs()[0].name
    feeds = {}
    for batch_size in settings["batch_sizes"]:
        random = np.random.default_rng([settings["seed"], batch_size])
        images = random.uniform(0, settings["pixel_max"], (batch_size, *settings["shape"]))
        feeds[batch_size] = {name: images.astype(np.float32)}
        for _ in range(settings["warmup"]):
            session.run(None, feeds[batch_size])
    counters = open_counters(Path(settings["powercap"]))
    _answer({"ready": {"providers": session.get_providers(), "counters": counters.names}})
    for line in sys.stdin:
        request = json.loads(line)
        if "end" in request:
            _answer({"peak_bytes": _peak_bytes()})
            return
        feed = feeds[request["batch_size"]]
        _answer({"round": _run_round(session, feed, settings["calls"], counters)})


if __name__ == "__main__":
    _serve()
