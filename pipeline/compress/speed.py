# SPDX-License-Identifier: Apache-2.0
"""Whether a candidate is slower than the float file it was made from, on this machine.

Pairs of fresh sessions, one thread, calls of both files interleaved, so that whatever slows the host slows
both (duet benchmarking, Bulej et al. 2020, https://arxiv.org/abs/2001.05811). A verdict needs every pair of
sessions: where memory happens to lie shifts a whole session (Kalibera and Jones 2013,
https://doi.org/10.1145/2491894.2464160).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from checks.errors import CompressionError

__all__ = ["BATCH_SIZES", "Speed", "compare_speed", "refuse_slower"]

BATCH_SIZES = (1, 64)

_SESSIONS = 7
"""All seven medians lie above the true one in 1 of 128 cases, whatever the distribution."""
_ROUNDS = 5
_SLOWER = 1.05
_LEAST_SECONDS = 50e-6
"""A difference a call below which nets are too small for their speed to matter."""
_ROUND_SECONDS = 2e-3
_MOST_SECONDS = 0.25


@dataclass(frozen=True)
class Speed:
    """Time a call of two files at one batch size.

    Attributes:
        batch_size: Images a call.
        ratios: Median of candidate over float time in each pair of sessions.
        difference: Smallest median difference of any pair, seconds a call.
    """

    batch_size: int
    ratios: tuple[float, ...]
    difference: float

    @property
    def lower(self) -> float:
        """Lower confidence bound of the median ratio, at 99 % with seven sessions."""
        return min(self.ratios)

    @property
    def is_slower(self) -> bool:
        """Whether the candidate is clearly slower: in every pair, and by a time that can matter."""
        return self.lower > _SLOWER and self.difference > _LEAST_SECONDS


def _seconds(session: Any, feed: dict[str, npt.NDArray[np.float32]], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        session.run(None, feed)
    return (time.perf_counter() - start) / calls


def _compare_once(files: tuple[Path, Path], images: npt.NDArray[np.float32]) -> tuple[float, float]:
    """Return median ratio and median difference of one pair of fresh sessions."""
    from pipeline.probes.session import create_session

    sessions = [create_session(path) for path in files]
    feed = {sessions[0].get_inputs()[0].name: images}
    for session in sessions:
        _seconds(session, feed, 2)
    calls = max(1, int(_ROUND_SECONDS / max(1e-6, _seconds(sessions[0], feed, 1))))
    ratios, differences = [], []
    for index in range(_ROUNDS):
        order = (0, 1) if index % 2 else (1, 0)
        taken = {which: _seconds(sessions[which], feed, calls) for which in order}
        ratios.append(taken[1] / taken[0])
        differences.append(taken[1] - taken[0])
    return median(ratios), median(differences)


def compare_speed(
    baseline: Path, candidate: Path, images: npt.NDArray[np.float32], *, batch_size: int
) -> Speed:
    """Time two files against each other; stop at the first pair of sessions in which the candidate keeps up.

    Args:
        baseline: The float file.
        candidate: The file made from it.
        images: `(N, C, H, W)` raw pixels, N >= 1; repeated to fill a batch.
        batch_size: Images a call; halved until a call of the baseline takes at most a quarter of a second.
    """
    from pipeline.probes.session import create_session

    batch = np.ascontiguousarray(images[np.arange(batch_size) % len(images)])
    session = create_session(baseline)
    name = session.get_inputs()[0].name
    while len(batch) > 1 and _seconds(session, {name: batch}, 1) > _MOST_SECONDS:
        batch = batch[: len(batch) // 2]
    ratios: list[float] = []
    differences: list[float] = []
    while len(ratios) < _SESSIONS and (not ratios or ratios[-1] > _SLOWER):
        ratio, difference = _compare_once((baseline, candidate), batch)
        ratios.append(ratio)
        differences.append(difference)
    return Speed(len(batch), tuple(ratios), min(differences))


def refuse_slower(
    baseline: Path,
    candidate: Path,
    images: npt.NDArray[np.float32],
    batch_sizes: Sequence[int] = BATCH_SIZES,
) -> None:
    """Raise if a candidate is clearly slower than the file it was made from.

    What was measured is not returned: it differs from run to run, and records must not.

    Args:
        baseline: The float file.
        candidate: The file made from it.
        images: `(N, C, H, W)` raw pixels, N >= 1.
        batch_sizes: Images a call.

    Raises:
        CompressionError: if at any batch size every pair of sessions finds it over 5 % slower, and 50
            microseconds a call.
    """
    for batch_size in batch_sizes:
        found = compare_speed(baseline, candidate, images, batch_size=batch_size)
        if found.is_slower:
            raise CompressionError(
                f"expected a file no slower than the float one, got {median(found.ratios):.2f} times "
                f"its time at {found.batch_size} images a call",
                where="quantize",
                hint="keep fewer layers float (keep_float), or use method static, weights for size alone, or "
                "fp32 for this variant",
            )
