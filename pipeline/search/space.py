# SPDX-License-Identifier: Apache-2.0
"""A recipe drawn from the ranges of `search.space`, as passes that could stand in `params.yaml`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil
from typing import Any, Protocol

from checks.errors import ParamsError
from pipeline.compress.configs import (
    KINDS,
    Blocks,
    Channels,
    Distill,
    LowRank,
    Pass,
    Recover,
)
from pipeline.params import Params
from pipeline.search.configs import RecoverSpace, Space

__all__ = [
    "Draw",
    "Drawn",
    "baseline_precisions_of",
    "draw",
    "expect_space",
    "precisions_of",
    "same_passes",
]

_WHERE = "params.yaml search.space"


class Draw(Protocol):
    """Draws values by name; Optuna's trial does."""

    def suggest_categorical(self, name: str, choices: Sequence[Any], /) -> Any:
        """Return one of the choices."""
        ...

    def suggest_float(self, name: str, low: float, high: float, /, *, log: bool = False) -> float:
        """Return a number in [low, high]."""
        ...

    def suggest_int(self, name: str, low: int, high: int, /) -> int:
        """Return an integer in [low, high]."""
        ...


@dataclass(frozen=True)
class Drawn:
    """One recipe.

    Attributes:
        shrink: The passes that shrink; without any, nothing is trained either.
        recover: One pass a rung, each going on where the last one stopped; None trains nothing there.
        precision: Name in `quantize.recipes`.
    """

    shrink: tuple[Pass, ...]
    recover: tuple[Recover | None, ...]
    precision: str

    @property
    def passes(self) -> tuple[Pass, ...]:
        """The whole recipe."""
        return (*self.shrink, *(Pass(recover=rung) for rung in self.recover if rung is not None))

    @property
    def epochs(self) -> tuple[int, ...]:
        """Epochs of each rung."""
        return tuple(0 if rung is None else rung.epochs for rung in self.recover)

    @property
    def lengths(self) -> tuple[int, ...]:
        """How many passes the recipe has after each rung; a trial that is dropped there ends there."""
        done = [sum(rung is not None for rung in self.recover[: end + 1]) for end in range(len(self.recover))]
        return tuple(len(self.shrink) + count for count in done)

    def to_json(self) -> dict[str, Any]:
        """Return passes and precision as they could stand in `params.yaml`."""
        passes = [
            entry.model_dump(mode="json", exclude_unset=True, exclude_none=True) for entry in self.passes
        ]
        return {"passes": passes, "precision": self.precision}


def same_passes(recipe: Sequence[Mapping[str, Any]], passes: Sequence[Pass]) -> bool:
    """Whether passes as they stand in a file are these, defaults written out or not."""
    # As JSON, which has lists where passes hold tuples.
    return [Pass.model_validate_json(json.dumps(entry)).model_dump() for entry in recipe] == [
        entry.model_dump() for entry in passes
    ]


def precisions_of(params: Params) -> tuple[str, ...]:
    """Return the precisions that are drawn from."""
    return params.search.space.precisions or params.quantize.precisions


def baseline_precisions_of(params: Params) -> tuple[str, ...]:
    """Return the precisions at which the baseline itself is tried; these trials come first."""
    return params.search.space.baseline_precisions or precisions_of(params)


def expect_space(params: Params) -> None:
    """Refuse a space that holds nothing to search, or a kind of pass that this version has not.

    Raises:
        ParamsError: naming the key.
    """
    from pipeline.compress.recipe import FUNCTIONS

    space = params.search.space
    for kind in ("blocks", "channels", "low_rank"):
        if getattr(space, kind) is not None and kind not in FUNCTIONS:
            raise ParamsError(
                f"expected one of the passes {sorted(FUNCTIONS)}, got {kind}",
                where=f"{_WHERE}.{kind}",
                hint="leave it out",
            )
    blocks = space.blocks is not None and space.blocks.remove[1] > 0
    precisions = len({*precisions_of(params), *baseline_precisions_of(params)})
    if not blocks and space.channels is None and space.low_rank is None and precisions < 2:
        raise ParamsError(
            "expected at least one pass that shrinks or two precisions, got an empty space",
            where=_WHERE,
            hint="name channels, blocks, low_rank or more precisions",
        )


