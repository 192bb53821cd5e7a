# SPDX-License-Identifier: Apache-2.0
"""Tests and bounds behind the verdicts: numbers in, numbers out, no policy and no verdict.

Every test keeps its one-sided error at or below `alpha`, so a small test set yields a wide
bound or a large p-value, never a comfortable one. Read in this order:

    paired        one candidate against its baseline on the same units: Tango's score,
                  exact p-values for "not worse by the margin" and "worse by the margin"
    planning      how many units a margin needs, the chance to pass, the margin that n allows
    binomial      one proportion: Clopper-Pearson and Wilson bounds
    disparity     difference of two groups' paired changes (MOVER on Tango bounds)
    proportions   difference and ratio of two groups' shares (Miettinen-Nurminen, MOVER on Wilson)
    pairs         the worst of all pairs of groups, for each of these comparisons
    ranks         Hodges-Lehmann estimate and signed-rank bounds for small samples of ratios
    resampling    bootstrap-t and grouped jackknife-t, where there is no closed form
    order_statistics  bounds of a quantile, such as the slowest of a hundred calls
    screens       searches for concentration of losses and flips
    multiplicity  Holm's step-down rule for several claims of harm
    attempts      the level of the next attempt on the same data

Words used throughout:

    loss          baseline right, candidate wrong
    gain          baseline wrong, candidate right
    n             units judged, of which losses + gains are discordant
    D             true accuracy of the candidate minus that of the baseline, in [-1, 1]
    margin        largest tolerated drop, in (0, 1): D <= -margin violates the rule
    churn         probability of a loss plus probability of a gain
    alpha         one-sided error probability, in (0, 0.5]

Modules whose name starts with an underscore are private to the package. scipy is imported
inside functions only, because importing it costs more than judging.
"""

from __future__ import annotations

from checks.statistics.binomial import (
    clopper_pearson_lower,
    clopper_pearson_upper,
    wilson_bounds,
)
from checks.statistics.disparity import mover_tango_lower, mover_tango_upper
from checks.statistics.multiplicity import holm
from checks.statistics.paired import (
    exact_lower,
    p_harm,
    p_noninferior,
    tango_bounds,
    tango_z,
)
from checks.statistics.planning import (
    MoreExamples,
    further_examples,
    minimum_detectable_effect,
    n_min,
    n_plan,
    power,
)
from checks.statistics.ranks import (
    hodges_lehmann,
    hodges_lehmann_bounds,
    walsh_averages,
)

__all__ = [
    "MoreExamples",
    "clopper_pearson_lower",
    "clopper_pearson_upper",
    "exact_lower",
    "further_examples",
    "hodges_lehmann",
    "hodges_lehmann_bounds",
    "holm",
    "minimum_detectable_effect",
    "mover_tango_lower",
    "mover_tango_upper",
    "n_min",
    "n_plan",
    "p_harm",
    "p_noninferior",
    "power",
    "tango_bounds",
    "tango_z",
    "walsh_averages",
    "wilson_bounds",
]
