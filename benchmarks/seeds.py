# SPDX-License-Identifier: Apache-2.0
"""How often the default policy passes an honest candidate: the whole road at ten seeds.

    python benchmarks/seeds.py [--seeds 10]

Every stage runs as in `dvc repro`, each seed in a folder of its own. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from project import copy_repository, run


def _value(decision: dict[str, Any], metric: str) -> float:
    return next(
        entry["value"]
        for entry in decision["measurements"]
        if entry["metric"] == metric and entry["slice"] == "overall"
    )


def _why(decision: dict[str, Any]) -> str:
    wanting = [
        f"{finding['verdict']} {finding['rule']} {finding['slice'] or ''}".strip()
        for finding in decision["findings"]
        if finding["blocking"] and finding["verdict"] not in ("PASS", "NO-FINDING")
    ]
    return "; ".join(wanting)


def _rows(folder: Path, seed: int) -> list[str]:
    params = folder / "params.yaml"
    params.write_text(re.sub(r"^seed: \d+", f"seed: {seed}", params.read_text(), count=1, flags=re.MULTILINE))
    usage = run(["-m", "leangate", "run"], folder)
    decisions = sorted((folder / "artifacts" / "decisions").glob("*.json"))
    if len(decisions) != 2:
        raise SystemExit(usage.output)
    rows = []
    for path in decisions:
        decision = json.loads(path.read_text())
        if decision["candidate"] is None:
            rows.append(f"| {seed} | (empty slot) | absent | | | | | | |")
            continue
        figures = (
            f"{_value(decision, 'baseline_accuracy'):.4f} | {_value(decision, 'candidate_accuracy'):.4f}",
            f"{_value(decision, 'candidate_robust_accuracy'):.3f}",
            f"{_value(decision, 'latency_ratio_b64'):.2f}",
            f"{1 / _value(decision, 'bytes_ratio'):.1f} | {1 / _value(decision, 'macs_ratio'):.2f}",
        )
        head = f"| {seed} | {decision['candidate']} | {decision['outcome']}"
        rows.append(f"{head} | {' | '.join(figures)} | {_why(decision)} |")
    return rows


def main() -> None:
    """Run all seeds and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    print(
        "| seed | finalist | outcome | baseline accuracy | accuracy | robust accuracy | latency b64 "
        "| x smaller | x fewer MACs | not passed |\n|---|---|---|---|---|---|---|---|---|---|"
    )
    for seed in range(parser.parse_args().seeds):
        with tempfile.TemporaryDirectory() as name:
            copy_repository(Path(name))
            for row in _rows(Path(name), seed):
                print(row, flush=True)


if __name__ == "__main__":
    main()
