# SPDX-License-Identifier: Apache-2.0
"""The simulator behind the measured error of the gates: its populations are where they say they are."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import gate_error
from gates_clauses import CLAUSES
from gates_command import make_project, write_evidence
from gates_honest import SCENARIOS, power_of, run_scenario
from gates_means import macro_f1_change, overconfident_pool, precision_pool, rare_harm_pool
from gates_pool import UNITS, Stratum, draw, evidence_of, pool_of
from gates_rules import Points, mlflow_arithmetic, mlflow_passes, point_passes, tfma_passes
from gates_timing import memory_sessions, noisy_sessions, slow_sessions, slowest_percent

from checks.evidence import read_evidence
from checks.latency import LatencyCheck
from checks.rates import RatesCheck
from pipeline.layout import Layout

BY_NAME = {clause.name: clause for clause in CLAUSES}
COUNTED = [clause for clause in CLAUSES if gate_error.sample_has_counts(clause.build())]


@pytest.mark.parametrize("clause", COUNTED, ids=lambda clause: clause.name)
def test_population_lies_exactly_at_the_limit(clause):
    experiment = clause.build()
    counts = np.bincount(experiment.cells, minlength=experiment.size)
    measurement, points = experiment.build(counts)
    reached = points.value - (points.baseline or 0.0)
    assert counts.sum() == UNITS
    assert reached == pytest.approx(points.limit, abs=1e-12)
    limit = clause.rule.get("margin", clause.rule.get("max", clause.rule.get("min")))
    assert abs(points.limit) == limit
    assert measurement.metric == clause.rule["metric"]


def _rise(pool):
    return float(np.diff(2 * (pool.probabilities.astype(float) - pool.labels[:, None]) ** 2, axis=1).mean())


def test_brier_populations_lie_at_the_limit():
    assert 0.02 <= _rise(overconfident_pool(0.02)) < 0.02 + 1e-6
    assert _rise(rare_harm_pool(0.01)) == pytest.approx(0.01, abs=1e-12)


def test_precision_of_the_population_falls_by_the_margin_and_macro_f1_is_that_of_the_check():
    pool = precision_pool()
    truth = pool.labels == 0
    precisions = [truth[calls == 0].mean() for calls in (pool.baseline, pool.candidate)]
    assert precisions == pytest.approx([0.96, 0.91], abs=1e-12)
    index = draw(np.random.default_rng(0), 1, 2000)[0]
    measured = RatesCheck().measure(evidence_of(pool, index))
    value = next(entry.value for entry in measured if entry.metric == "macro_f1_change")
    before, after = macro_f1_change(pool, index)
    assert value == pytest.approx(after - before, abs=1e-12)


def _estimates(timings, metric):
    for timing in timings:
        evidence = BY_NAME["latency ratio, 8 session pairs"].build().evidence((timing, None))
        yield next(entry for entry in LatencyCheck().measure(evidence) if entry.metric == metric)


def test_simulated_sessions_are_centred_on_the_true_ratio():
    generator = np.random.default_rng(1)
    found = list(_estimates(noisy_sessions(generator, 150, 1.05), "latency_ratio_b64"))
    logs = [math.log(entry.value) for entry in found]
    assert np.mean(logs) == pytest.approx(math.log(1.05), abs=4 * np.std(logs) / math.sqrt(len(logs)))
    controls = np.concatenate([entry.statistics["control_log_ratios"] for entry in found])
    assert abs(controls.mean()) < 4 * controls.std() / math.sqrt(len(controls))
    found = list(_estimates(memory_sessions(generator, 150, 1.05), "peak_memory_ratio"))
    logs = [math.log(entry.value) for entry in found]
    assert np.mean(logs) == pytest.approx(math.log(1.05), abs=4 * np.std(logs) / math.sqrt(len(logs)))


def test_one_call_in_a_hundred_of_the_slow_session_is_beyond_its_limit():
    limit = slowest_percent(10.0)
    timings = list(slow_sessions(np.random.default_rng(2), 40, 10.0))
    calls = np.stack([timing.candidate_calls_ms[0] for timing in timings])
    assert np.mean(calls[:, 0] > limit) == pytest.approx(0.01, abs=0.002)
    assert np.mean(calls[:, 1:] > limit) < 0.0005


def test_what_is_wrong_is_called_the_first_class():
    pool = pool_of([Stratum(0, 0, 5, 1, 2, 3), Stratum(1, 1, 4, 3, 2, 1)])
    assert np.bincount(pool.groups * 4 + pool.cells).tolist() == [5, 1, 2, 3, 4, 3, 2, 1]
    assert set(pool.candidate[(pool.labels == 1) & (pool.candidate != 1)].tolist()) == {0}
    assert set(pool.baseline[(pool.labels == 0) & (pool.baseline != 0)].tolist()) == {1}


@pytest.mark.parametrize(
    ("points", "passes"),
    [
        (Points(0.9, 0.9, higher_is_better=True), True),
        (Points(0.89, 0.9, higher_is_better=True), False),
        (Points(0.1, 0.1, higher_is_better=False), True),
        (Points(0.11, 0.1, higher_is_better=False), False),
        (Points(0.74, -0.25, higher_is_better=True, baseline=1.0), False),
        (Points(0.75, -0.25, higher_is_better=True, baseline=1.0), True),
        (Points(0.26, 0.25, higher_is_better=False, baseline=0.0), False),
        (Points(0.25, 0.25, higher_is_better=False, baseline=0.0), True),
    ],
)
def test_rules_on_points_agree_with_each_other_and_with_mlflow(points, passes):
    answers = [rule(points) for rule in (point_passes, mlflow_arithmetic, tfma_passes, mlflow_passes)]
    assert answers == [passes] * 4


def test_mlflow_cannot_tolerate_a_loss():
    from mlflow.exceptions import MlflowException
    from mlflow.models import MetricThreshold

    with pytest.raises(MlflowException, match="positive"):
        MetricThreshold(min_absolute_change=-0.02, greater_is_better=True)


def test_written_evidence_reads_back(tmp_path):
    clause = BY_NAME["accuracy gap, n 600"]
    experiment = clause.build()
    sample = next(iter(experiment.samples(np.random.default_rng(3), 1)))
    evidence = experiment.evidence(sample)
    make_project(tmp_path, clause.rule, clause.keys)
    layout = Layout(tmp_path)
    subject = write_evidence(evidence, layout)
    back = read_evidence(layout.evidence("first"), layout.timing("first"), subject)
    assert back.candidate.scores.tolist() == evidence.candidate.scores.tolist()
    assert back.examples.columns["group"].tolist() == evidence.examples.columns["group"].tolist()
    assert back.timing.control_ms.tolist() == evidence.timing.control_ms.tolist()


@pytest.mark.parametrize("name", ["recall of 1 class of 10, n 2000", "selection rate ratio, n 800"])
def test_judging_counts_and_deciding_on_evidence_agree(name):
    position = [clause.name for clause in CLAUSES].index(name)
    row = gate_error.run_clause(position, gate_error.Sizes(20, 0, 3, 0, 0))
    assert row.draws == 20
    assert row.disagree == 0


def test_a_check_that_contradicts_the_counts_is_noticed(monkeypatch):
    name = "accuracy, n 1000"
    clause = BY_NAME[name]
    experiment = clause.build()
    monkeypatch.setattr(
        type(experiment), "evidence", lambda self, sample: evidence_of(self.pool, sample[0][:30])
    )
    position = [entry.name for entry in CLAUSES].index(name)
    assert gate_error.run_clause(position, gate_error.Sizes(40, 0, 40, 0, 0)).disagree > 0


def test_identical_predictions_never_fail_and_need_no_improvement():
    with gate_error.verdicts_only():
        result = run_scenario(SCENARIOS[0], 3, seed=1)
    assert (result.failed, result.opened, result.points, result.improved) == (0, 3, 3, 0)


def test_planned_power_is_reached():
    n, chance, share = power_of(0.1, 0.05, 400, seed=1)
    assert chance >= 0.8
    assert share == pytest.approx(chance, abs=4 * math.sqrt(chance * (1 - chance) / 400))
    assert n >= 29


def test_the_command_judges_what_was_simulated(tmp_path):
    """Evidence that the gate refused would look like a gate that never passes anything."""
    from gates_command import command_verdict

    clause = BY_NAME["accuracy, n 200"]
    make_project(tmp_path, clause.rule, clause.keys)
    experiment = clause.build()
    sample = next(iter(experiment.samples(np.random.default_rng(0), 1)))
    write_evidence(experiment.evidence(sample), Layout(tmp_path))
    verdict, code = command_verdict(tmp_path)
    assert verdict in {"PASS", "FAIL", "INCONCLUSIVE"}
    assert code == {"PASS": 0, "FAIL": 1, "INCONCLUSIVE": 3}[verdict]
