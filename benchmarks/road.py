# SPDX-License-Identifier: Apache-2.0
"""How long the road takes: cold, unchanged, after a moved threshold; and what each stage needs.

    python benchmarks/road.py [--repeat 3]

Prints a Markdown table of medians. Needs about two minutes a repetition.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from project import Usage, copy_repository, run

STAGES = (
    ["prepare"],
    ["validate"],
    ["train"],
    ["prune", "--variant", "half"],
    ["quantize", "--variant", "half", "--precision", "int8"],
    ["shortlist"],
    ["evaluate", "--slot", "first"],
    ["time", "--slot", "first"],
    ["gate", "--slot", "first"],
    ["select"],
    ["enforce"],
    ["bundle"],
    ["register"],
)
MOVED = ("margin: 0.15", "margin: 0.16")


def _repro(folder: Path) -> Usage:
    usage = run(["-m", "dvc", "repro"], folder)
    if usage.code:
        raise SystemExit(usage.output)
    return usage


def _measure(repeat: int) -> dict[str, list[Usage]]:
    rows: dict[str, list[Usage]] = {}
    for _ in range(repeat):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            copy_repository(folder)
            rows.setdefault("`dvc repro`, cold", []).append(_repro(folder))
            rows.setdefault("`dvc repro`, nothing changed", []).append(_repro(folder))
            policy = folder / "policy.yaml"
            policy.write_text(policy.read_text().replace(*MOVED))
            rows.setdefault("`dvc repro`, a moved threshold", []).append(_repro(folder))
            rows.setdefault("`leangate --help`", []).append(run(["-m", "leangate", "--help"], folder))
            for stage in STAGES:
                usage = run(["-m", "pipeline", *stage], folder)
                if usage.code:
                    raise SystemExit(usage.output)
                rows.setdefault(f"stage {stage[0]}", []).append(usage)
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=3)
    rows = _measure(parser.parse_args().repeat)
    print("| | wall s | CPU s | peak MB |\n|---|---|---|---|")
    for name, usages in rows.items():
        wall = statistics.median(usage.wall for usage in usages)
        cpu = statistics.median(usage.cpu for usage in usages)
        peak = statistics.median(usage.peak_bytes for usage in usages) / 1e6
        print(f"| {name} | {wall:.2f} | {cpu:.2f} | {peak:.0f} |")


if __name__ == "__main__":
    main()
