# SPDX-License-Identifier: Apache-2.0
"""The presets: each parses, passes identical models on enough data, and stops what it was written against."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from checks.contract_runs import RUNS
from checks.decision import Outcome, decide
from checks.evidence import Contract
from checks.finding import Reason, Verdict
from checks.protocol import look_up
from pipeline.policy_file import load_policy

ROOT = Path(__file__).resolve().parents[2]
PRESETS = ("default", "medical", "automotive", "face")
COLUMNS = {
    "default": {
        "stroke_weight": ("light", "medium", "bold"),
        "slant": ("backward", "upright", "forward"),
        "size": ("small", "medium", "large"),
    },
    "medical": {"sex": ("female", "male"), "age_group": ("young", "middle", "old")},
    "automotive": {
        "weather": ("dry", "rain"),
        "light": ("day", "night"),
        "occlusion": ("none", "part", "most"),
    },
    "face": {
        "sex": ("female", "male"),
        "age_group": ("young", "old"),
        "skin_tone": ("light", "medium", "dark"),
    },
}
CLASSES = ("a", "b", "c", "d")
COUNT = 4320


@cache
def _policy(name):
    return load_policy(ROOT / "policies" / f"{name}.yaml")


def _columns(name, count):
    """Every combination of levels and classes is equally frequent."""
    columns, stride = {}, len(CLASSES)
    for attribute, levels in COLUMNS[name].items():
        columns[attribute] = np.array(levels)[np.arange(count) // stride % len(levels)]
        stride *= len(levels)
    return columns


class Population:
    """Two models on `count` examples with the columns of a preset; tests change what the candidate decides."""

    def __init__(self, build, name, count=COUNT):
        self.evidence = build(count, calls=41)
        self.name, self.count = name, count
        self.labels = np.arange(count) % len(CLASSES)
        self.columns = _columns(name, count)
        # One in thirty is wrong at the baseline, everywhere alike.
        wrong = np.random.default_rng(5).permutation(count)[: count // 30]
        self.baseline = self.labels.copy()
        self.baseline[wrong] = (self.labels[wrong] + 1) % len(CLASSES)
        self.candidate = self.baseline.copy()
        self.confidence, self.p99, self.robust = 1.0, 0.5, None

    def where(self, **levels):
        chosen = np.ones(self.count, dtype=bool)
        for attribute, level in levels.items():
            column = self.labels if attribute == "label" else self.columns[attribute]
            chosen &= column == level
        return np.flatnonzero(chosen)

    def lose(self, index, share, into=None):
        """Of the examples at `index`, decide that share wrongly, `into` one class if given."""
        index = index[self.baseline[index] == self.labels[index]]
        index = index[: round(len(index) * share)]
        self.candidate[index] = (self.labels[index] + 1) % len(CLASSES) if into is None else into

    def _scores(self, chosen, confidence, seed):
        noise = np.random.default_rng(seed).normal(0, 0.01, (self.count, len(CLASSES)))
        return (np.eye(len(CLASSES))[chosen] * 4 * confidence + noise).astype(np.float32)

    def _groups(self):
        columns = self.columns | {"label": np.array(CLASSES)[self.labels]}
        right = {model: getattr(self, model) == self.labels for model in ("baseline", "candidate")}
        return {
            attribute: {
                str(level): {
                    "n": int((column == level).sum()),
                    **{
                        f"{model}_accuracy": float(hits[column == level].mean())
                        for model, hits in right.items()
                    },
                }
                for level in np.unique(column)
            }
            for attribute, column in columns.items()
        }

    def build(self):
        evidence, ids = self.evidence, self.evidence.examples.ids
        scores = {
            "baseline": self._scores(self.baseline, 1.0, 1),
            "candidate": self._scores(self.candidate, self.confidence, 2),
        }
        runs = {model: dict.fromkeys(RUNS, array[:64]) for model, array in scores.items()}
        robust = np.ones((2, self.count), dtype=bool)
        hit = robust.copy()
        if self.robust is not None:
            hit[1, : round(self.count * self.robust)] = False
        timing = replace(
            evidence.timing,
            batch_sizes=(1, 64),
            **{
                key: np.concatenate([value, value])
                for key, value in vars(evidence.timing).items()
                if key.endswith(("_ms", "_processor_s"))
            },
        )
        timing = replace(timing, candidate_calls_ms=timing.candidate_calls_ms * self.p99 / 0.5)
        return replace(
            evidence,
            examples=replace(
                evidence.examples,
                labels=self.labels,
                columns=self.columns,
                levels={name: tuple(sorted(levels)) for name, levels in COLUMNS[self.name].items()},
            ),
            baseline=replace(evidence.baseline, scores=scores["baseline"]),
            candidate=replace(evidence.candidate, scores=scores["candidate"]),
            contract=Contract(ids[:64], **runs),
            attacks=replace(evidence.attacks, baseline_correct=robust, candidate_correct=hit),
            timing=timing,
            groups={"attributes": self._groups()},
        )


def _decide(name, population):
    file = _policy(name)
    return decide(file.checks, population.build(), file.policy, alpha=file.policy.alpha)


def _verdicts(name, population, rule):
    """The verdicts of one rule alone."""
    file = _policy(name)
    [wanted] = [entry for entry in file.policy.rules if entry.id == rule]
    [check] = [entry for entry in file.checks if look_up(wanted.metric, entry.metrics)]
    decision = decide(
        [check], population.build(), replace(file.policy, rules=(wanted,)), alpha=file.policy.alpha
    )
    return {finding.verdict for finding in decision.findings}


def test_the_policy_of_the_project_is_the_default_preset():
    assert (ROOT / "policy.yaml").read_bytes() == (ROOT / "policies" / "default.yaml").read_bytes()


def test_every_preset_is_tested():
    assert sorted(path.stem for path in (ROOT / "policies").glob("*.yaml")) == sorted(PRESETS)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_has_its_name_and_justifies_every_number(name):
    policy = _policy(name).policy
    assert policy.name == name
    lines = (ROOT / "policies" / f"{name}.yaml").read_text().splitlines()
    for number, line in enumerate(lines):
        key, _, value = line.strip().partition(":")
        if key not in {"margin", "min", "max", "alarm", "min_n"} or value.split("#")[0].strip() in {
            "0",
            "1.0",
        }:
            continue
        # Beside the number, or on the lines of comment above it.
        assert "#" in value or lines[number - 1].lstrip().startswith("#"), line
    assert max(map(len, lines)) <= 110


@pytest.mark.parametrize("name", PRESETS)
def test_equal_models_pass_every_preset(evidence, name):
    decision = _decide(name, Population(evidence, name))
    assert [f.message for f in decision.findings if f.verdict not in (Verdict.PASS, Verdict.NO_FINDING)] == []
    assert decision.outcome is Outcome.PASSED


@pytest.mark.parametrize("name", PRESETS)
def test_equal_models_on_few_examples_do_not_pass(evidence, name):
    decision = _decide(name, Population(evidence, name, 72))
    assert not decision.open
    bounded = [f for f in decision.findings if f.rule.kind == "bounded"]
    assert Verdict.FAIL not in {f.verdict for f in bounded}
    assert Reason.TOO_SMALL in {f.reason for f in bounded}


def _scattered(population):
    population.lose(np.random.default_rng(0).permutation(population.count), 0.1)


HARMS = [
    ("default", "accuracy-overall", _scattered),
    ("default", "accuracy-slices", lambda p: p.lose(p.where(slant="forward"), 0.08)),
    ("default", "accuracy-classes", lambda p: p.lose(p.where(label=2), 0.2)),
    ("default", "disparity-added", lambda p: p.lose(p.where(size="large"), 0.12)),
    ("default", "churn", _scattered),
    ("default", "losses-spread", lambda p: p.lose(p.where(slant="forward"), 0.03)),
    ("default", "flips-not-targeted", lambda p: p.lose(p.where(), 0.01, into=3)),
    ("default", "robustness-change", lambda p: setattr(p, "robust", 0.2)),
    ("medical", "sensitivity-per-class", lambda p: p.lose(p.where(label=1), 0.04)),
    ("medical", "false-alarms-per-class", lambda p: p.lose(p.where(label=0), 0.12, into=1)),
    ("medical", "accuracy-groups", lambda p: p.lose(p.where(age_group="old"), 0.04)),
    ("medical", "accuracy-intersections", lambda p: p.lose(p.where(sex="female", age_group="old"), 0.08)),
    ("medical", "equal-opportunity", lambda p: p.lose(p.where(sex="male", label=2), 0.2)),
    ("medical", "equal-opportunity-added", lambda p: p.lose(p.where(sex="male", label=2), 0.1)),
    ("medical", "false-alarms-added", lambda p: p.lose(p.where(sex="male", label=2), 0.3, into=0)),
    ("medical", "probabilities", lambda p: setattr(p, "confidence", 0.25)),
    ("medical", "newly-wrong", _scattered),
    ("automotive", "accuracy-conditions", lambda p: p.lose(p.where(light="night"), 0.04)),
    (
        "automotive",
        "accuracy-combined-conditions",
        lambda p: p.lose(p.where(light="night", weather="rain"), 0.08),
    ),
    ("automotive", "detection-per-class", lambda p: p.lose(p.where(label=0), 0.04)),
    ("automotive", "condition-gap-added", lambda p: p.lose(p.where(weather="rain"), 0.05)),
    ("automotive", "losses-spread", lambda p: p.lose(p.where(occlusion="most"), 0.03)),
    ("automotive", "robustness-floor", lambda p: setattr(p, "robust", 0.55)),
    ("automotive", "slowest-calls", lambda p: setattr(p, "p99", 40.0)),
    ("face", "four-fifths", lambda p: p.lose(p.where(skin_tone="dark", label=1), 0.4)),
    ("face", "demographic-parity", lambda p: p.lose(p.where(skin_tone="dark"), 0.4, into=0)),
    ("face", "equalized-odds-found", lambda p: p.lose(p.where(skin_tone="dark", label=1), 0.2)),
    ("face", "equalized-odds-false", lambda p: p.lose(p.where(skin_tone="dark", label=1), 0.3, into=2)),
    ("face", "accuracy-gap", lambda p: p.lose(p.where(sex="female"), 0.15)),
    ("face", "accuracy-intersections", lambda p: p.lose(p.where(skin_tone="dark", sex="female"), 0.08)),
    ("face", "disparity-added", lambda p: p.lose(p.where(skin_tone="dark"), 0.05)),
    ("face", "selection-added", lambda p: p.lose(p.where(skin_tone="dark", label=1), 0.3)),
    ("face", "false-positives-added", lambda p: p.lose(p.where(skin_tone="dark", label=1), 0.2, into=2)),
    ("face", "churn", _scattered),
    ("face", "losses-spread", lambda p: p.lose(p.where(skin_tone="dark"), 0.03)),
]


@pytest.mark.parametrize(("name", "rule", "harm"), HARMS, ids=[f"{name}-{rule}" for name, rule, _ in HARMS])
def test_a_planted_harm_is_stopped_by_the_rule_against_it(evidence, name, rule, harm):
    """Without the harm every rule passes, as the tests on equal models say."""
    population = Population(evidence, name)
    harm(population)
    assert Verdict.FAIL in _verdicts(name, population, rule)


@pytest.mark.parametrize("name", PRESETS)
def test_a_harmed_candidate_does_not_open_the_gate(evidence, name):
    population = Population(evidence, name)
    attribute, levels = next(iter(COLUMNS[name].items()))
    population.lose(population.where(**{attribute: levels[-1]}), 0.1)
    assert _decide(name, population).outcome is Outcome.BLOCKED


def test_the_commented_operating_point_is_a_policy_once_it_is_taken_in(evidence, tmp_path):
    """What medical.yaml shows as a comment must parse, and must bite."""
    lines = (ROOT / "policies" / "medical.yaml").read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("# operating_points:"))
    taken = []
    for number, line in enumerate(lines):
        if start <= number <= start + 4 or line.startswith(("  # - id: s", "  #   ")):
            line = line.replace("# ", "", 1)
        taken.append(line.replace("malignant", "b"))
    path = tmp_path / "medical.yaml"
    path.write_text("\n".join(taken))
    file = load_policy(path)
    assert file.policy.operating_points[0].target == "b"
    rules = tuple(rule for rule in file.policy.rules if "-at-threshold" in rule.id)
    assert len(rules) == 3
    population = Population(evidence, "medical")
    policy = replace(file.policy, rules=rules)
    assert decide(file.checks, population.build(), policy, alpha=policy.alpha).outcome is Outcome.PASSED
    population.lose(population.where(sex="male", label=1), 0.2)
    decision = decide(file.checks, population.build(), policy, alpha=policy.alpha)
    failed = {(f.rule.id, f.subject) for f in decision.findings if f.verdict is Verdict.FAIL}
    assert ("sensitivity-at-threshold", "sex=male for screening") in failed
    assert not any(subject.startswith("sex=female") for _, subject in failed)
