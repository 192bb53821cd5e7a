# SPDX-License-Identifier: Apache-2.0
"""Writes what ONNX Neural Compressor's static quantization makes, in an environment of its own.

    .venv-peers/bin/python benchmarks/compression/neural_compressor.py FLOAT.onnx IMAGES.npz INT8.onnx

It needs an older numpy than LeanGate, so that no process can hold both.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any


def main() -> int:
    """Quantize with the defaults."""
    source, images, destination = map(Path, sys.argv[1:])
    # Before the import: onnxruntime reports to its maker, and keeps an id in the user's home, unless told.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import numpy as np
    import onnx
    from onnx_neural_compressor.data_reader import CalibrationDataReader
    from onnx_neural_compressor.quantization import quantize
    from onnx_neural_compressor.quantization.config import StaticQuantConfig

    batches = np.split(np.load(images)["image"], 16)

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.rewind()

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self._rest, None)
            return None if batch is None else {"image": batch}

        def rewind(self) -> None:
            self._rest = iter(batches)

    with tempfile.TemporaryDirectory() as name:
        # Its weights come in a second file, which the size of the first would leave out.
        split = Path(name) / "split.onnx"
        quantize(str(source), str(split), StaticQuantConfig(Reader()))
        onnx.save_model(onnx.load(split), destination)
    return 0


if __name__ == "__main__":
    sys.exit(main())
