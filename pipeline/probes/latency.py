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
from checks.evidence import Timing
from pipeline.params import Time
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
) -> Iterator[dict[str, _Child]]:
    """Start one fresh process for each of baseline, candidate and control; end them all on leaving."""
    with contextlib.ExitStack() as stack:
        children: dict[str, _Child] = {}
        for name in MODELS:
            children[name] = _Child(name, stack.enter_context(tempfile.TemporaryFile()), timeout)
            stack.callback(children[name].close)
        for name, child in children.items():
            child.send(settings | {"model": str(files[name])})
        for child in children.values():
            providers = child.receive("ready")
            if providers != list(PROVIDERS):
                raise ProbeError(
                    f"expected providers {list(PROVIDERS)} for the {child.name}, got {providers}"
                )
        yield children


def _measure_pair(
    children: dict[str, _Child], options: Time, random: np.random.Generator
) -> tuple[dict[str, npt.NDArray[np.float64]], dict[str, int]]:
    """Return times `(B, R)` and peak memory of one session pair, by model."""
    times = {name: np.empty((len(options.batch_sizes), options.rounds)) for name in MODELS}
    for turn in range(options.rounds):
        for index, batch_size in enumerate(options.batch_sizes):
            for place in random.permutation(len(MODELS)):
                name = MODELS[place]
                times[name][index, turn] = children[name].ask({"batch_size": batch_size}, "ms")
    return times, {name: int(child.ask({"end": True}, "peak_bytes")) for name, child in children.items()}


def measure_latency(
    baseline: Path,
    candidate: Path,
    *,
    shape: tuple[int, int, int],
    pixel_max: int,
    options: Time,
    seed: int,
    timeout: float = TIMEOUT_SECONDS,
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

    Returns:
        Times in milliseconds, `(B, S, R)` batch sizes, session pairs and rounds; peak memory `(S,)`.

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
    }
    random = np.random.default_rng([seed, 0])
    times: dict[str, list[npt.NDArray[np.float64]]] = {name: [] for name in MODELS}
    peaks: dict[str, list[int]] = {name: [] for name in MODELS}
    for _ in track(range(options.sessions), "timing both models"):
        with _session_pair(files, settings, timeout) as children:
            pair, peak = _measure_pair(children, options, random)
        for name in MODELS:
            times[name].append(pair[name])
            peaks[name].append(peak[name])
    stacked = {name: np.stack(parts, axis=1) for name, parts in times.items()}
    return Timing(
        batch_sizes=options.batch_sizes,
        baseline_ms=stacked["baseline"],
        candidate_ms=stacked["candidate"],
        control_ms=stacked["control"],
        baseline_peak_bytes=np.array(peaks["baseline"], np.int64),
        candidate_peak_bytes=np.array(peaks["candidate"], np.int64),
    )
