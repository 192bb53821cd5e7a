# SPDX-License-Identifier: Apache-2.0
"""Rescue: from the cheapest way to int8 to the dearest, up to the first that does the model no harm.

Each rung is judged against the float file on the validation split. A rung adds its option to those of the
best rung below it, so that an option which does not help is not carried on.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from checks.errors import CompressionError, InputError, ProbeError
from pipeline.compress.precision_configs import Rescue, StaticInt8, TrainedInt8
from pipeline.compress.speed import refuse_slower
from pipeline.compress.static_int8 import quantize_static_int8
from pipeline.compress.trained_int8 import Lesson, quantize_trained_int8
from pipeline.probes.session import decide, open_session, predict

__all__ = ["RUNGS", "Drop", "Quantizer", "measure_drop", "rescue"]

Images = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

Quantizer = Callable[[Path, Path, Images, StaticInt8, Lesson], Mapping[str, Any]]
"""Maps float file, destination, calibration images, options and lesson to figures; writes the destination."""

RUNGS: Mapping[str, Mapping[str, Any]] = {
    "minmax": {},
    "percentile": {"calibration": "percentile"},
    "mse": {"calibration": "mse"},
    "equalize": {"equalize": True},
    "correct_bias": {"correct_bias": True},
    "keep_float_1": {"keep_float": 1},
    "keep_float_2": {"keep_float": 2},
    "keep_float_4": {"keep_float": 4},
}
"""Rung to the option it adds, from the cheapest; training is the last, if it is asked for."""

_BATCH = 256


@dataclass(frozen=True)
class Drop:
    """What was lost against the float file, shares of the examples; below 0 something was won.

    Attributes:
        accuracy: Of all examples.
        worst_class: Name of the class that lost most.
        class_accuracy: Of its examples.
    """

    accuracy: float
    worst_class: str
    class_accuracy: float


def measure_drop(
    before: npt.NDArray[np.int64], after: npt.NDArray[np.int64], labels: Labels, classes: tuple[str, ...]
) -> Drop:
    """Compare two models' decisions on the same examples.

    Args:
        before: `(N,)` decisions of the float file, N >= 1.
        after: `(N,)` decisions of the other.
        labels: `(N,)`.
        classes: Names; a class without examples lost nothing.
    """
    # Counted and then divided: a drop of exactly the bound must not exceed it by a rounding.
    lost = (before == labels).astype(np.int64) - (after == labels)
    per_class = {
        index: int(lost[labels == index].sum()) / int((labels == index).sum())
        for index in range(len(classes))
        if (labels == index).any()
    }
    worst = max(per_class, key=lambda index: per_class[index])
    return Drop(int(lost.sum()) / len(labels), classes[worst], per_class[worst])


def _quantize(
    source: Path, destination: Path, images: Images, config: StaticInt8, lesson: Lesson
) -> Mapping[str, Any]:
    if isinstance(config, TrainedInt8):
        figures = quantize_trained_int8(source, destination, images, config, lesson)
    else:
        figures = quantize_static_int8(source, destination, images, config, output=lesson.output)
    try:
        refuse_slower(source, destination, images)
    except CompressionError as error:
        # Without the time itself, which differs from run to run: what was said of a rung is recorded.
        raise CompressionError(
            "expected a file no slower than the float one, got a slower one", where="rescue"
        ) from error
    return figures


@dataclass(frozen=True)
class _Tried:
    """A rung that was climbed: how far it is from passing, 1 or less if it does."""

    name: str
    options: Mapping[str, Any]
    drop: Drop
    excess: float
    figures: Mapping[str, Any]


class _Ladder:
    """The rungs climbed so far, and the best of them."""

    def __init__(self, config: Rescue) -> None:
        self.config = config
        self.records: list[dict[str, Any]] = []
        self.best: _Tried | None = None

    def climb(self) -> Iterator[tuple[str, dict[str, Any], StaticInt8]]:
        """Yield rungs in order, with the options of the best below and their own."""
        shared: dict[str, Any] = {"max_examples": self.config.max_examples}
        for name, option in RUNGS.items():
            options = {**(self.best.options if self.best else {}), **option}
            yield name, options, StaticInt8(**options, **shared)
        if self.config.recover is not None:
            options = dict(self.best.options) if self.best else {}
            yield "trained", options, TrainedInt8(**options, **shared, recover=self.config.recover)

    def excess(self, drop: Drop) -> float:
        """How much of what may be lost was lost."""
        return max(
            drop.accuracy / self.config.max_accuracy_drop, drop.class_accuracy / self.config.max_class_drop
        )

    def refuse(self) -> CompressionError:
        """Return the error that says what the best rung lost."""
        if self.best is None:
            return CompressionError(
                f"expected one way to int8 that works, got none; the first said: {self.records[0]['error']}",
                where="rescue",
                hint="use precision fp32 for this variant",
            )
        drop = self.best.drop
        more = "" if self.config.recover else ", give recover so that the last rung trains"
        return CompressionError(
            f"expected int8 that loses at most {self.config.max_accuracy_drop:.2%} of accuracy and "
            f"{self.config.max_class_drop:.2%} in the worst class; the best of {len(self.records)} rungs, "
            f"{self.best.name}, loses {drop.accuracy:.2%} and {drop.class_accuracy:.2%} "
            f"({drop.worst_class}) on the validation split",
            where="rescue",
            hint=f"allow more{more}, or use precision fp32 for this variant",
        )


def rescue(
    source: Path,
    destination: Path,
    images: Images,
    config: Rescue,
    lesson: Lesson,
    quantize: Quantizer = _quantize,
) -> dict[str, Any]:
    """Quantize by the first rung that passes, and write its file.

    Args:
        source: A float32 file with weights inside.
        destination: Where the int8 file goes; not written if no rung passes.
        images: `(N, C, H, W)` raw pixels of the calibration split, N >= 1.
        config: What may be lost, and how the last rung trains.
        lesson: Gives the validation split, and what the last rung learns from.
        quantize: Makes the file of one rung.

    Returns:
        The figures of the rung that passed, its name as `rung`, and under `rungs` every rung that was
        climbed: options, figures, what it lost, and its outcome.

    Raises:
        CompressionError: if no rung passes, with what the best of them lost.
    """
    split, classes = lesson.dataset.split("validation"), lesson.dataset.classes
    before = decide(predict(open_session(source), split.images, _BATCH))
    ladder = _Ladder(config)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rung.onnx"
        for name, options, rung in ladder.climb():
            record: dict[str, Any] = {"rung": name, "options": rung.model_dump(mode="json")}
            ladder.records.append(record)
            try:
                figures = dict(quantize(source, path, images, rung, lesson))
                after = decide(predict(open_session(path), split.images, _BATCH))
            except (CompressionError, InputError, ProbeError) as error:
                # Where the attempt stood is no part of the record: it differs from run to run.
                record |= {"outcome": "impossible", "error": error.what.replace(folder, "")}
                continue
            drop = measure_drop(before, after, split.labels, classes)
            tried = _Tried(name, options, drop, ladder.excess(drop), figures)
            record |= figures | {
                "accuracy": float(np.mean(after == split.labels)),
                "accuracy_drop": drop.accuracy,
                "worst_class": drop.worst_class,
                "class_drop": drop.class_accuracy,
                "outcome": "passed" if tried.excess <= 1 else "failed",
            }
            if ladder.best is None or tried.excess < ladder.best.excess:
                ladder.best = tried
            if tried.excess <= 1:
                shutil.copyfile(path, destination)
                return {**figures, "rung": name, "rungs": ladder.records}
    raise ladder.refuse()
