# SPDX-License-Identifier: Apache-2.0
"""Harm of a known size in a population: how often is a candidate at half, once and twice the limit promoted?

The good pipeline's test examples are the population, conditions and classes as they are; harm is a probability
of each example, so that the population's own change is known exactly. A test set of the same size is drawn
from it, with as many examples of each class and condition as there are, and judged by the bounded rules on
accuracy, gaps and flips.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from checks.accuracy import AccuracyCheck
from checks.decision import Outcome, decide
from checks.disparity import DisparityCheck
from checks.errors import PolicyError
from checks.evidence import Evidence, Scores
from checks.flips import FlipsCheck
from checks.policy import Policy, parse_policy
from checks.protocol import metrics_of
from pipeline.params import load_yaml
from tests.planted.workshop import HERE

__all__ = ["LADDER", "SEVERITIES", "Climbed", "Harm", "climb"]

SEVERITIES = (0.0, 0.5, 1.0, 2.0)
"""In units of the limit."""

_CHECKS = (AccuracyCheck(), DisparityCheck(), FlipsCheck())


@dataclass(frozen=True)
class Harm:
    """One bounded row.

    Attributes:
        number: In the list of planted defects.
        what: What happens at the limit.
        rule: The rule whose limit it is.
        subject: The slice whose finding counts; empty for a rule with one finding.
        limit: Of the rule.
        where: Slice attribute and level that is harmed.
        harmed: Losses there, as a share of the limit.
        helped: Gains elsewhere, as a share of the limit; None: so many that overall accuracy stays.
    """

    number: str
    what: str
    rule: str
    subject: str
    limit: float
    where: tuple[str, str]
    harmed: float
    helped: float | None


LADDER = (
    Harm("9", "class 8 falls by 0.10", "accuracy-classes", "label=8", 0.10, ("label", "8"), 1.0, 0.0),
    Harm("10", "dim falls by 0.05", "accuracy-light", "light=dim", 0.05, ("light", "dim"), 1.0, 0.0),
    Harm(
        "12",
        "dim falls by 0.05, the others rise as much in all",
        "accuracy-light",
        "light=dim",
        0.05,
        ("light", "dim"),
        1.0,
        None,
    ),
    Harm(
        "42",
        "dim falls by 0.025, the others rise by 0.025",
        "disparity-added",
        "",
        0.05,
        ("light", "dim"),
        0.5,
        0.5,
    ),
)


@dataclass(frozen=True)
class Climbed:
    """How often, of `draws`, the rule passed, everything was promoted, and the naive threshold was kept."""

    draws: int
    passed: int
    promoted: int
    naive: int


def _policy(harm: Harm | None = None) -> Policy:
    """The suite's policy without what is neither accuracy nor a gap nor a share of flips.

    Args:
        harm: Keeps its rule alone, and of that the slice that is harmed.
    """
    metrics = metrics_of(_CHECKS)
    value = load_yaml(HERE / "policy.yaml", PolicyError)
    rules = [rule for rule in value["rules"] if rule["metric"] in metrics and rule["kind"] == "bounded"]
    if harm is not None:
        [rule] = [rule for rule in rules if rule["id"] == harm.rule]
        rules = [rule | {"slices": [harm.subject]} if harm.subject else rule]
    return parse_policy(value | {"rules": rules}, metrics)


def _strata(evidence: Evidence) -> list[np.ndarray]:
    examples = evidence.examples
    names = np.strings.add(examples.columns["light"], np.array(examples.classes)[examples.labels])
    return [np.flatnonzero(names == name) for name in np.unique(names)]


def _draw(evidence: Evidence, harm: Harm, severity: float, random: np.random.Generator) -> Evidence:
    examples = evidence.examples
    rows = np.concatenate([random.choice(stratum, len(stratum)) for stratum in _strata(evidence)])
    labels, classes = examples.labels[rows], len(examples.classes)
    attribute, level = harm.where
    columns = {name: column[rows] for name, column in examples.columns.items()}
    levels = np.array(examples.classes)[labels] if attribute == "label" else columns[attribute]
    inside = levels == level
    loss = harm.harmed * severity * harm.limit
    gain = harm.helped if harm.helped is not None else harm.harmed * inside.sum() / (~inside).sum()
    chance = random.random(len(rows))
    lost = inside & (chance < loss)
    gained = ~inside & (chance < gain * severity * harm.limit)
    right = evidence.baseline.scores[rows].argmax(axis=1) == labels
    # Losses need a baseline that is right, gains one that is wrong.
    before, after = (right | lost) & ~gained, (right | gained) & ~lost
    wrong = (labels + random.integers(1, classes, len(rows))) % classes
    ids = np.array([f"drawn-{index:04d}" for index in range(len(rows))])
    scores = [
        Scores(ids, np.eye(classes, dtype=np.float32)[np.where(correct, labels, wrong)])
        for correct in (before, after)
    ]
    drawn = replace(examples, ids=ids, units=ids, labels=labels, columns=columns)
    return replace(evidence, examples=drawn, baseline=scores[0], candidate=scores[1])


def climb(evidence: Evidence, harm: Harm, severity: float, draws: int, seed: int) -> Climbed:
    """Draw and judge.

    Args:
        evidence: Of the good pipeline.
        harm: What is done.
        severity: How much of it, in units of the limit.
        draws: Number of test sets.
        seed: Of the draws.
    """
    random = np.random.default_rng([seed, int(harm.number), round(severity * 10)])
    alone, whole = _policy(harm), _policy()
    passed = promoted = naive = 0
    for _ in range(draws):
        drawn = _draw(evidence, harm, severity, random)
        # What its own rule does not pass is not promoted, whatever the others say: they need not be asked.
        kept = decide(_CHECKS, drawn, alone, alpha=alone.alpha).outcome is Outcome.PASSED
        passed += kept
        promoted += kept and decide(_CHECKS, drawn, whole, alpha=whole.alpha).outcome is Outcome.PASSED
        labels = drawn.examples.labels
        right = [
            np.mean(model.scores.argmax(axis=1) == labels) for model in (drawn.baseline, drawn.candidate)
        ]
        naive += bool(right[1] >= right[0] - 0.02)
    return Climbed(draws, passed, promoted, naive)
