# SPDX-License-Identifier: Apache-2.0
"""Paired latency: fresh process pairs, interleaved rounds, and a second copy of the baseline as control.

A round runs baseline, candidate and control back to back in random order, so that whatever slows the host
slows all three; duet benchmarking, Bulej et al. 2020 (https://arxiv.org/abs/2001.05811). Fresh processes,
because where memory happens to lie shifts a whole session (Kalibera and Jones 2013,
https://doi.org/10.1145/2491894.2464160).
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from checks.errors import ProbeError
from checks.evidence import Providers, Timing
from pipeline.params import Time
from pipeline.probes.energy import POWERCAP
from pipeline.probes.session import PROVIDERS
from pipeline.progress import track

__all__ = ["TIMEOUT_SECONDS", "measure_latency"]

TIMEOUT_SECONDS = 600.0
"""How long a child may take for one answer."""

MODULE = "pipeline.probes.timed_session"
MODELS = ("baseline", "candidate", "control")


class _Child:
    """One process that runs one ONNX file, and answers one line to each line it is sent."""

    def __init__(self, name: str, errors: IO[bytes], timeout: float) -> None:
        self.name, self._errors, self._timeout = name, errors, timeout
        root = str(Path(__file__).resolve().parents[2])
        paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
        # One thread setting for all: ONNX Runtime's is in the settings, other libraries' pools stay off.
        threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self._process = subprocess.Popen(  # noqa: S603 - our own module, no shell, no text from data
            [sys.executable, "-P", "-W", "ignore", "-m", MODULE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=os.environ | threads | {"PYTHONPATH": os.pathsep.join(paths)},
            text=True,
        )

    def _failure(self, what: str) -> ProbeError:
        self._process.kill()
        self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        last = f"; its last words: {lines[-1][:300]}" if lines else ""
        return ProbeError(f"expected the process that times the {self.name} to answer, got {what}{last}")

    def send(self, request: dict[str, Any]) -> None:
        """Send one request."""
        pipe = self._process.stdin
        if pipe is None:
            raise self._failure("no pipe")
        try:
            pipe.write(json.dumps(request) + "\n")
            pipe.flush()
        except OSError as error:
            raise self._failure("a closed pipe") from error

    def _read_line(self) -> str:
        """Return the next line, or nothing if the process ends, by itself or for taking too long."""
        pipe = self._process.stdout
        if pipe is None:
            raise self._failure("no pipe")
        expired = threading.Event()

        def expire() -> None:
            expired.set()
            self._process.kill()

        late = threading.Timer(self._timeout, expire)
        late.daemon = True
        late.start()
        try:
            line = pipe.readline()
        finally:
            late.cancel()
        if expired.is_set():
            raise self._failure(f"nothing in {self._timeout:g} s")
        return line

    def receive(self, key: str) -> Any:
        """Return what the child answers under `key`, or raise what became of it."""
        line = self._read_line()
        if not line:
            raise self._failure(f"its end, exit code {self._process.wait()}")
        try:
            return json.loads(line)[key]
        except (ValueError, KeyError, TypeError) as error:
            raise self._failure(f"the line {line[:100]!r}") from error

    def ask(self, request: dict[str, Any], key: str) -> Any:
        """Send one request and return its answer."""
        self.send(request)
        return self.receive(key)

    def close(self) -> None:
        """End the process, whatever it is doing."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


@contextlib.contextmanager
def _session_pair(
    files: dict[str, Path], settings: dict[str, Any], timeout: float
) -> Iterator[tuple[dict[str, _Child], list[str]]]:
    """Start one fresh process for each of baseline, candidate and control; end them all on leaving.

    Yields the processes, and the energy counters that all of them can read.
    """
    with contextlib.ExitStack() as stack:
        children: dict[str, _Child] = {}
        for name in MODELS:
            children[name] = _Child(name, stack.enter_context(tempfile.TemporaryFile()), timeout)
            stack.callback(children[name].close)
        for name, child in children.items():
            child.send(settings | {"model": str(files[name])})
        counters = []
        for child in children.values():
            ready = child.receive("ready")
            # Times on different hardware are no comparison, so this does not wait for a policy to say so.
            if ready["providers"] != list(PROVIDERS):
                raise ProbeError(
                    f"expected providers {list(PROVIDERS)} for the {child.name}, got {ready['providers']}"
                )
            counters.append(ready["counters"])
        yield children, counters[0] if all(entry == counters[0] for entry in counters) else []


