# SPDX-License-Identifier: Apache-2.0
"""Every way to quantize ResNet-20 on CIFAR-10 after training, beside onnxruntime's own.

    LEANGATE_BENCH_DATA=FOLDER python benchmarks/compression/quantization.py

Calibrates on 512 training images and counts on the 10,000 test images; nothing is chosen by them. Latencies
are medians of ratios over interleaved calls in five pairs of fresh sessions, one thread. Takes about five
minutes.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import numpy as np
from cifar import (
    context_of,
    data_folder,
    dataset,
    latency_ratio,
    measure,
    quantize,
    quantize_with_onnxruntime,
)

from pipeline.compress.configs import DynamicInt8, Float16, StaticInt8, WeightsInt8

CONFIGS = {
    "static, minmax": StaticInt8(),
    "static, entropy": StaticInt8(calibration="entropy"),
    "static, percentile": StaticInt8(calibration="percentile"),
    "static, mse": StaticInt8(calibration="mse"),
    "mse, equalize": StaticInt8(calibration="mse", equalize=True),
    "mse, correct_bias": StaticInt8(calibration="mse", correct_bias=True),
    "mse, keep_float 1": StaticInt8(calibration="mse", keep_float=1),
    "mse, portable": StaticInt8(calibration="mse", portable=True),
    "mse, all but keep_float": StaticInt8(calibration="mse", equalize=True, correct_bias=True, portable=True),
    "dynamic": DynamicInt8(method="dynamic"),
    "weights": WeightsInt8(method="weights"),
    "fp16": Float16(method="fp16"),
}


PEERS: dict[str, dict[str, bool]] = {
    "onnxruntime static, u8s8 per channel": {"unsigned": True},
    "onnxruntime static, its defaults": {"unsigned": False},
}


def main() -> int:
    """Print a table."""
    if data_folder() is None:
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        context_of(0, folder)
        dense = folder / "baseline.onnx"
        files = {"fp32": dense}
        for index, (row, config) in enumerate(CONFIGS.items()):
            files[row] = folder / f"{index}.onnx"
            quantize(dense, files[row], config)
        for row, options in PEERS.items():
            files[row] = folder / f"{row}.onnx".replace(" ", "-")
            quantize_with_onnxruntime(dense, files[row], **options)
        before = measure(dense, "test")
        print("| precision | KB | of fp32 | accuracy | flips | worst class, points | latency b1 | b64 |")
        print("|---|---|---|---|---|---|---|---|")
        for row, path in files.items():
            after = measure(path, "test")
            change = 100 * (after.per_class - before.per_class)
            worst = int(np.argmin(change))
            ratios = [latency_ratio(dense, path, batch, rounds) for batch, rounds in ((1, 150), (64, 9))]
            print(
                f"| {row} | {path.stat().st_size / 1024:.0f} "
                f"| {path.stat().st_size / dense.stat().st_size:.3f} "
                f"| {100 * after.accuracy:.2f} | {int((after.decided != before.decided).sum())} "
                f"| {dataset().classes[worst]} {change[worst]:+.1f} | {ratios[0]:.2f} | {ratios[1]:.2f} |",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
