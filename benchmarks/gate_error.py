# SPDX-License-Identifier: Apache-2.0
"""How often the gates err: candidates exactly at a limit, and candidates that do no harm.

    python benchmarks/gate_error.py [--draws 4000] [--runs 1000] [--jobs 2] [--quick]

Populations of 200,000 units have one clause exactly at its limit; test sets are drawn from them and judged.
The same counts are judged once. A share of the draws goes through `decide` with every built-in check,
another through the command `leangate gate`; all must say the same. Beside it, on the same draws, rules on
point estimates: the plain threshold, MLflow's, TFMA's (reimplemented: it is not installed).

Prints Markdown. The exit code is 1 if two ways of judging disagree or, but for --quick, a bound is exceeded.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
from gates_clauses import CLAUSES
from gates_command import command_verdict, make_project, write_evidence
from gates_experiments import Clause, Experiment, Sample
from gates_honest import PLANNED, SCENARIOS, ScenarioResult, alarms, power_of, run_scenario
from gates_rules import Points, mlflow_arithmetic, mlflow_passes, point_passes, tfma_passes

import checks.claim
from checks.claim_values import Further
from checks.decision import decide
from checks.judge import judge
from checks.protocol import built_in_checks
from checks.statistics.binomial import clopper_pearson_upper
from checks.statistics.paired import tango_bounds
from pipeline.layout import Layout

SEED = 20_240
EXACT_LIMIT, APPROXIMATE_LIMIT = 0.06, 0.065
FAMILY_LIMIT = 0.05

THROUGH_COMMAND = (
    "accuracy, n 1000",
    "accuracy of 1 slice of 20, n 4000",
    "recall of 1 class of 10, n 2000",
    "accuracy gap, n 600",
    "Brier score, n 600",
    "latency ratio, 8 session pairs",
)
_EXIT_CODES = {"PASS": 0, "FAIL": 1, "INCONCLUSIVE": 3}


@dataclass(frozen=True)
class Sizes:
    """How many draws: in all, through MLflow itself, through `decide`, through the command; and A/A runs."""

    draws: int
    mlflow: int
    decided: int
    commanded: int
    runs: int


@dataclass(frozen=True)
class Row:
    """Counts of one clause at its limit, out of `draws`; `disagree` counts what must be 0."""

    draws: int
    passed: int
    failed: int
    points: int
    mlflow: int
    tfma: int
    disagree: int


@contextmanager
def verdicts_only() -> Iterator[None]:
    """Leave out what is only shown, and remember p-values: no verdict changes, and it takes minutes less."""
    with mock.patch.multiple(
        checks.claim,
        p_noninferior=lru_cache(maxsize=None)(checks.claim.p_noninferior),
        p_harm=lru_cache(maxsize=None)(checks.claim.p_harm),
        _exact_bound=lambda losses, gains, n, alpha: tango_bounds(losses, gains, n, alpha)[0],
        _paired_detectable=lambda _n, _discordant, _alpha: 0.0,
        further_examples=lambda *_: _Nothing(),
        grow=lambda *_: Further(None),
    ):
        yield


@dataclass(frozen=True)
class _Nothing:
    if_observed_change: int | None = None
    if_no_change: int | None = None


def _judged(clause: Clause, experiment: Experiment) -> Callable[[Sample], tuple[str, Points]]:
    policy, levels = clause.policy, experiment.levels()

    def verdict(sample: Sample) -> tuple[str, Points]:
        measurement, points = experiment.read(sample)
        findings = judge(
            [measurement], policy, alpha=policy.alpha, levels=levels, broken={}, classes=levels["label"]
        )
        return str(findings[0].verdict), points

    if sample_has_counts(experiment):
        by_counts = lru_cache(maxsize=None)(lambda counts: verdict((None, counts)))
        return lambda sample: by_counts(sample[1])
    return verdict


def sample_has_counts(experiment: Experiment) -> bool:
    """Say whether a few counts stand for a test set."""
    return hasattr(experiment, "cells")


def run_clause(position: int, sizes: Sizes) -> Row:
    """Judge test sets of one clause at its limit, all of them in process and the first ones in full."""
    clause = CLAUSES[position]
    experiment = clause.build()
    generator = np.random.default_rng([SEED, position])
    verdict_of = _judged(clause, experiment)
    passed = failed = disagree = 0
    others = [0, 0, 0]
    first: list[tuple[Sample, str]] = []
    with verdicts_only():
        for sample in experiment.samples(generator, sizes.draws):
            verdict, points = verdict_of(sample)
            passed, failed = passed + (verdict == "PASS"), failed + (verdict == "FAIL")
            answers = (point_passes(points), mlflow_arithmetic(points), tfma_passes(points))
            others = [count + answer for count, answer in zip(others, answers, strict=True)]
            if len(first) < sizes.decided:
                first.append((sample, verdict))
    drawn = experiment.samples(np.random.default_rng([SEED, position]), sizes.mlflow)
    for sample in drawn:
        points = experiment.read(sample)[1]
        disagree += mlflow_passes(points) != mlflow_arithmetic(points)
    policy = clause.policy
    built_in = built_in_checks(policy.operating_points)
    for sample, verdict in first:
        decision = decide(built_in, experiment.evidence(sample), policy, alpha=policy.alpha)
        disagree += [str(finding.verdict) for finding in decision.findings] != [verdict]
    return Row(sizes.draws, passed, failed, *others, disagree)


def run_command(name: str, draws: int) -> tuple[int, int]:
    """Judge the first test sets of a clause through the command; return PASS, and disagreements."""
    position, clause = next((at, clause) for at, clause in enumerate(CLAUSES) if clause.name == name)
    experiment = clause.build()
    verdict_of = _judged(clause, experiment)
    passed = disagree = 0
    with tempfile.TemporaryDirectory() as folder:
        make_project(Path(folder), clause.rule, clause.keys)
        for sample in experiment.samples(np.random.default_rng([SEED, position]), draws):
            write_evidence(experiment.evidence(sample), Layout(Path(folder)))
            verdict, code = command_verdict(Path(folder))
            with verdicts_only():
                same = verdict == verdict_of(sample)[0] and code == _EXIT_CODES[verdict]
            passed, disagree = passed + (verdict == "PASS"), disagree + (not same)
    return passed, disagree


def run_honest(position: int, runs: int) -> ScenarioResult:
    """Judge one scenario of 20 slices."""
    with verdicts_only():
        return run_scenario(SCENARIOS[position], runs, SEED + position)


def _upper(count: int, draws: int) -> float:
    return clopper_pearson_upper(count, draws, 0.05)


def _share(count: int, draws: int) -> str:
    return f"{count / draws:.3f}"


def print_clauses(rows: Sequence[Row]) -> bool:
    """Print the table of clauses at their limits; return whether all bounds are kept."""
    print("\n## A candidate exactly at one limit\n")
    print(
        "| at its limit | test | draws | false PASS | 95 % upper bound | kept | FAIL "
        "| point threshold passes | MLflow passes | TFMA passes |\n|---|---|---|---|---|---|---|---|---|---|"
    )
    kept = True
    for clause, row in zip(CLAUSES, rows, strict=True):
        limit = EXACT_LIMIT if clause.exact else APPROXIMATE_LIMIT
        upper = _upper(row.passed, row.draws)
        within = upper <= limit
        kept &= within
        shares = [_share(count, row.draws) for count in (row.failed, row.points, row.mlflow, row.tfma)]
        print(
            f"| {clause.name} | {'exact' if clause.exact else 'approximate'} | {row.draws} "
            f"| {_share(row.passed, row.draws)} | {upper:.4f} | {'yes' if within else 'NO'} (<= {limit}) "
            f"| {' | '.join(shares)} |"
        )
    return kept


def print_honest(results: Sequence[ScenarioResult]) -> bool:
    """Print the table of 20 slices at once; return whether no bound is exceeded."""
    print("\n## 20 slices at once\n")
    print(
        "| candidate | units | runs | runs with a false FAIL | 95 % upper bound | all rules PASS "
        "| point threshold passes all | MLflow `threshold` passes all "
        "| MLflow `min_absolute_change` passes all | TFMA passes all |\n"
        "|---|---|---|---|---|---|---|---|---|---|"
    )
    kept = True
    for scenario, result in zip(SCENARIOS, results, strict=True):
        identical = scenario.loss == scenario.gain == 0
        kept &= result.failed <= (0 if identical else FAMILY_LIMIT * result.runs)
        others = (result.opened, result.points, result.mlflow, result.improved, result.tfma)
        print(
            f"| {scenario.name} | {scenario.n} | {result.runs} | {_share(result.failed, result.runs)} "
            f"| {_upper(result.failed, result.runs):.4f} "
            f"| {' | '.join(_share(count, result.runs) for count in others)} |"
        )
    return kept


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=4000, help="test sets of each clause")
    parser.add_argument("--runs", type=int, default=1000, help="runs of 20 slices, of each scenario")
    parser.add_argument("--command", type=int, default=50, help="draws of each of six clauses by command")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="a tenth of everything: too few draws to hold a bound to its limit",
    )
    return parser.parse_args()


def main() -> int:
    """Run everything and print."""
    options = _arguments()
    part = 10 if options.quick else 1
    sizes = Sizes(
        draws=options.draws // part,
        mlflow=300 // part,
        decided=50 // part,
        commanded=options.command // part,
        runs=options.runs // part,
    )
    start = time.perf_counter()
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        commands = [pool.submit(run_command, name, sizes.commanded) for name in THROUGH_COMMAND]
        honest = [pool.submit(run_honest, position, sizes.runs) for position in range(len(SCENARIOS))]
        rows = [pool.submit(run_clause, position, sizes) for position in range(len(CLAUSES))]
        searched: Future[int] = pool.submit(alarms, sizes.runs, SEED)
        planned = [
            pool.submit(power_of, margin, churn, sizes.draws, SEED + position)
            for position, (margin, churn) in enumerate(PLANNED)
        ]
        found = [row.result() for row in rows]
        kept = print_clauses(found)
        kept &= print_honest([result.result() for result in honest])
        print("\n## Power at n_plan, no change\n")
        print("| margin | churn | n_plan | planned chance of PASS | simulated |\n|---|---|---|---|---|")
        for (margin, churn), entry in zip(PLANNED, planned, strict=True):
            n, chance, share = entry.result()
            print(f"| {margin} | {churn} | {n} | {chance:.3f} | {share:.3f} |")
        false = searched.result()
        print("\n## Search for slices that lose more, alarm 0.01, where none does\n")
        print(f"False alarms: {false} of {sizes.runs}, 95 % upper bound {_upper(false, sizes.runs):.4f}.")
        print("\n## Ways of judging that must agree\n")
        by_command = [entry.result() for entry in commands]
    proven = sum(entry[0] for entry in by_command)
    disagree = sum(row.disagree for row in found) + sum(entry[1] for entry in by_command)
    print(
        f"Draws through `decide` with every built-in check: {sizes.decided * len(CLAUSES)}; through "
        f"`leangate gate`: {sizes.commanded * len(by_command)}, of which "
        f"{proven} PASS; "
        f"through MLflow itself: {sizes.mlflow * len(CLAUSES)}. Disagreements: {disagree}."
    )
    print(f"\n{time.perf_counter() - start:.0f} seconds.")
    return 0 if (kept or options.quick) and disagree == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
