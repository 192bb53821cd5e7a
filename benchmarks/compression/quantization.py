# SPDX-License-Identifier: Apache-2.0
"""Every way to quantize ResNet-20 on CIFAR-10 after training, beside onnxruntime's own and two more peers.

    LEANGATE_BENCH_DATA=FOLDER [LEANGATE_PEER_PYTHON=PYTHON] python benchmarks/compression/quantization.py

ONNX Neural Compressor is run by the interpreter that LEANGATE_PEER_PYTHON names, of an environment with
neural-compressor.txt installed; where none is named, its row is left out. Calibrates on 512 training images
and counts on the 10,000 test images; nothing is chosen by them. Latencies are medians of ratios over
interleaved calls in five pairs of fresh sessions, one thread. Takes about five minutes.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import numpy as np
from cifar import (
    calibration_images,
    context_of,
    data_folder,
    dataset,
    latency_ratio,
    measure,
    quantize,
    quantize_with_onnxruntime,
)

from pipeline.compress.precision_configs import DynamicInt8, Float16, StaticInt8, WeightsInt8

CONFIGS = {
    "static, minmax": StaticInt8(),
    "static, entropy": StaticInt8(calibration="entropy"),
    "static, percentile": StaticInt8(calibration="percentile"),
    "static, mse": StaticInt8(calibration="mse"),
    "mse, equalize": StaticInt8(calibration="mse", equalize=True),
    "mse, correct_bias": StaticInt8(calibration="mse", correct_bias=True),
    "mse, float_first": StaticInt8(calibration="mse", float_first=True),
    "mse, equalize, float_first": StaticInt8(calibration="mse", equalize=True, float_first=True),
    "mse, keep_float 1": StaticInt8(calibration="mse", keep_float=1),
    "mse, portable": StaticInt8(calibration="mse", portable=True),
    "mse, all but keep_float": StaticInt8(calibration="mse", equalize=True, correct_bias=True, portable=True),
    "dynamic": DynamicInt8(method="dynamic"),
    "weights": WeightsInt8(method="weights"),
    "fp16": Float16(method="fp16"),
}

Peer = Callable[[Path, Path], None]


def quantize_with_nncf(source: Path, destination: Path) -> None:
    """Write what NNCF's post-training quantization makes of the preset `mixed`."""
    # NNCF reports to its maker where it finds this module. Its own switch stops that, but still leaves an id
    # in the user's home.
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    import onnx

    # In batches, as the others get them: of single images it averages the extremes.
    batches = np.split(calibration_images(), 16)
    # Its log and its progress bars would stand in the table.
    with redirect_stdout(io.StringIO()):
        import nncf

        model = nncf.quantize(
            onnx.load(source),
            nncf.Dataset(batches, lambda batch: {"image": batch}),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(batches),
        )
    onnx.save_model(model, destination)


def quantize_with_neural_compressor(python: str, source: Path, destination: Path) -> None:
    """Write what ONNX Neural Compressor makes, run by the interpreter `python`."""
    script, images = Path(__file__).with_name("neural_compressor.py"), destination.with_suffix(".npz")
    np.savez(images, image=calibration_images())
    done = subprocess.run(
        [python, str(script), str(source), str(images), str(destination)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode or not destination.exists():
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise RuntimeError(lines[-1])


def peers() -> dict[str, Peer]:
    """Return those there are here; one that is left out is said."""
    found: dict[str, Peer] = {
        "onnxruntime static, u8s8 per channel": partial(quantize_with_onnxruntime, unsigned=True),
        "onnxruntime static, its defaults": partial(quantize_with_onnxruntime, unsigned=False),
        "NNCF static, mixed": quantize_with_nncf,
    }
    python = os.environ.get("LEANGATE_PEER_PYTHON")
    if python:
        found["Neural Compressor static, its defaults"] = partial(quantize_with_neural_compressor, python)
    else:
        print("ONNX Neural Compressor is left out: LEANGATE_PEER_PYTHON is not set", file=sys.stderr)
    return found


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
        failed: dict[str, str] = {}
        for row, peer in peers().items():
            files[row] = folder / f"{row}.onnx".replace(" ", "-")
            try:
                peer(dense, files[row])
            except Exception as error:
                reason = " ".join(f"{type(error).__name__}: {error}".split())
                failed[row] = reason.replace("|", "\\|")
        before = measure(dense, "test")
        print("| precision | KB | of fp32 | accuracy | flips | worst class, points | latency b1 | b64 |")
        print("|---|---|---|---|---|---|---|---|")
        for row, path in files.items():
            if row in failed:
                print(f"| {row} | not made: {failed[row]} | | | | | | |", flush=True)
                continue
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
