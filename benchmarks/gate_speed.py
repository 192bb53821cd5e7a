# SPDX-License-Identifier: Apache-2.0
"""How long the gate takes on a million examples with 100 slices, and beside fairlearn's bootstrap.

    python benchmarks/gate_speed.py [--examples 1000000] [--resamples 400] [--repeat 3] [--profile NAME]

One core. Every built-in check by itself and the judge, in a process of their own whose peak memory is read
when it ends. Then 100,000 examples of 20 groups, in one process: an interval of every group's accuracy by
fairlearn's `MetricFrame(n_boot=...)`, and of the same units with as many resamples by `bootstrap_t_lower`
and `bootstrap_t_upper`.

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

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
from gates_experiments import policy_of, strata
from gates_pool import UNITS, evidence_of, pool_of

from checks.evidence import Evidence, Examples, Scores
from checks.judge import judge
from checks.outcomes import join_outcomes
from checks.protocol import built_in_checks
from checks.runner import run_checks
from checks.statistics.resampling import bootstrap_t_lower, bootstrap_t_upper

ATTRIBUTES, LEVELS, CLASSES = 5, 20, 10
RESAMPLED = ("rates", "calibration")
"""Checks that resample; all others count."""

KINDS = ("counted", "resampled", "judge")
COMPARED = 100_000

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
    policy, seconds, profiler = policy_of(_rules()), {}, cProfile.Profile(time.process_time)

    def timed(name: str, function: Callable[[], Any]) -> Any:
        if name == profiled:
            profiler.enable()
        seconds[name], result = _seconds(function)
        if name == profiled:
            profiler.disable()
            pstats.Stats(profiler, stream=sys.stderr).sort_stats("tottime").print_stats(25)
        return result

    timed("joining", lambda: join_outcomes(evidence).slices)
    checks = built_in_checks()
    runs = [timed(check.name, lambda check=check: run_checks([check], evidence)) for check in checks]
    broken = {metric: why for run in runs for metric, why in run.broken.items()}
    asked = {rule.metric for rule in policy.rules}
    measured = [entry for run in runs for entry in run.measurements if entry.metric in asked]
    levels = {**evidence.examples.levels, "label": evidence.examples.classes}
    keys = {"alpha": policy.alpha, "levels": levels, "broken": broken, "classes": evidence.examples.classes}
    findings = timed("judge", lambda: judge(measured, policy, **keys))
    verdicts = [str(finding.verdict) for finding in findings]
    return {
        "seconds": seconds,
        "made_bytes": made * 1024,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "errors": sorted({finding.message for finding in findings if finding.verdict == "ERROR"})[:3],
        "broken": sorted(set(broken.values())),
        "verdicts": {name: verdicts.count(name) for name in sorted(set(verdicts))},
    }


def compare(resamples: int) -> dict[str, Any]:
    """Run in a process of its own: seconds of both bootstraps on the same 100,000 examples of 20 groups."""
    from fairlearn.metrics import MetricFrame

    generator = np.random.default_rng(_SEED)
    labels = generator.integers(0, 2, COMPARED)
    wrong = generator.random(COMPARED) < 0.05
    answers = np.where(wrong, 1 - labels, labels)
    groups = generator.integers(0, LEVELS, COMPARED)

    def accuracy(truth: Any, answer: Any) -> float:
        return float(np.mean(np.asarray(truth) == np.asarray(answer)))

    def theirs() -> Any:
        return MetricFrame(
            metrics=accuracy,
            y_true=labels,
            y_pred=answers,
            sensitive_features=groups,
            n_boot=resamples,
            ci_quantiles=[0.05, 0.95],
            random_state=_SEED,
        ).by_group_ci

    def ours() -> Any:
        right = (labels == answers).astype(np.float64)
        parts = [right[groups == group] for group in range(LEVELS)]
        ends = [
            [bound(part, 0.05, _SEED, resamples) for bound in (bootstrap_t_lower, bootstrap_t_upper)]
            for part in parts
        ]
        if any(end.resamples != resamples for pair in ends for end in pair):
            raise SystemExit("expected as many resamples as asked for")
        return [[end.value for end in pair] for pair in ends]

    ours_s, found = _seconds(ours)
    theirs_s, intervals = _seconds(theirs)
    apart = np.abs(np.stack([np.asarray(end, dtype=float) for end in intervals], axis=1) - np.array(found))
    return {"ours": ours_s, "theirs": theirs_s, "apart": float(apart.max())}


def _in_child(what: str, options: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, __file__, "--child", what, "--profile", options.profile]
    command += ["--examples", str(options.examples), "--resamples", str(options.resamples)]
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ | one_thread)
    return dict(json.loads(done.stdout))


def _kind(name: str) -> str:
    if name == "judge":
        return "judge"
    return "resampled" if name in RESAMPLED else "counted"


def print_checks(runs: list[dict[str, Any]], examples: int) -> None:
    """Print seconds of each check, medians over processes."""
    seconds = {name: statistics.median(run["seconds"][name] for run in runs) for name in runs[0]["seconds"]}
    shape = f"{ATTRIBUTES} attributes of {LEVELS} levels, {CLASSES} classes"
    print(f"\n## {examples} examples, {shape}, one core\n\n| part | kind | CPU s |\n|---|---|---|")
    for name, value in seconds.items():
        print(f"| {name} | {_kind(name)} | {value:.2f} |")
    sums = {kind: sum(value for name, value in seconds.items() if _kind(name) == kind) for kind in KINDS}
    print("\n" + ", ".join(f"{kind} together {value:.1f} s" for kind, value in sums.items()) + ".")
    made, peak = (max(run[key] for run in runs) / 1e9 for key in ("made_bytes", "peak_bytes"))
    print(f"Peak memory {peak:.2f} GB, of which {made:.2f} GB to make the evidence.")
    verdicts = ", ".join(f"{count} {verdict}" for verdict, count in runs[0]["verdicts"].items())
    print(f"Findings: {verdicts}.")
    for message in (*runs[0]["errors"], *runs[0]["broken"]):
        print(f"Not measured: {message}")


def print_comparison(runs: list[dict[str, Any]], resamples: int) -> None:
    """Print both bootstraps, medians over processes."""
    ours, theirs = (statistics.median(run[key] for run in runs) for key in ("ours", "theirs"))
    print(f"\n## An interval of the accuracy of each of {LEVELS} groups, {COMPARED} examples\n")
    print("| | resamples | CPU s |\n|---|---|---|")
    print(f"| fairlearn `MetricFrame`, percentile | {resamples} | {theirs:.2f} |")
    print(f"| bootstrap-t of each group, both ends | {resamples} | {ours:.4f} |")
    print(f"\nRatio {theirs / ours:.0f}; ends at most {max(run['apart'] for run in runs):.4f} apart.")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--examples", type=int, default=1_000_000)
    parser.add_argument("--resamples", type=int, default=400, help="at least 400")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--profile", default="", help="a check, joining or judge: where its time goes")
    parser.add_argument("--child", choices=("checks", "bootstrap"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child == "checks":
        print(json.dumps(measure(options.examples, options.profile)))
    elif options.child == "bootstrap":
        print(json.dumps(compare(options.resamples)))
    else:
        runs = [_in_child("checks", options) for _ in range(options.repeat)]
        print_checks(runs, options.examples)
        print_comparison([_in_child("bootstrap", options) for _ in range(options.repeat)], options.resamples)


if __name__ == "__main__":
    main()