def _log_uniform(draw: Draw, name: str, ends: tuple[float, float], digits: int) -> float:
    # Few digits: the recipe is to be read, and written, by people.
    drawn = draw.suggest_float(name, *ends, log=True)
    return min(max(float(f"{drawn:.{digits}g}"), ends[0]), ends[1])


def _wanted(draw: Draw, kind: str, *, optional: bool) -> bool:
    return not optional or bool(draw.suggest_categorical(kind, (True, False)))


def _given(**options: Any) -> dict[str, Any]:
    """Options that say something: a recipe holds none of the others."""
    return {name: value for name, value in options.items() if value}


def _distill(soft: float, space: RecoverSpace) -> Distill:
    features = _given(features=space.features, layers=space.layers)
    return Distill(soft=soft, temperature=space.temperature, **features)


def _shrink(draw: Draw, space: Space) -> tuple[Pass, ...]:
    passes = []
    if space.blocks is not None:
        remove = draw.suggest_int("blocks.remove", *space.blocks.remove)
        if remove:
            criterion = draw.suggest_categorical("blocks.criterion", space.blocks.criteria)
            blocks = Blocks(remove=remove, criterion=criterion, **_given(skip=space.blocks.skip))
            passes.append(Pass(blocks=blocks))
    channels = space.channels
    if channels is not None and _wanted(draw, "channels", optional=channels.optional):
        passes.append(
            Pass(
                channels=Channels(
                    macs_reduction=_log_uniform(draw, "channels.macs_reduction", channels.macs_reduction, 3),
                    criterion=draw.suggest_categorical("channels.criterion", channels.criteria),
                    scope=draw.suggest_categorical("channels.scope", channels.scopes),
                    round_to=draw.suggest_categorical("channels.round_to", channels.round_to),
                    **_given(skip=channels.skip),
                )
            )
        )
    low_rank = space.low_rank
    if low_rank is not None and _wanted(draw, "low_rank", optional=low_rank.optional):
        reduction = _log_uniform(draw, "low_rank.macs_reduction", low_rank.macs_reduction, 3)
        kinds = () if set(low_rank.kinds) == set(KINDS) else low_rank.kinds
        options = _given(skip=low_rank.skip, kinds=kinds)
        passes.append(Pass(low_rank=LowRank(macs_reduction=reduction, **options)))
    return tuple(passes)


def _recover(draw: Draw, space: RecoverSpace, params: Params) -> Recover:
    train = params.train
    epochs = space.epochs or (max(1, train.epochs // 2),)
    rates = space.learning_rate or (train.learning_rate / 4, train.learning_rate)
    soft = draw.suggest_categorical("recover.distill", space.distill)
    return Recover.model_validate(
        train.model_dump()
        | {
            "epochs": draw.suggest_categorical("recover.epochs", epochs),
            "learning_rate": _log_uniform(draw, "recover.learning_rate", rates, 2),
            "distill": _distill(soft, space) if soft else None,
            # Without labels there is nothing to smooth.
            "label_smoothing": 0.0 if soft == 1 else train.label_smoothing,
        }
    )


def _in_rungs(recover: Recover, rungs: Sequence[float]) -> tuple[Recover | None, ...]:
    """Divide the epochs among the rungs: each trains up to its share."""
    ends = [0, *(ceil(share * recover.epochs - 1e-9) for share in rungs)]
    return tuple(
        recover.model_copy(update={"epochs": end - start}) if end > start else None
        for start, end in pairwise(ends)
    )


def draw(values: Draw, params: Params, slot: int) -> Drawn:
    """Draw a recipe; the first are not drawn: the baseline itself at each of its precisions, as it is.

    Args:
        values: Where its numbers come from.
        params: Sections `search`, `train` and `quantize`.
        slot: How many recipes came before.
    """
    search = params.search
    untrained: tuple[Recover | None, ...] = (None,) * len(search.rungs)
    first = baseline_precisions_of(params)
    if slot < len(first):
        return Drawn((), untrained, first[slot])
    precision = values.suggest_categorical("precision", precisions_of(params))
    shrink = _shrink(values, search.space)
    if not shrink:
        return Drawn((), untrained, precision)
    return Drawn(shrink, _in_rungs(_recover(values, search.space.recover, params), search.rungs), precision)
