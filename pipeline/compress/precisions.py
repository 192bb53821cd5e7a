# SPDX-License-Identifier: Apache-2.0
"""From the name of a method to the function that makes an ONNX file of another precision."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from checks.evidence import Output
from pipeline.compress.dynamic_int8 import quantize_dynamic_int8
from pipeline.compress.fp16 import convert_float16
from pipeline.compress.speed import refuse_slower
from pipeline.compress.static_int8 import quantize_static_int8
from pipeline.compress.weights_int8 import quantize_weights_int8

if TYPE_CHECKING:
    from pipeline.compress.trained_int8 import Lesson

__all__ = ["METHODS", "Job", "quantize_file"]


@dataclass(frozen=True, eq=False)
class Job:
    """One file to make.

    Attributes:
        source: The float32 file; never changed.
        destination: Where the result goes.
        config: Method and options, one of `pipeline.compress.precision_configs.QuantizeRecipe`.
        images: `(N, C, H, W)` float32, raw pixels of the calibration split.
        output: What the file answers.
        lesson: Makes what int8 is trained with; asked only by methods that train.
    """

    source: Path
    destination: Path
    config: Any
    images: npt.NDArray[np.float32]
    output: Output
    lesson: Callable[[], Lesson]


Method = Callable[[Job], dict[str, Any]]


def _copy(job: Job) -> dict[str, Any]:
    shutil.copyfile(job.source, job.destination)
    return {}


def _static(job: Job) -> dict[str, Any]:
    return quantize_static_int8(job.source, job.destination, job.images, job.config, output=job.output)


def _trained(job: Job) -> dict[str, Any]:
    from pipeline.compress.trained_int8 import quantize_trained_int8

    return quantize_trained_int8(job.source, job.destination, job.images, job.config, job.lesson())


def _rescue(job: Job) -> dict[str, Any]:
    from pipeline.compress.rescue import rescue

    return rescue(job.source, job.destination, job.images, job.config, job.lesson())


METHODS: Mapping[str, Method] = {
    "none": _copy,
    "fp16": lambda job: convert_float16(job.source, job.destination, job.images),
    "weights": lambda job: quantize_weights_int8(job.source, job.destination),
    "dynamic": lambda job: quantize_dynamic_int8(job.source, job.destination),
    "static": _static,
    "trained": _trained,
    "rescue": _rescue,
}

_NEVER_SLOWER = ("weights", "dynamic", "static", "trained")
"""Methods whose file is refused if it is slower than float; rescue times each rung by itself, and float16 is
made for other hardware than this."""


def quantize_file(job: Job) -> dict[str, Any]:
    """Make the file and return what to record of it.

    Raises:
        CompressionError: if the method fails, or makes a file that is clearly slower than the float one.
    """
    figures = METHODS[job.config.method](job)
    if job.config.method in _NEVER_SLOWER:
        try:
            refuse_slower(job.source, job.destination, job.images)
        except BaseException:
            job.destination.unlink(missing_ok=True)
            raise
    return figures
