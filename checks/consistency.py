# SPDX-License-Identifier: Apache-2.0
"""What several tables of evidence say of one thing must agree: else some of it is about something else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

from checks.contract_runs import REFERENCE
from checks.errors import EvidenceError
from checks.evidence import Evidence, Scores
from checks.outcomes import join_ids
from checks.tables import Providers

__all__ = ["CLEAN", "expect_consistent"]

CLEAN = "clean"
"""The attack of the pool that changes nothing."""

_FEWEST_CONTRACT_EXAMPLES = 32
"""A file that breaks its contract on one image in ten shows it on so many with probability 0.97."""

_MOST_OTHERWISE = 0.02
"""Share of the contract's examples that may be decided otherwise than the scores say: by other batches."""

Indices = npt.NDArray[np.int64]


def _decided(scores: npt.NDArray[np.float32]) -> Indices:
    finite = np.isfinite(scores).all(axis=1)
    return np.where(finite, scores.argmax(axis=1), -1).astype(np.int64)


def _positions(ids: npt.NDArray[np.str_], evidence: Evidence, where: str) -> Indices:
    position = {name: row for row, name in enumerate(evidence.examples.ids.tolist())}
    strangers = [name for name in ids.tolist() if name not in position]
    if strangers:
        raise EvidenceError(f"expected examples of the test split, got {strangers[:3]}", where=where)
    return np.array([position[name] for name in ids.tolist()], dtype=np.int64)


def _models(evidence: Evidence) -> Iterator[tuple[str, Scores]]:
    yield "baseline", evidence.baseline
    yield "candidate", evidence.candidate


def _expect_contract(evidence: Evidence, decided: Mapping[str, Indices]) -> None:
    where, contract = "contract.npz", evidence.contract
    least = min(_FEWEST_CONTRACT_EXAMPLES, len(evidence.examples.ids))
    if len(contract.ids) < least:
        raise EvidenceError(
            f"expected the contract of {least} examples or more, got {len(contract.ids)}",
            where=where,
            hint="raise evaluate.contract_examples in params.yaml",
        )
    rows = _positions(contract.ids, evidence, where)
    for model, _ in _models(evidence):
        reference = _decided(getattr(contract, model)[REFERENCE])
        otherwise = int(np.count_nonzero(reference != decided[model][rows]))
        if otherwise > _MOST_OTHERWISE * len(rows):
            raise EvidenceError(
                f"expected the decisions of {model}.npz, got {otherwise} others on {len(rows)} examples",
                where=where,
                hint="one of the two was made with another file; run `dvc repro`",
            )


def _expect_attacks(evidence: Evidence, decided: Mapping[str, Indices]) -> None:
    where, attacks = "attacks.npz", evidence.attacks
    if CLEAN not in attacks.names:
        raise EvidenceError(
            f"expected the attack {CLEAN!r} among {list(attacks.names)}, got none: robustness starts from it",
            where=where,
        )
    rows, clean = _positions(attacks.ids, evidence, where), attacks.names.index(CLEAN)
    labels = evidence.examples.labels[rows]
    for model, correct in (("baseline", attacks.baseline_correct), ("candidate", attacks.candidate_correct)):
        otherwise = int(np.count_nonzero(correct[clean] != (decided[model][rows] == labels)))
        if otherwise:
            raise EvidenceError(
                f"expected the clean images to be decided as in {model}.npz, got {otherwise} of {len(rows)} "
                f"otherwise",
                where=where,
                hint="one of the two was made with another file; run `dvc repro`",
            )


def _expect_providers(evidence: Evidence) -> None:
    timing = evidence.timing
    declared: dict[str, Providers] = {
        "baseline.npz": evidence.baseline.providers,
        "candidate.npz": evidence.candidate.providers,
        "timing.npz": timing.baseline_providers,
        "timing.npz (candidate)": timing.candidate_providers,
    }
    first = evidence.baseline.providers.declared
    for where, providers in declared.items():
        if providers.declared != first:
            raise EvidenceError(
                f"expected the declared providers {list(first)}, got {list(providers.declared)}", where=where
            )


def expect_consistent(evidence: Evidence) -> None:
    """Refuse evidence whose tables contradict each other, or leave out what others rest on.

    Scores, contract and attacks are three records of the same decisions; times and scores of the same
    providers. NaN and infinity are decisions for nothing here: a check counts them.

    Raises:
        EvidenceError: naming the table and what differs.
    """
    ids = evidence.examples.ids
    decided = {
        name: _decided(model.scores[join_ids(ids, model.ids, f"{name}.npz")])
        for name, model in _models(evidence)
    }
    _expect_contract(evidence, decided)
    _expect_attacks(evidence, decided)
    _expect_providers(evidence)
