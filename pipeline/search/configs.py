# SPDX-License-Identifier: Apache-2.0
"""Section `search` of `params.yaml`; every key has a default, nothing here imports torch or Optuna."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pipeline.compress.configs import KINDS, Criterion, Kinds, Layers
from pipeline.sections import Name, Section

__all__ = ["Budget", "Limits", "Objective", "RecoverSpace", "Search", "Space"]

Objective = Literal["accuracy", "loss", "worst_slice_accuracy", "robust_accuracy", "bytes", "latency", "macs"]

Factor = Annotated[float, Field(ge=1, le=1_000)]


def _expect_ascending(key: str, ends: tuple[float, float] | None) -> None:
    if ends is not None and ends[0] > ends[1]:
        raise ValueError(f"expected {key} as [least, most], got {list(ends)}")


class ChannelsSpace(Section):
    """How far channels are pruned, and by which options."""

    macs_reduction: tuple[Factor, Factor] = (1.25, 4.0)
    criteria: tuple[Criterion, ...] = Field(default=("taylor",), min_length=1)
    scopes: tuple[Literal["global", "layer", "sensitivity"], ...] = Field(default=("global",), min_length=1)
    round_to: tuple[Annotated[int, Field(ge=1, le=64)], ...] = Field(default=(1, 8), min_length=1)
    skip: Layers = ()
    optional: bool = Field(default=False, description="recipes without this pass are drawn as well")

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        _expect_ascending("macs_reduction", self.macs_reduction)
        return self


class BlocksSpace(Section):
    """How many blocks are removed; 0 leaves the pass out."""

    remove: tuple[Annotated[int, Field(ge=0, le=1_000)], Annotated[int, Field(ge=0, le=1_000)]]
    criteria: tuple[Literal["loss", "similarity"], ...] = Field(default=("loss",), min_length=1)
    skip: Layers = ()

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        _expect_ascending("remove", self.remove)
        return self


class LowRankSpace(Section):
    """How far layers are factorised."""

    macs_reduction: tuple[Factor, Factor] = (1.1, 2.0)
    kinds: Kinds = KINDS
    skip: Layers = ()
    optional: bool = Field(default=True, description="recipes without this pass are drawn as well")

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        _expect_ascending("macs_reduction", self.macs_reduction)
        return self


class RecoverSpace(Section):
    """How a network recovers after it was shrunk; what is not named here is as in section `train`."""

    epochs: tuple[Annotated[int, Field(ge=1, le=10_000)], ...] | None = Field(
        default=None, min_length=1, description="null: half of train.epochs"
    )
    learning_rate: (
        tuple[Annotated[float, Field(gt=0, le=10)], Annotated[float, Field(gt=0, le=10)]] | None
    ) = Field(default=None, description="null: from a quarter of train.learning_rate to all of it")
    distill: tuple[Annotated[float, Field(ge=0, le=1)], ...] = Field(
        default=(0.0, 0.5), min_length=1, description="shares of soft targets; 0 does not distil"
    )
    temperature: float = Field(default=2.0, gt=0, le=100)
    features: float = Field(
        default=0.0, ge=0, le=1_000, description="weight of feature maps wherever a recipe distils"
    )
    layers: tuple[str, ...] = Field(default=(), description="whose outputs are matched then")

    @model_validator(mode="after")
    def _layers_for_features(self) -> Self:
        if (self.features > 0) != bool(self.layers):
            raise ValueError("expected layers together with features, or neither")
        return self

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        _expect_ascending("learning_rate", self.learning_rate)
        return self


class Space(Section):
    """Which recipes are drawn: passes in the order blocks, channels, low_rank, recover; and a precision."""

    blocks: BlocksSpace | None = None
    channels: ChannelsSpace | None = ChannelsSpace()
    low_rank: LowRankSpace | None = None
    recover: RecoverSpace = RecoverSpace()
    precisions: tuple[Name, ...] | None = Field(
        default=None, min_length=1, description="of quantize.recipes; null: quantize.precisions"
    )
    baseline_precisions: tuple[Name, ...] | None = Field(
        default=None,
        min_length=1,
        description="at which the baseline itself is tried, before anything is drawn; null: precisions",
    )


class Budget(Section):
    """When no more is begun, even if trials are left."""

    epochs: float | None = Field(
        default=None,
        gt=0,
        description="of training in the whole search; an epoch of a network with half the MACs is half a one",
    )
    minutes: float | None = Field(default=None, gt=0, description="of one call of `leangate search`")


class Limits(Section):
    """What a candidate may cost; one that costs more is dropped before it is trained."""

    bytes: int | None = Field(default=None, ge=1)
    macs: int | None = Field(default=None, ge=1)
    latency: float | None = Field(default=None, gt=0, description="share of the baseline's")


class Robustness(Section):
    """Effort of objective robust_accuracy: projected gradient descent on the candidate."""

    epsilon: float = Field(
        default=0.03, gt=0, le=1, description="L-infinity budget, share of the pixel range"
    )
    steps: int = Field(default=5, ge=1, le=1_000)
    examples: int = Field(default=128, ge=1, description="of the validation split, drawn with the seed")


class Search(Section):
    """search: how `leangate search` looks for recipes; no stage reads it."""

    trials: int = Field(default=24, ge=1, le=100_000)
    seed: int | None = Field(default=None, ge=0, le=2**31 - 1, description="of the draws; null: seed")
    objectives: tuple[Objective, ...] = Field(default=("accuracy", "bytes", "latency"), min_length=1)
    bracket: int = Field(default=8, ge=2, le=1_000, description="trials that train side by side")
    rungs: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        default=(0.25, 0.5, 1.0),
        min_length=1,
        description="shares of the epochs; after each but the last, half of a bracket is dropped",
    )
    budget: Budget = Budget()
    limits: Limits = Limits()
    space: Space = Space()
    winners: int = Field(default=3, ge=1, le=100, description="how many --write makes recipes of")
    min_slice_examples: int = Field(
        default=10, ge=1, description="of the validation split; smaller classes and slices are no worst ones"
    )
    robustness: Robustness = Robustness()
    batch_size: int = Field(default=1, ge=1, le=4096, description="of a call that is timed")

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        if len(set(self.objectives)) != len(self.objectives):
            raise ValueError(f"expected distinct objectives, got {list(self.objectives)}")
        if self.rungs[-1] != 1 or any(one >= other for one, other in pairwise(self.rungs)):
            raise ValueError(f"expected rungs that ascend to 1, got {list(self.rungs)}")
        return self
