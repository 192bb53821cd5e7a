# SPDX-License-Identifier: Apache-2.0
"""Latency of a network as a share of another's, measured in ONNX Runtime while a pass looks for widths.

No figure of a model: the stage `time` measures what is judged. It is the one target whose result depends on
the machine.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from pipeline.models.export import export_onnx

__all__ = ["Stopwatch"]

_PAIRS = 15
_SECONDS = 0.008
"""A measurement takes at least so long: clocks and schedulers disturb shorter ones."""
_MAX_CALLS = 256


class Stopwatch:
    """Times float32 files against the baseline's, at a batch of one and one thread, in turn."""

    def __init__(self, baseline: nn.Module, shape: tuple[int, int, int], pixel_max: int, seed: int) -> None:
        self._shape = shape
        images = np.random.default_rng([seed, 0x71E]).uniform(0, pixel_max, (1, *shape))
        self._image = images.astype(np.float32)
        self._baseline = self._session(baseline)
        self._calls = 1
        while self._time(self._baseline) < _SECONDS and self._calls < _MAX_CALLS:
            self._calls *= 2

    def _session(self, module: nn.Module) -> Any:
        from pipeline.probes.session import create_session

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            export_onnx(module, self._shape, path)
            return create_session(path, threads=1)

    def _time(self, session: Any) -> float:
        feed = {session.get_inputs()[0].name: self._image}
        session.run(None, feed)
        start = time.perf_counter()
        for _ in range(self._calls):
            session.run(None, feed)
        return time.perf_counter() - start

    def share(self, module: nn.Module) -> float:
        """Return the median over interleaved pairs of the ratio to the baseline's time."""
        session = self._session(module)
        ratios = []
        for pair in range(_PAIRS):
            # Whoever runs second finds warmer caches and a tired clock: take turns.
            if pair % 2:
                mine, other = self._time(session), self._time(self._baseline)
            else:
                other, mine = self._time(self._baseline), self._time(session)
            ratios.append(mine / other)
        return float(np.median(ratios))
