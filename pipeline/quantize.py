# SPDX-License-Identifier: Apache-2.0
"""quantize: one candidate, a shrink variant at one precision."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from checks.errors import CompressionError, InputError, ParamsError, ProbeError
from pipeline.files import output_dir, write_json
from pipeline.layout import Layout
from pipeline.params import Params

if TYPE_CHECKING:
    from pipeline.compress.trained_int8 import Lesson
    from pipeline.data.dataset import Dataset

__all__ = ["run"]

_EXAMPLES = 512
"""Of the calibration split, for methods that have no option for it."""


def _calibration_images(dataset: Dataset, config: Any, seed: int) -> np.ndarray:
    images = dataset.split("calibration").images
    order = np.random.default_rng([seed, 0xCA11B]).permutation(len(images))
    return images[np.sort(order[: getattr(config, "max_examples", _EXAMPLES)])]


def _lesson(layout: Layout, dataset: Dataset, seed: int) -> Lesson:
    """What int8 is trained with: the baseline's file teaches, so that no code of the user's is run."""
    from pipeline.compress.trained_int8 import Lesson
    from pipeline.models.record import read_record
    from pipeline.probes.twin import build_twin

    output = read_record(layout.baseline)["output"]
    return Lesson(dataset, build_twin(layout.baseline / "model.onnx"), output, seed)


@contextmanager
def _named(key: str) -> Iterator[None]:
    """Say which recipe an error is about: its method knows only the options."""
    try:
        yield
    except (CompressionError, InputError, ProbeError) as error:
        place, comma, more = error.where.partition(", ")
        head, dot, option = place.partition(".")
        if head in ("", "quantize", "rescue"):
            where = f"{key}{dot}{option}{comma}{more}"
        elif head == "recover":
            where = f"{key}.{error.where}"
        else:  # a layer, or a file
            where = f"{key}, {error.where}"
        raise type(error)(error.what, where=where, hint=error.hint) from error


def run(layout: Layout, params: Params, *, variant: str, precision: str) -> None:
    """Write the candidate's `model.onnx`, `model.json` and `compression.json`.

    Raises:
        CompressionError: if the file cannot be quantized, would not run in integers, or is slower than float.
        ModelError: if the variant's files are unusable.
    """
    from pipeline.compress.precisions import METHODS, Job, quantize_file
    from pipeline.data.dataset import read_dataset
    from pipeline.models.compression import left_of, read_passes, write_passes
    from pipeline.models.record import read_record
    from pipeline.models.recording import record_model
    from pipeline.models.seconds import Stopwatch

    if precision not in params.quantize.recipes:
        raise ParamsError(f"expected a recipe named {precision!r}", where="params.yaml quantize.recipes")
    config, key = params.quantize.recipes[precision], f"params.yaml quantize.recipes.{precision}"
    if config.method not in METHODS:
        raise CompressionError(f"expected a known method, got {config.method}", where=f"{key}.method")
    source = layout.shrunk(variant)
    shrunk = read_record(source)
    passes, output = read_passes(source), shrunk["output"]
    dataset = read_dataset(layout.data)
    name, stopwatch = f"{variant}-{precision}", Stopwatch()
    with output_dir(layout.candidate(name)) as folder:
        path = folder / "model.onnx"
        images = _calibration_images(dataset, config, params.seed)
        job = Job(
            source / "model.onnx",
            path,
            config,
            images,
            output,
            partial(_lesson, layout, dataset, params.seed),
        )
        if config.method == "none":
            quantize_file(job)
            record = record_model(path, name, dataset, output=output)
        else:
            with _named(key), stopwatch.time("quantize"):
                figures = quantize_file(job)
            record = record_model(path, name, dataset, output=output)
            options = config.model_dump(mode="json", exclude_none=True)
            options |= {"examples": len(images), "seed": params.seed, "precision": precision}
            done = {"pass": "quantize", "options": options, **figures, "left": left_of(record)}
            passes = [*passes, done]
        write_json(folder / "model.json", record)
        write_passes(folder, record, passes)
    stopwatch.write(layout.seconds("quantize", name))