class _Record:
    """What one model took in one session pair: arrays `(B, R)`, and `(B, R, m)` of single calls."""

    def __init__(self, options: Time) -> None:
        rounds = (len(options.batch_sizes), options.rounds)
        self.calls_ms = np.empty((*rounds, options.calls))
        self.processor_s = np.empty(rounds)
        self.energy_uj = np.zeros(rounds, np.int64)
        self.peak_bytes = 0
        self.counted = True

    def put(self, index: int, turn: int, answer: dict[str, Any]) -> None:
        """Keep what a child answered of one round."""
        self.calls_ms[index, turn] = answer["calls_ms"]
        self.processor_s[index, turn] = answer["processor_s"]
        if answer["energy_uj"] is None:
            self.counted = False
        else:
            self.energy_uj[index, turn] = answer["energy_uj"]


def _measure_pair(
    children: dict[str, _Child], options: Time, random: np.random.Generator
) -> dict[str, _Record]:
    """Return what one session pair took, by model."""
    records = {name: _Record(options) for name in MODELS}
    for turn in range(options.rounds):
        for index, batch_size in enumerate(options.batch_sizes):
            for place in random.permutation(len(MODELS)):
                name = MODELS[place]
                answer = children[name].ask({"batch_size": batch_size}, "round")
                records[name].put(index, turn, answer)
    for name, child in children.items():
        records[name].peak_bytes = int(child.ask({"end": True}, "peak_bytes"))
    return records


def _timing(options: Time, sessions: list[dict[str, _Record]], counters: list[list[str]]) -> Timing:
    """Stack all session pairs; energy only if every round of every one was counted by the same counters."""

    def stack(model: str, what: str) -> npt.NDArray[Any]:
        return np.stack([getattr(records[model], what) for records in sessions], axis=1)

    def medians(model: str) -> npt.NDArray[np.float64]:
        found: npt.NDArray[np.float64] = np.median(stack(model, "calls_ms"), axis=-1)
        return found

    def peaks(model: str) -> npt.NDArray[np.int64]:
        return np.array([records[model].peak_bytes for records in sessions], np.int64)

    counted = all(record.counted for records in sessions for record in records.values())
    same = counters[0] if counted and all(entry == counters[0] for entry in counters) else []
    return Timing(
        batch_sizes=options.batch_sizes,
        baseline_ms=medians("baseline"),
        candidate_ms=medians("candidate"),
        control_ms=medians("control"),
        baseline_peak_bytes=peaks("baseline"),
        candidate_peak_bytes=peaks("candidate"),
        baseline_calls_ms=stack("baseline", "calls_ms"),
        candidate_calls_ms=stack("candidate", "calls_ms"),
        baseline_processor_s=stack("baseline", "processor_s"),
        candidate_processor_s=stack("candidate", "processor_s"),
        baseline_energy_uj=stack("baseline", "energy_uj") if same else None,
        candidate_energy_uj=stack("candidate", "energy_uj") if same else None,
        energy_counters=tuple(same),
        # Every session was refused that came up on anything else.
        baseline_providers=Providers(PROVIDERS, PROVIDERS),
        candidate_providers=Providers(PROVIDERS, PROVIDERS),
    )


def measure_latency(
    baseline: Path,
    candidate: Path,
    *,
    shape: tuple[int, int, int],
    pixel_max: int,
    options: Time,
    seed: int,
    timeout: float = TIMEOUT_SECONDS,
    powercap: Path = POWERCAP,
) -> Timing:
    """Time both ONNX files, and the baseline once more, on the same random images.

    Args:
        baseline: ONNX file of the baseline.
        candidate: ONNX file of the candidate.
        shape: `(C, H, W)` of an image.
        pixel_max: The value of a saturated pixel.
        options: Batch sizes, sessions, rounds, calls, warm-up calls and threads.
        seed: Of images and orders; the times themselves cannot be repeated.
        timeout: Seconds a child may take for one answer.
        powercap: Where the kernel shows the processor's energy counters.

    Returns:
        Times in milliseconds, `(B, S, R)` batch sizes, session pairs and rounds, and `(B, S, R, m)` single
        calls; processor time; energy, where counters can be read; peak memory `(S,)`.

    Raises:
        ProbeError: if a child dies, hangs, answers nonsense, or runs on another provider.
    """
    files = {"baseline": baseline.resolve(), "candidate": candidate.resolve(), "control": baseline.resolve()}
    settings = {
        "parent": os.getpid(),
        "threads": options.threads,
        "batch_sizes": list(options.batch_sizes),
        "seed": seed,
        "calls": options.calls,
        "warmup": options.warmup,
        "pixel_max": pixel_max,
        "shape": list(shape),
        "powercap": str(powercap),
    }
    random = np.random.default_rng([seed, 0])
    sessions, counters = [], []
    for _ in track(range(options.sessions), "timing both models"):
        with _session_pair(files, settings, timeout) as (children, readable):
            sessions.append(_measure_pair(children, options, random))
        counters.append(readable)
    return _timing(options, sessions, counters)
