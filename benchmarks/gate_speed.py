# SPDX-License-Identifier: Apache-2.0
"""How long the gate takes on a million examples with 100 slices, and beside fairlearn's bootstrap.

    python benchmarks/gate_speed.py [--examples 1000000] [--repeat 3] [--profile NAME]

One core. Every built-in check by itself and the judge, in a process of their own whose peak memory is
read when it ends; then, on 100,000 examples of 20 groups, an interval of every group's accuracy by fairlearn's
`MetricFrame(n_boot=...)` and by the check here, with as many resamples of the same units.

Prints Markdown.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import pstats
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

import numpy as np

from checks.decision import decide
from checks.evidence import Evidence, Examples, Scores
from checks.judge import judge
from checks.outcomes import join_outcomes
from checks.protocol import built_in_checks
from checks.runner import run_checks
from gates_clauses import policy_of, strata
from gates_pool import UNITS, evidence_of, pool_of

ATTRIBUTES, LEVELS, CLASSES = 5, 20, 10
RESAMPLED = ("rates", "calibration")
"""Checks that resample; all others count."""

_SEED = 20_240


def big_evidence(examples: int) -> Evidence:
    """Return evidence of 10 classes and 5 attributes of 20 levels, with 2 % churn and rows out of order."""
    generator = np.random.default_rng(_SEED)
    labels = generator.integers(0, CLASSES, examples)
    scores = generator.normal(0, 1, (examples, CLASSES)).astype(np.float32)
    scores[np.arange(examples), labels] += np.float32(4.0)
    changed = scores + generator.normal(0, 0.1, scores.shape).astype(np.float32)
    ids = np.array([f"image-{position:08d}" for position in range(examples)])
    names = np.array([f"level-{level:02d}" for level in range(LEVELS)])
    columns = {
        f"attribute-{which}": names[generator.integers(0, LEVELS, examples)] for which in range(ATTRIBUTES)
    }
    levels = {name: tuple(names.tolist()) for name in columns}
    small = evidence_of(pool_of(strata(0, UNITS, loss=0, gain=0, classes=CLASSES)), np.arange(0, UNITS, 1000))
    order = generator.permutation(examples)
    few = {"baseline": scores[:64], "candidate": changed[:64]}
    runs = {model: dict.fromkeys(getattr(small.contract, model), few[model]) for model in few}
    return replace(
        small,
        examples=Examples(
            ids, ids, labels, tuple(f"class-{name}" for name in range(CLASSES)), columns, levels
        ),
        baseline=Scores(ids, scores),
        candidate=Scores(ids[order], changed[order]),
        contract=replace(small.contract, ids=ids[:64], **runs),
        attacks=replace(small.attacks, ids=ids[: len(small.attacks.ids)]),
        groups=_group_table(labels, scores, changed, columns),
    )


def _group_table(labels: Any, scores: Any, changed: Any, columns: Any) -> dict[str, Any]:
    right = [(part.argmax(axis=1) == labels).astype(float) for part in (scores, changed)]
    classes = np.array([f"class-{name}" for name in range(CLASSES)])[labels]
    table: dict[str, Any] = {}
    for name, column in {**columns, "label": classes}.items():
        found, codes = np.unique(column, return_inverse=True)
        sizes = np.bincount(codes)
        before, after = (np.bincount(codes, weights=part) / sizes for part in right)
        table[name] = {
            str(level): {
                "n": int(sizes[row]),
                "baseline_accuracy": float(before[row]),
                "candidate_accuracy": float(after[row]),
            }
            for row, level in enumerate(found)
        }
    return {"attributes": table}


def _rules() -> list[dict[str, Any]]:
    """Return a rule on every slice, of every method that is measured on slices."""
    slices = [f"attribute-{which}" for which in range(ATTRIBUTES)]
    screen = {"kind": "screen", "alarm": 0.01}
    return [
        {"metric": "accuracy_change", "margin": 0.01, "slices": ["overall", "label", *slices]},
        {"metric": "recall_change", "margin": 0.02},
        {"metric": "false_positive_rate_change", "margin": 0.02},
        {"metric": "precision_change", "margin": 0.02},
        {"metric": "macro_f1_change", "margin": 0.02},
        {"metric": "flip_rate", "max": 0.2, "slices": ["overall", *slices]},
        {"metric": "brier_change", "margin": 0.02, "slices": ["overall", *slices]},
        {"metric": "accuracy_change_gap", "max": 0.05, "slices": slices},
        {"metric": "accuracy_gap", "max": 0.1, "slices": slices},
        {"metric": "selection_rate_ratio", "min": 0.8, "slices": slices},
        {"metric": "true_positive_rate_change_gap", "max": 0.1, "slices": slices},
        {"metric": "loss_concentration", "slices": slices, **screen},
    ]


def _seconds(function: Callable[[], Any]) -> tuple[float, Any]:
    start = time.process_time()
    result = function()
    return time.process_time() - start, result


def measure(examples: int, profiled: str) -> dict[str, Any]:
    """Run in a process of its own: seconds of joining, of each check, of the judge; peak memory."""
    evidence = big_evidence(examples)
    made = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    policy = policy_of(_rules())
    checks = built_in_checks()
    profiler = cProfile.Profile()
    seconds: dict[str, float] = {"joining ids and slices": _seconds(lambda: join_outcomes(evidence).slices)[0]}
    measurements = []
    broken: dict[str, str] = {}
    for check in checks:
        if check.name == profiled:
            profiler.enable()
        seconds[check.name], run = _seconds(lambda check=check: run_checks([check], evidence))
        profiler.disable()
        measurements += run.measurements
        broken |= run.broken
    if profiled == "judge":
        profiler.enable()
    asked = {rule.metric for rule in policy.rules}
    seconds["judge"], findings = _seconds(
        lambda: judge(
            [entry for entry in measurements if entry.metric in asked],
            policy,
            finalists=1,
            levels={**evidence.examples.levels, "label": evidence.examples.classes},
            broken=broken,
            classes=evidence.examples.classes,
        )
    )
    profiler.disable()
    if profiled:
        pstats.Stats(profiler, stream=sys.stderr).sort_stats("cumulative").print_stats(35)
    verdicts = [str(finding.verdict) for finding in findings]
    return {
        "seconds": seconds,
        "made_bytes": made * 1024,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "findings": len(findings),
        "errors": sorted({finding.message for finding in findings if finding.verdict == "ERROR"})[:3],
        "broken": sorted(set(broken.values())),
        "verdicts": {name: verdicts.count(name) for name in sorted(set(verdicts))},
    }


def _in_child(examples: int, profiled: str) -> dict[str, Any]:
    command = [sys.executable, __file__, "--child", "--examples", str(examples), "--profile", profiled]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout))


def print_checks(examples: int, repeat: int, profiled: str) -> None:
    """Print seconds of each check, medians over processes."""
    runs = [_in_child(examples, profiled) for _ in range(repeat)]
    seconds = {name: statistics.median(run["seconds"][name] for run in runs) for name in runs[0]["seconds"]}
    print(f"\n## {examples} examples, {ATTRIBUTES} attributes of {LEVELS} levels, {CLASSES} classes, one core\n")
    print("| part | kind | CPU s |\n|---|---|---|")
    resampled = judged = counted = 0.0
    for name, value in seconds.items():
        kind = "resampled" if name in RESAMPLED else "judge" if name == "judge" else "counted"
        resampled += value if kind == "resampled" else 0
        judged += value if kind == "judge" else 0
        counted += value if kind == "counted" else 0
        print(f"| {name} | {kind} | {value:.2f} |")
    peak = max(run["peak_bytes"] for run in runs)
    print(f"\nCounted together {counted:.1f} s, resampled {resampled:.1f} s, judge {judged:.1f} s.")
    made = max(run["made_bytes"] for run in runs)
    print(f"Peak memory {peak / 1e9:.2f} GB, of which {made / 1e9:.2f} GB to make the evidence.")
    print(f"Findings: {runs[0]['findings']} {runs[0]['verdicts']} {runs[0]['errors']} {runs[0]['broken']}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--examples", type=int, default=1_000_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--profile", default="")
    parser.add_argument("--child", action="store_true")
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(options.examples, options.profile)))
    else:
        print_checks(options.examples, options.repeat, options.profile)
