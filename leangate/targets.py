# SPDX-License-Identifier: Apache-2.0
"""`leangate targets`: which other runtimes load a file, and whether they answer as the measured one does."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from leangate.terminal import Line, Table, render

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from pipeline.probes.targets import Target

__all__ = ["HELP", "targets"]

HELP = """Load an ONNX file with every runtime that is installed here (execution providers of ONNX Runtime,
and OpenVINO), and compare its answers with those of ONNX Runtime on the CPU, where LeanGate measures. Images
are those of the calibration split, or seeded noise where no data is prepared.

exit codes:
  0  every runtime that is installed runs the file, and decides as the CPU does
  1  one of them refuses the file, or decides otherwise on more than 2 % of the images
  2  the file is missing, or none that ONNX Runtime can run
"""

_STYLES = {"runs": "green", "differs": "red", "refused": "red", "absent": "dim"}
_IMAGES = 256
_USUAL = (3, 224, 224)
"""What a dimension is taken to be that a file leaves open, where no data is prepared."""


def _images(root: Path, path: Path) -> tuple[npt.NDArray[np.float32], str]:
    """Images of the file's own shape, and what they are."""
    import numpy as np

    from checks.errors import LeanGateError
    from pipeline.data.dataset import read_dataset
    from pipeline.layout import Layout
    from pipeline.probes.session import open_session

    [entry] = open_session(path).get_inputs()
    known = [size if isinstance(size, int) else None for size in entry.shape[1:]]
    try:
        images = read_dataset(Layout(root).data).split("calibration").images[:_IMAGES]
        if all(size in (None, came) for size, came in zip(known, images.shape[1:], strict=True)):
            return images, f"{len(images)} images of the calibration split"
    except LeanGateError:
        pass
    shape = [size or usual for size, usual in zip(known, _USUAL, strict=True)]
    drawn = np.random.default_rng(0).integers(0, 256, (_IMAGES, *shape))
    return drawn.astype(np.float32), f"{_IMAGES} images of noise"


def _cells(target: Target) -> list[str]:
    def shown(value: float | None, form: str) -> str:
        return "-" if value is None else format(value, form)

    return [
        target.state,
        target.runtime,
        shown(target.agreement, ".1%"),
        shown(target.difference, ".3g"),
        shown(target.own, ".0%"),
        target.reason,
    ]


def targets(root: Path, path: Path, *, as_json: bool) -> tuple[str, int]:
    """Return what to print, and the exit code.

    Raises:
        ModelError: if the file is none that ONNX Runtime can run.
    """
    from pipeline.probes.targets import check_targets

    images, what = _images(root, path)
    found = check_targets(path, images)
    code = int(any(target.state in ("refused", "differs") for target in found))
    if as_json:
        return json.dumps([asdict(target) for target in found], indent=2, allow_nan=False) + "\n", code
    table = Table(
        heads=("", "Runtime", "Decides alike", "Largest difference", "Own time", ""),
        rows=[_cells(target) for target in found],
        styles=[_STYLES[target.state] for target in found],
        right=frozenset({2, 3, 4}),
    )
    end = f"Compared with ONNX Runtime on the CPU, on {what}."
    if all(target.state == "absent" for target in found):
        end = "No other runtime is installed here: nothing was compared."
    return render([table, Line(end, "dim")]), code
