# SPDX-License-Identifier: Apache-2.0
"""Every way to quantize ResNet-20 on CIFAR-10 after training, against its float file.

    LEANGATE_BENCH_DATA=FOLDER python benchmarks/cifar10/quantization.py

Calibrates on 512 training images and counts on the 10,000 test images; nothing is chosen by them. Latencies
are medians of ratios over interleaved calls in five pairs of fresh sessions, one thread. Takes about five
minutes.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from net import resnet20
from source import cifar10

from pipeline.compress.configs import DynamicInt8, Float16, StaticInt8, WeightsInt8
from pipeline.compress.precisions import Job, quantize_file
from pipeline.models.export import export_onnx
from pipeline.models.network import Preprocessed, load_weights
from pipeline.params import Model
from pipeline.probes.session import create_session, predict

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


def _latency(pair: tuple[Path, Path], images: np.ndarray, rounds: int) -> float:
    """Return the ratio of the second file's time to that of the first."""
    medians = []
    for _ in range(5):
        sessions = [create_session(path) for path in pair]
        feed = {sessions[0].get_inputs()[0].name: images}
        for session in sessions:
            session.run(None, feed)
        times = np.empty((rounds, 2))
        for index, row in enumerate(times):
            for which in (0, 1) if index % 2 else (1, 0):
                start = time.perf_counter()
                sessions[which].run(None, feed)
                row[which] = time.perf_counter() - start
        medians.append(np.median(times[:, 1] / times[:, 0]))
    return float(np.median(medians))


def _nobody() -> NoReturn:
    raise AssertionError("none of these methods trains")


def main() -> int:
    """Print a table."""
    data = os.environ.get("LEANGATE_BENCH_DATA")
    if not data:
        print("skipped: LEANGATE_BENCH_DATA is not set", file=sys.stderr)
        return 0
    examples: Any = cifar10()
    splits, labels = np.array(examples.splits), np.unique(examples.labels, return_inverse=True)[1]
    names = sorted(set(examples.labels))
    images = {name: examples.pixels[splits == name].astype(np.float32) for name in ("calibration", "test")}
    labels = labels[splits == "test"]
    model = Model(
        factory="net.py:resnet20", code="net.py", weights=None,
        mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225),
    )  # fmt: skip
    network = resnet20()
    load_weights(network, Path(data) / "cifar10" / "resnet20-tuned.safetensors", "weights")
    with tempfile.TemporaryDirectory() as folder:
        files = {"fp32": Path(folder) / "fp32.onnx"}
        export_onnx(Preprocessed(network, model, 255).eval(), (3, 32, 32), files["fp32"])
        for name, config in CONFIGS.items():
            files[name] = Path(folder) / f"{len(files)}.onnx"
            quantize_file(Job(files["fp32"], files[name], config, images["calibration"], "logits", _nobody))
        paths = list(files.values())
        print("| precision | KB | of fp32 | accuracy | flips | worst class, points | latency b1 | b64 |")
        print("|---|---|---|---|---|---|---|---|")
        decided: dict[str, np.ndarray] = {}
        for name, path in files.items():
            decided[name] = predict(create_session(path), images["test"], 64).argmax(axis=1)
            pair = (paths[0], path)
            latency = [_latency(pair, images["test"][:count], rounds) for count, rounds in ((1, 60), (64, 6))]
            right, before = decided[name] == labels, decided["fp32"] == labels
            change = [100 * (right[labels == k].mean() - before[labels == k].mean()) for k in range(10)]
            worst = int(np.argmin(change))
            print(
                f"| {name} | {path.stat().st_size / 1000:.0f} | "
                f"{path.stat().st_size / paths[0].stat().st_size:.3f} | {100 * right.mean():.2f} | "
                f"{(decided[name] != decided['fp32']).sum()} | {names[worst]} {change[worst]:+.1f} | "
                f"{latency[0]:.2f} | {latency[1]:.2f} |",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
