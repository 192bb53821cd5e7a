# SPDX-License-Identifier: Apache-2.0
"""One file run in several ways that should not matter: what hangs on them cannot be relied on anywhere.

A file that normalises over its batch, or draws random numbers, measures well and serves badly. A twin that
answers otherwise than the file lends attacks the gradients of another model.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from checks.contract_runs import REFERENCE, Contract
from checks.errors import ProbeError
from pipeline.probes.attack import Target
from pipeline.probes.session import Optimization, create_session, predict

if TYPE_CHECKING:
    from pipeline.data.dataset import Split

__all__ = ["run_contract"]

Floats = npt.NDArray[np.float32]

_LEVELS: tuple[Optimization, ...] = ("disabled", "basic", "extended")


def _draw(split: Split, examples: int, seed: int) -> npt.NDArray[np.intp]:
    count = min(examples, len(split.ids))
    return np.sort(np.random.default_rng([seed, 4]).choice(len(split.ids), count, replace=False))


def _answer(target: Target, images: Floats, batch_size: int) -> Floats:
    """Return what the twin answers, on one thread of torch."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            parts = [target.twin(part).numpy() for part in torch.split(torch.from_numpy(images), batch_size)]
    finally:
        torch.set_num_threads(threads)
    return np.concatenate(parts).astype(np.float32)


def _runs(target: Target, path: Path, images: Floats, batch_size: int) -> Iterator[tuple[str, Floats]]:
    yield REFERENCE, predict(target.session, images, batch_size)
    yield "repeat", predict(target.session, images, batch_size)
    yield "batch_one", predict(target.session, images, 1)
    yield "threads_two", predict(create_session(path, threads=2), images, batch_size)
    for level in _LEVELS:
        session = create_session(path, optimization=level)
        yield f"optimization_{level}", predict(session, images, batch_size)
    yield "twin", _answer(target, images, batch_size)


def _scores(target: Target, path: Path, images: Floats, batch_size: int) -> dict[str, Floats]:
    scores = dict(_runs(target, path, images, batch_size))
    shape = scores[REFERENCE].shape
    for run, came in scores.items():
        if came.shape != shape:
            raise ProbeError(
                f"expected scores {shape} from every run, got {came.shape} from {run}", where=str(path)
            )
    return scores


def run_contract(
    baseline: tuple[Target, Path],
    candidate: tuple[Target, Path],
    split: Split,
    *,
    examples: int,
    seed: int,
    batch_size: int,
) -> Contract:
    """Run both files in every way that should not matter, on the same examples.

    Args:
        baseline: The baseline, and its ONNX file.
        candidate: The candidate, and its ONNX file.
        split: The test split; `examples` of it are drawn with the seed, or all if there are fewer.
        examples: How many, >= 1.
        seed: Same seed, same examples.
        batch_size: Images a call of the reference, >= 1.

    Returns:
        Scores `(M, C)` of each run, NaN and infinity included; judging them is left to the checks.

    Raises:
        ModelError: if ONNX Runtime refuses a file at one of its levels.
        ProbeError: if a run fails, or answers in another shape.
    """
    rows = _draw(split, examples, seed)
    images = split.images[rows]
    return Contract(
        split.ids[rows],
        *(_scores(target, path, images, batch_size) for target, path in (baseline, candidate)),
    )
