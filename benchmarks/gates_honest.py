# SPDX-License-Identifier: Apache-2.0
"""Candidates that do no harm, or exactly the tolerated one, judged on 20 slices at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from gates_experiments import ALPHA, Counted, policy_of, strata
from gates_pool import UNITS, Pool, draw, evidence_of, pool_of
from gates_rules import Points, mlflow_arithmetic, must_improve_arithmetic, point_passes, tfma_passes

from checks.accuracy import change_of, share_of
from checks.disparity import change_gap_of
from checks.flips import FlipsCheck
from checks.judge import judge
from checks.measurement import OVERALL, Measurement, Slice
from checks.policy import Policy
from checks.statistics.paired import p_noninferior
from checks.statistics.planning import n_plan, power

__all__ = [
    "PLANNED",
    "SCENARIOS",
    "SLICES",
    "Scenario",
    "ScenarioResult",
    "alarms",
    "power_of",
    "run_scenario",
]

SLICES = 20

_OVERALL_MARGIN, _SLICE_MARGIN = 0.02, 0.05
_CHANCE = 0.8

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Scenario:
    """One state of the world.

    Attributes:
        name: in words.
        n: units of a test set, all slices together.
        loss: rate of losses, the same on every slice.
        gain: rate of gains.
        wrong: share that both models get wrong.
        overall_margin: of the rule on all units; the slices' is 0.05.
    """

    name: str
    n: int
    loss: float
    gain: float
    wrong: float
    overall_margin: float = _OVERALL_MARGIN


def _planned(churn: float) -> int:
    """Return the units with which all slices of an equal model pass with probability 0.8."""
    return SLICES * n_plan(_SLICE_MARGIN, churn, ALPHA, power=_CHANCE ** (1 / SLICES))


SCENARIOS = (
    Scenario("identical predictions", _planned(0.02), 0.0, 0.0, 0.03),
    Scenario("no change, churn 2 %", _planned(0.02), 0.01, 0.01, 0.02),
    Scenario("no change, churn 6 %, accuracy 0.90", _planned(0.06), 0.03, 0.03, 0.07),
    Scenario("no change, churn 2 %, slices of 50", 50 * SLICES, 0.01, 0.01, 0.02),
    Scenario("every slice exactly at its margin", 200 * SLICES, 0.06, 0.01, 0.02, _SLICE_MARGIN),
)


@dataclass(frozen=True)
class ScenarioResult:
    """Shares of runs.

    Attributes:
        runs: number of runs.
        failed: runs with a FAIL anywhere.
        opened: runs in which every rule was PASS.
        points: runs in which the point threshold passed everything.
        mlflow: the same of MLflow's `threshold`.
        improved: the same of MLflow's `min_absolute_change`.
        tfma: the same of TFMA's change threshold.
    """

    runs: int
    failed: int
    opened: int
    points: int
    mlflow: int
    improved: int
    tfma: int


def _policy(scenario: Scenario) -> Policy:
    return policy_of(
        [
            {"metric": "accuracy_change", "margin": scenario.overall_margin},
            {"metric": "accuracy_change", "margin": _SLICE_MARGIN, "slices": ["group"]},
            {"metric": "accuracy_change_gap", "max": 0.15, "slices": ["group"]},
            {"metric": "flip_rate", "max": 0.1},
        ]
    )


def _pool(scenario: Scenario) -> Pool:
    size = UNITS // SLICES
    rates = {"loss": scenario.loss, "gain": scenario.gain, "wrong": scenario.wrong}
    return pool_of([row for level in range(SLICES) for row in strata(level, size, **rates)])


def _measurements(table: Counts, levels: tuple[str, ...]) -> list[Measurement]:
    """Return what the rules are about, from `(20, 4)` counts of right, losses, gains, wrong."""
    sizes, (_, losses, gains, _) = table.sum(axis=1), table.T
    n, flips = int(sizes.sum()), int(losses.sum() + gains.sum())
    found = [change_of("accuracy_change", OVERALL, int(losses.sum()), int(gains.sum()), n)]
    for level, size, lost, gained in zip(levels, sizes, losses, gains, strict=True):
        where = Slice("group", level)
        found.append(change_of("accuracy_change", where, int(lost), int(gained), int(size)))
    return [
        *found,
        change_gap_of("accuracy_change_gap", "group", levels, losses, gains, sizes),
        share_of("flip_rate", OVERALL, flips, n),
    ]


def _accuracies(table: Counts, overall_margin: float) -> Iterator[Points]:
    rows = [(table.sum(axis=0), overall_margin), *((row, _SLICE_MARGIN) for row in table)]
    for row, margin in rows:
        n = int(row.sum())
        before, after = float((row[0] + row[1]) / n), float((row[0] + row[2]) / n)
        yield Points(after, -margin, higher_is_better=True, baseline=before)


def _improves(points: Points) -> bool:
    assert points.baseline is not None
    return must_improve_arithmetic(points.baseline, points.value)


def run_scenario(scenario: Scenario, runs: int, seed: int) -> ScenarioResult:
    """Judge `runs` test sets by the judge and by the rules of other tools."""
    pool, policy = _pool(scenario), _policy(scenario)
    cells = pool.groups * 4 + pool.cells
    experiment = Counted(pool, scenario.n, cells, 4 * SLICES, _unread)
    rules: tuple[Callable[[Points], bool], ...] = (point_passes, mlflow_arithmetic, _improves, tfma_passes)
    failed, opened, others = 0, 0, [0] * len(rules)
    same_file = scenario.loss == scenario.gain == 0
    for _, counts in experiment.samples(np.random.default_rng(seed), runs):
        table = np.array(counts).reshape(SLICES, 4)
        findings = judge(
            _measurements(table, pool.levels),
            policy,
            alpha=policy.alpha,
            levels=experiment.levels(),
            broken={},
            classes=pool.classes,
            same_file=same_file,
        )
        failed += any(finding.verdict == "FAIL" for finding in findings)
        opened += all(finding.verdict == "PASS" for finding in findings)
        points = list(_accuracies(table, scenario.overall_margin))
        others = [count + all(map(rule, points)) for count, rule in zip(others, rules, strict=True)]
    return ScenarioResult(runs, failed, opened, *others)


def _unread(_: Counts) -> tuple[Measurement, Points]:
    raise NotImplementedError


PLANNED = ((0.02, 0.01), (0.02, 0.02), (0.02, 0.05), (0.05, 0.02), (0.05, 0.05), (0.1, 0.05))
"""Margin and churn."""


def power_of(margin: float, churn: float, draws: int, seed: int) -> tuple[int, float, float]:
    """Return n_plan, the chance to pass that planning gives for it, and the simulated share of PASS."""
    n = n_plan(margin, churn, ALPHA)
    pool = pool_of(strata(0, UNITS, loss=churn / 2, gain=churn / 2, wrong=0.02))
    experiment = Counted(pool, n, pool.cells, 4, _unread)

    @cache
    def passes(losses: int, gains: int) -> bool:
        return p_noninferior(losses, gains, n, margin) <= ALPHA

    drawn = experiment.samples(np.random.default_rng(seed), draws)
    passed = sum(passes(counts[1], counts[2]) for _, counts in drawn)
    return n, power(n, margin, churn, ALPHA), passed / draws


def alarms(runs: int, seed: int) -> int:
    """Return how often the search for slices that lose more raises an alarm where none does."""
    scenario = SCENARIOS[1]
    pool = _pool(scenario)
    rule = {"kind": "screen", "metric": "loss_concentration", "alarm": 0.01, "slices": ["group"]}
    policy = policy_of([rule, {"metric": "flip_rate", "max": 0.1}])
    found = 0
    for index in draw(np.random.default_rng(seed), runs, scenario.n):
        measured = FlipsCheck().measure(evidence_of(pool, index))
        findings = judge(
            [entry for entry in measured if entry.metric in ("loss_concentration", "flip_rate")],
            policy,
            alpha=policy.alpha,
            levels={"group": pool.levels, "label": pool.classes},
            broken={},
            classes=pool.classes,
        )
        found += any(finding.verdict == "FAIL" for finding in findings)
    return found
