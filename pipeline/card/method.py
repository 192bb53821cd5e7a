# SPDX-License-Identifier: Apache-2.0
"""What the method itself cannot do, as every document says it."""

from __future__ import annotations

from pipeline.report.wording import SEARCH

__all__ = ["LIMITATIONS"]

LIMITATIONS = (
    "Every claim holds for the population the test examples were drawn from, and for no other.",
    (
        "Proof has an error rate: a candidate that violates a bounded rule passes it with a probability of "
        "at most the error that the decision states (up to half as much again for gaps and ratios between "
        "small groups, whose bounds are approximate). All attempts on one test split together err with at "
        "most the policy's alpha, as long as nobody builds a candidate from what this split showed of an "
        "earlier one."
    ),
    f"Screens search for trouble. {SEARCH}",
    "Time, energy and memory hold on the machine that measured them; another machine may give other figures.",
    "Harm is measured against the baseline; faults that the baseline already had are still there.",
)
