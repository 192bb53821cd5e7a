# SPDX-License-Identifier: Apache-2.0
"""The same stages on CIFAR-10 with ResNet-20.

    LEANGATE_BENCH_DATA=FOLDER python benchmarks/cifar10/run.py [--keep FOLDER]

`FOLDER/cifar10` holds `train.parquet` and `test.parquet` (columns id, image, label, class) and
`resnet20-tuned.safetensors`. Prints what `leangate run` prints; takes about half an hour on two cores.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from project import copy_repository, run

HERE = Path(__file__).resolve().parent


def main() -> int:
    """Run the road in a copy of the repository and print how it ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", type=Path, help="work in this new folder and keep it")
    options = parser.parse_args()
    data = os.environ.get("LEANGATE_BENCH_DATA")
    if not data:
        print("skipped: LEANGATE_BENCH_DATA is not set", file=sys.stderr)
        return 0
    folder = options.keep or Path(tempfile.mkdtemp())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        copy_repository(folder)
        for name in ("params.yaml", "policy.yaml", "governance.yaml"):
            shutil.copy(HERE / name, folder / name)
        shutil.copy(
            Path(data) / "cifar10" / "resnet20-tuned.safetensors",
            folder / "benchmarks" / "cifar10" / "baseline.safetensors",
        )
        usage = run(["-m", "leangate", "run"], folder, LEANGATE_BENCH_DATA=str(Path(data).resolve()))
        print(usage.output)
        print(
            f"exit code {usage.code}, {usage.wall:.0f} s, {usage.cpu:.0f} s of CPU, "
            f"peak {usage.peak_bytes / 1e6:.0f} MB"
        )
    finally:
        if not options.keep:
            shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
