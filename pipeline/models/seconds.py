# SPDX-License-Identifier: Apache-2.0
"""How long each pass took: apart from what it made, since no second run takes as long."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.files import write_json

__all__ = ["Stopwatch"]

SCHEMA = "leangate/seconds/1"


class Stopwatch:
    """Wall seconds of passes, in the order in which they ended; those that failed are left out."""

    def __init__(self) -> None:
        self._passes: list[dict[str, Any]] = []

    @contextmanager
    def time(self, name: str) -> Iterator[None]:
        """Time what runs inside as the pass `name`."""
        start = time.perf_counter()
        yield
        self._passes.append({"pass": name, "seconds": round(time.perf_counter() - start, 3)})

    def note(self, timings: Mapping[str, float]) -> None:
        """Keep what the pass that ended last measured of time."""
        self._passes[-1] |= timings

    @property
    def passes(self) -> Sequence[Mapping[str, Any]]:
        """What was timed so far."""
        return self._passes

    def write(self, path: Path) -> None:
        """Write what was timed so far."""
        write_json(path, {"schema": SCHEMA, "passes": self._passes})
