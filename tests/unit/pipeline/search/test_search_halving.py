# SPDX-License-Identifier: Apache-2.0
"""Ranks, hypervolume and who survives a rung, against Optuna's own hypervolume where there is a number."""

import numpy as np
import pytest

from pipeline.search.halving import front_of, hypervolume, rank, spread, survivors


@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
def test_hypervolume_is_optunas(objectives):
    from optuna._hypervolume import compute_hypervolume

    random = np.random.default_rng(objectives)
    losses = random.random((14, objectives))
    losses[3] = losses[7]  # a tie counts once
    reference = np.full(objectives, 0.9)  # and what lies beyond it counts for nothing
    inside = losses[(losses < reference).all(axis=1)]
    assert hypervolume(losses, reference) == pytest.approx(compute_hypervolume(inside, reference), rel=1e-12)


def test_ranks_are_optunas():
    from optuna.study._multi_objective import _fast_non_domination_rank

    losses = np.random.default_rng(0).integers(0, 6, (40, 3)).astype(float)
    assert rank(losses) == _fast_non_domination_rank(losses).tolist()


def test_the_front_keeps_ties_and_drops_what_is_beaten():
    losses = np.array([[1.0, 2.0], [1.0, 2.0], [2.0, 2.0], [3.0, 1.0], [0.5, 9.0]])
    assert front_of(losses) == [0, 1, 3, 4]


def test_half_survives_by_rank_first():
    losses = np.array([[1.0, 1.0], [9.0, 9.0], [2.0, 0.5], [9.0, 8.0], [0.5, 2.0], [8.0, 9.0]])
    assert survivors(losses) == [0, 2, 4]


def test_within_a_rank_whoever_adds_least_goes():
    # The second and the third are nearly the same: one of them adds next to nothing.
    losses = np.array([[0.0, 1.0], [0.50, 0.50], [0.51, 0.49], [1.0, 0.0]])
    assert survivors(losses)[0] == 0 or survivors(losses)[-1] == 3
    assert len(set(survivors(losses)) & {1, 2}) == 1


def test_equal_trials_lose_from_the_last_on():
    assert survivors(np.ones((4, 2))) == [0, 1]
    assert survivors(np.ones((1, 2))) == [0]
    assert survivors(np.array([[1.0], [3.0], [2.0], [4.0]])) == [0, 2]


def test_winners_are_spread_over_the_front():
    losses = np.array([[0.0, 1.0], [0.01, 0.99], [0.5, 0.5], [1.0, 0.0], [1.0, 1.0]])
    assert spread(losses, 9) == [0, 1, 2, 3]
    assert 2 in spread(losses, 2)
    assert 4 not in spread(losses, 2)
    assert spread(np.empty((0, 2)), 3) == []
